"""The perplexity task: windows, buckets and files; and what a model makes of them, against a plain forward pass."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ropewalk.errors import DataError
from ropewalk.haystack import generated_sentences
from ropewalk.prompts import PromptRenderer
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, TaskOptions
from tiny import tiny_model
from tokenizers_factory import byte_level, metaspace


def write(path: Path, label: str = "a", words: int = 1000) -> Path:
    content = "".join(generated_sentences(label, words)).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def perplexity(data: Any, positions: Any = None, limit: int | None = 2, **own: Any) -> Any:
    return make_task("perplexity", TaskOptions(positions, None, data, limit, 0, {"window": 100} | own))


def spans(example: Example) -> tuple[int, int]:
    assert example.span is not None
    return example.span.start, example.span.stop


def test_buckets_cut_the_window_and_positions_are_their_starts(tmp_path: Path) -> None:
    task = perplexity(write(tmp_path / "a.txt"), 3)
    assert task.positions == (0, 33, 66)
    found = task.examples("test")
    assert [(example.record, example.gold_index) for example in found] == [
        (f"a.txt-test-{index}", place) for index in (0, 1) for place in (0, 33, 66)
    ]
    assert [spans(example) for example in found[:3]] == [(0, 33), (33, 66), (66, 100)]
    assert {example.group for example in found} == {"a.txt"}
    assert all(example.answers == () for example in found)
    assert perplexity(write(tmp_path / "a.txt")).positions == (0, 20, 40, 60, 80)


def test_a_list_of_positions_begins_where_it_says(tmp_path: Path) -> None:
    found = perplexity(write(tmp_path / "a.txt"), (10, 90), limit=1).examples("all")
    assert [spans(example) for example in found] == [(10, 90), (90, 100)]


def test_with_a_stride_only_the_last_tokens_of_each_window_count(tmp_path: Path) -> None:
    task = perplexity(write(tmp_path / "a.txt"), stride="25")
    assert task.positions == (75,)
    (first, second) = task.examples("search")
    assert spans(first) == spans(second) == (75, 100)
    renderer = PromptRenderer(byte_level([]))
    (one,), (two,) = renderer.render_all(first), renderer.render_all(second)
    assert one.ids[25:] == two.ids[:75]
    assert one.first == two.first == 75


def test_windows_of_different_splits_share_no_token(tmp_path: Path) -> None:
    text = write(tmp_path / "a.txt").read_text()
    tokenizer = byte_level([])
    renderer = PromptRenderer(tokenizer)
    task = perplexity(tmp_path / "a.txt", 1, limit=8, window=100)
    found = {split: [] for split in ("search", "validation", "test")}
    for split, starts in found.items():
        for example in task.examples(split):
            (prompt,) = renderer.render_all(example)
            starts.append(text.index(tokenizer.decode(list(prompt.ids))))
    tokens = [start + offset for starts in found.values() for start in starts for offset in range(100)]
    assert len(set(tokens)) == len(tokens) == 24 * 100
    assert max(found["search"]) < min(found["validation"])
    assert max(found["validation"]) < min(found["test"])


def test_files_are_named_one_by_one_or_by_their_folder(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.txt", "1"), write(tmp_path / "two.txt.gz", "2")
    (tmp_path / "notes.md").write_text("not a text of the task")
    listed = perplexity(f"{one}, {two}").examples("test")
    assert listed == perplexity(tmp_path).examples("test")
    assert [example.group for example in listed] == ["one.txt"] * 10 + ["two.txt.gz"] * 10
    assert perplexity(f"{two},{one}").examples("test")[0].group == "two.txt.gz"
    comma = write(tmp_path / "a,b.txt", "3")
    assert {example.group for example in perplexity(comma).examples("test")} == {"a,b.txt"}


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "book.txt", name)
    found = perplexity(f"{tmp_path}/x/book.txt,{tmp_path}/y/book.txt").examples("test")
    assert len({example.id for example in found}) == len(found)
    assert len({example.group for example in found}) == 2


def test_settings_follow_the_content_not_the_name(tmp_path: Path) -> None:
    one, copy = write(tmp_path / "one.txt"), write(tmp_path / "copy.txt.gz")
    assert perplexity(one).settings() == perplexity(copy).settings() != perplexity(one, stride=10).settings()
    assert json.loads(json.dumps(perplexity(one).settings())) == perplexity(one).settings()
    assert perplexity(one, limit=None).settings()["limit"] == 16
    assert perplexity(one).short() is None


def test_a_text_that_is_too_short_is_named_with_what_it_has_and_needs(tmp_path: Path) -> None:
    example = perplexity(write(tmp_path / "a.txt", words=50), limit=9).examples("test")[0]
    with pytest.raises(DataError, match=r"a\.txt-test-0@0: the text has \d+ tokens, .* 9 windows .* need 900"):
        PromptRenderer(byte_level([])).render_all(example)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 1}, "'window' is 1, expected a whole number of at least 2"),
        ({"window": "some"}, "option 'window' is 'some', expected a whole number"),
        ({"stride": 101}, r"'stride' is 101, expected 1 to 100 \(the window\)"),
        ({"stride": 0}, "'stride' is 0, expected 1 to 100"),
        ({"stride": 10, "positions": 5}, "with a stride has one position, 90, but 5 was given"),
        ({"positions": 101}, "101 positions in a window of 100 tokens"),
        ({"positions": (0, 100)}, "expected different ascending 0-based places from 0 to 99"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        perplexity(write(tmp_path / "a.txt"), **given)


def test_files_that_are_missing_empty_or_twice_the_same_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="task perplexity needs --data"):
        perplexity(None)
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        perplexity(tmp_path / "none.txt").examples("test")
    with pytest.raises(DataError, match=r"the folder holds no \.txt or \.txt\.gz file"):
        perplexity(tmp_path)
    with pytest.raises(DataError, match="expected a text file, several with commas"):
        perplexity(",")
    one, copy = write(tmp_path / "one.txt"), write(tmp_path / "copy.txt")
    with pytest.raises(DataError, match=r"copy\.txt: the same text as one\.txt"):
        perplexity(f"{one},{copy}").examples("test")


@pytest.mark.parametrize("bos", [True, False])
def test_buckets_add_up_to_the_windows_likelihood(tmp_path: Path, bos: bool) -> None:
    """The tokens of the buckets are those of the window, each once, but for the first where there is no BOS."""
    renderer = PromptRenderer(metaspace(bos=bos))
    model = tiny_model(vocab_size=len(renderer.tokenizer))
    whole = perplexity(write(tmp_path / "a.txt"), 1, limit=1).examples("test")
    parts = perplexity(tmp_path / "a.txt", 4, limit=1).examples("test")

    def scored(example: Example) -> tuple[float, int]:
        (prompt,) = renderer.render_all(example)
        with torch.no_grad():
            logits = model(torch.tensor([prompt.ids])).logits[0].double().log_softmax(-1)
        targets = torch.tensor(prompt.ids[prompt.first :])
        found = logits[prompt.first - 1 : -1].gather(1, targets[:, None])
        return float(found.sum()), len(targets)

    (total, tokens), buckets = scored(whole[0]), [scored(example) for example in parts]
    assert tokens == 100 - (not bos) == sum(count for _, count in buckets)
    assert sum(part for part, _ in buckets) == pytest.approx(total, abs=1e-4)
