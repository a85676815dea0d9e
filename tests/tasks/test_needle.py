"""The needle task: what is hidden where, in generated and in given texts."""

from __future__ import annotations

import gzip
import hashlib
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import DataError
from ropewalk.haystack import generated_sentences
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, TaskOptions
from ropewalk.tasks.needle import share_found

NEEDLE = re.compile(r"One of the special magic (?:numbers|UUIDs) for ([\w-]+) is: ([\w-]+)\.")


def needle(positions: Any = 3, limit: int = 2, data: Path | None = None, seed: int = 0, **own: Any) -> Any:
    options = {"lengths": "300"} | own
    return make_task("needle", TaskOptions(positions, None, data, limit, seed, options))


def examples(split: Any = "test", **options: Any) -> list[Example]:
    return needle(**options).examples(split)


def hidden(example: Example, kind: str = "gold") -> list[str]:
    return [piece.text.strip() for piece in example.pieces if piece.kind == kind]


def haystack(example: Example) -> str:
    return "".join(piece.text for piece in example.pieces if piece.kind == "text")


def depth(example: Example) -> float:
    """Words of the haystack before the first gold needle, as a fraction."""
    before = [piece.kind for piece in example.pieces].index("gold")
    words = sum(len(piece.text.split()) for piece in example.pieces[:before] if piece.kind == "text")
    return words / len(haystack(example).split())


def book(path: Path, label: str = "book", words: int = 5000) -> Path:
    content = "".join(generated_sentences(label, words)).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_generated_prompts_are_the_same_on_every_machine() -> None:
    example = examples(positions=(50,), limit=1, seed=3, variant="multi-key")[0]
    digest = hashlib.sha256((example.prompt + example.opening + example.answers[0]).encode()).hexdigest()
    assert digest == "930fe660dd2de928525f27878080fef07b3bddd56f1e7cf83f90c1cbaffb20a2"


def test_one_needle_is_asked_for_and_goes_to_its_depth() -> None:
    found = examples(positions=(0, 25, 50, 75, 100), limit=3, lengths="2000")
    assert [(example.record, example.gold_index) for example in found] == [
        (f"needle-0-test-{record}", at) for record in range(3) for at in (0, 25, 50, 75, 100)
    ]
    for example in found:
        ((key, value),) = NEEDLE.findall(example.prompt)
        assert example.answers == (value,)
        assert len(value) == 7
        assert depth(example) == pytest.approx(example.gold_index / 100, abs=0.01)
        assert example.prompt.endswith(
            f"\n\nWhat is the special magic number for {key} mentioned in the provided text?"
        )
        assert example.opening == f"The special magic number for {key} mentioned in the provided text is: "
        assert value not in example.opening
        assert "  " not in example.prompt
        assert len(haystack(example).split()) == pytest.approx(2000, abs=30)


def test_a_record_is_the_same_at_every_depth_but_for_the_needles_place() -> None:
    first, second = examples(positions=(10, 90), limit=1)
    assert hidden(first) == hidden(second)
    assert haystack(first).split() == haystack(second).split()
    assert first.prompt != second.prompt


def test_distractors_stay_where_they_are_and_have_other_keys_and_values() -> None:
    for variant in examples(positions=(0, 100), variant="multi-key", distractors="6"), examples(variant="multi-key"):
        for example in variant:
            ((key, value),) = NEEDLE.findall(hidden(example)[0])
            others = [NEEDLE.findall(text)[0] for text in hidden(example, "distractor")]
            assert len({name for name, _ in others} | {key}) == len(others) + 1
            assert len({number for _, number in others} | {value}) == len(others) + 1
    near, far = examples(positions=(0, 100), limit=1, variant="multi-key", distractors=6)
    assert hidden(near, "distractor") == hidden(far, "distractor")
    assert len(hidden(near, "distractor")) == 6

    def without_gold(example: Example) -> list[str]:
        return "".join(piece.text for piece in example.pieces if piece.kind != "gold").split()

    assert without_gold(near) == without_gold(far)


@pytest.mark.parametrize("at", [0, 50, 100])
def test_all_values_of_the_key_stand_a_sentence_apart_at_the_depth(at: int) -> None:
    (example,) = examples(positions=(at,), limit=1, variant="multi-value", values=3, lengths="1000")
    found = [NEEDLE.findall(text)[0] for text in hidden(example)]
    assert len({key for key, _ in found}) == 1
    assert example.answers == (", ".join(value for _, value in found),)
    kinds = [piece.kind for piece in example.pieces]
    places = [place for place, kind in enumerate(kinds) if kind == "gold"]
    assert [kinds[place + 1] for place in places[:2]] == ["text", "text"]
    assert depth(example) == pytest.approx(at / 100, abs=0.05)
    assert example.opening.endswith("are: ")


def test_uuids_are_version_4() -> None:
    (example,) = examples(positions=(50,), limit=1, value="uuid")
    assert uuid.UUID(example.answers[0]).version == 4
    assert "special magic UUID for" in example.opening


def test_several_lengths_take_turns_and_are_the_groups() -> None:
    found = examples(positions=(50,), limit=5, lengths="100,400")
    assert [example.group for example in found] == ["100 words", "400 words"] * 2 + ["100 words"]
    for example in found:
        assert len(haystack(example).split()) == pytest.approx(int(example.group.split()[0]), abs=30)
    assert needle(lengths=(100, 400)).settings() == needle(lengths="100, 400").settings()
    assert needle(lengths=100).lengths == (100,)


def test_seeds_and_splits_share_no_value() -> None:
    values = [
        [example.answers[0] for example in examples(split, seed=seed, positions=(50,), limit=30)]
        for split in ("search", "validation", "test")
        for seed in (0, 1)
    ]
    assert len({value for some in values for value in some}) == 180


@pytest.mark.parametrize("name", ["book.txt", "book.txt.gz"])
def test_a_given_text_is_cut_into_disjoint_regions(tmp_path: Path, name: str) -> None:
    path = book(tmp_path / name)
    text = "".join(generated_sentences("book", 5000))
    bounds = {"search": (0.0, 0.4), "validation": (0.4, 0.6), "test": (0.6, 1.0), "all": (0.0, 1.0)}
    for split, (low, high) in bounds.items():
        starts = set()
        for example in examples(split, data=path, positions=(0,), limit=10):
            place = text.index(haystack(example))
            starts.add(place)
            assert low - 0.02 <= place / len(text) <= (place + len(haystack(example))) / len(text) <= high + 0.02
        assert len(starts) > 3


def test_a_text_that_is_too_short_says_what_is_needed(tmp_path: Path) -> None:
    path = book(tmp_path / "book.txt", words=1000)
    with pytest.raises(DataError, match=r"book\.txt: its part for the split 'validation' has \d+ words, .* needs 300"):
        examples("validation", data=path)


def test_a_text_whose_last_sentence_has_no_space_behind_it_keeps_words_apart(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("One two three four. " * 20 + "The end.")
    (example,) = examples("all", data=path, positions=(100,), limit=1, lengths="82")
    assert re.search(r"four\. The end\. One of the special .*\.\n\nWhat is", example.prompt)


def test_the_score_is_the_share_of_the_values_found() -> None:
    assert share_found("They are 1, 22 and 333.", ["1, 22, 4444, 333"]) == 0.75
    assert share_found("it is ABC-1.", ["abc-1"]) == 1.0
    assert share_found("", ["1"]) == share_found("x", []) == 0.0
    assert share_found("a", ["b", "a"]) == 1.0


def test_one_value_ends_with_its_line_and_several_may_be_listed() -> None:
    single, several = needle().metric, needle(variant="multi-value", values=5).metric
    assert (single.stop, single.graded, single.generated) == (("\n",), False, True)
    assert (several.stop, several.graded, several.generated) == ((), True, True)
    assert several.max_new_tokens == 5 * single.max_new_tokens
    assert needle(value="uuid").metric.max_new_tokens > single.max_new_tokens


def test_the_short_form_is_the_same_question_in_a_short_text() -> None:
    short = needle(lengths="4000,2000", variant="multi-key", distractors=2, seed=5).short()
    assert short.settings()["options"] == needle(variant="multi-key", distractors=2, lengths=250).settings()["options"]
    assert (short.positions, short.limit, short.seed) == ((0, 100), 2, 5)
    assert needle(variant="multi-value").short().own.values == 4
    assert needle(lengths=50).short() is None


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"variant": "double"}, "option 'variant' is 'double', expected one of: single, multi-key, multi-value"),
        ({"lengths": "many"}, "option 'lengths' is 'many', expected words as 2000 or 1000,2000"),
        ({"lengths": "20"}, "expected different numbers of at least 50"),
        ({"lengths": "100,100"}, "expected different numbers"),
        ({"distractors": 3}, "option 'distractors' is for variant multi-key, not for single"),
        ({"variant": "multi-key", "values": 3}, "option 'values' is for variant multi-value, not for multi-key"),
        ({"variant": "multi-key", "distractors": 0}, "'distractors' is 0, expected a whole number from 1 to 575"),
        ({"variant": "multi-value", "values": "1"}, "'values' is 1, expected a whole number from 2 to 25"),
        ({"variant": "multi-value", "values": 2.5}, "'values' is 2.5, expected a whole number"),
    ],
)
def test_impossible_options_are_refused(own: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        needle(**own)


def test_generated_texts_have_no_split_all_and_no_keys() -> None:
    with pytest.raises(DataError, match="generated ones are search, validation or test"):
        examples("all")
    with pytest.raises(DataError, match="no use for --keys"):
        make_task("needle", TaskOptions(keys=3))


def test_books_of_a_folder_take_turns_with_every_length(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        book(tmp_path / name, name)
    found = examples(positions=(50,), limit=6, data=tmp_path)
    assert [example.group for example in found] == ["a.txt", "b.txt"] * 3
    texts = {name: (tmp_path / name).read_text() for name in ("a.txt", "b.txt")}
    for example in found:
        stretch = next(piece.text for piece in example.pieces if piece.kind == "text")
        assert stretch.strip() in texts[example.group]
    several = examples(positions=(50,), limit=4, data=tmp_path, lengths="300,600")
    assert [example.group for example in several] == ["300 words", "600 words"] * 2
    first = [next(piece.text for piece in example.pieces if piece.kind == "text").strip() for example in several]
    assert [text in texts["a.txt"] for text in first] == [True, True, False, False]


def test_a_folder_of_notes_alone_is_read_too(tmp_path: Path) -> None:
    book(tmp_path / "notes.md", "notes")
    read = examples(positions=(50,), limit=1, data=tmp_path)
    book(tmp_path / "book.txt", "book")
    assert examples(positions=(50,), limit=1, data=tmp_path) != read
    assert examples(positions=(50,), limit=1, data=tmp_path / "notes.md") == read


def test_one_book_of_a_folder_gives_what_its_file_gives(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    path = book(tmp_path / "books" / "only.txt")
    assert examples(data=path) == examples(data=tmp_path / "books")
    assert needle(data=path).settings() == needle(data=tmp_path / "books").settings()
    assert needle(data=path).settings()["data"] == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_book_that_is_too_short_is_named(tmp_path: Path) -> None:
    book(tmp_path / "long.txt", "long")
    book(tmp_path / "short.txt", "short", words=300)
    with pytest.raises(DataError, match=r"short.txt: its part for the split 'test' has \d+ words"):
        examples(data=tmp_path)
