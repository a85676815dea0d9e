"""The jsonl task: a user's own prompts in its three layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import DataError
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, TaskOptions


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def jsonl(data: Path | None, positions: Any = None, limit: int | None = None, **own: Any) -> Any:
    return make_task("jsonl", TaskOptions(positions, None, data, limit, 0, own))


def examples(path: Path, positions: Any = None, **own: Any) -> list[Example]:
    return jsonl(path, positions, **own).examples("all")


def moved(index: int = 0, pieces: int = 4, **more: Any) -> dict[str, Any]:
    texts = [f"[{{number}}] text {index}.{place}" for place in range(pieces)]
    return {"pieces": texts, "position": 1, "answer": f"{index}.1", "id": f"q{index}", "question": "Which?"} | more


def single(index: int = 0, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Question {index}", "answer": f"yes {index}"} | more


def test_the_gold_piece_goes_to_every_position_and_is_numbered_there(tmp_path: Path) -> None:
    found = examples(write(tmp_path / "a.jsonl", moved()), 2)
    assert [example.id for example in found] == ["jsonl-q0@0", "jsonl-q0@3"]
    assert found[0].prompt == "[1] text 0.1\n[2] text 0.0\n[3] text 0.2\n[4] text 0.3"
    assert found[1].prompt == "[1] text 0.0\n[2] text 0.2\n[3] text 0.3\n[4] text 0.1"
    assert found[0].answers == ("0.1",)


def test_template_and_separator_make_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Read.\n\n{pieces}\n\nQ: {question}\nA:\n")
    path = write(tmp_path / "a.jsonl", moved(pieces=2))
    (example,) = examples(path, (0,), template=str(tmp_path / "prompt.txt"), separator=" \\n\\t")
    assert example.prompt == "Read.\n\n[1] text 0.1 \n\t[2] text 0.0\n\nQ: Which?\nA:"
    assert [piece.kind for piece in example.pieces] == ["instruction", "gold", "distractor", "query"]
    with pytest.raises(DataError, match=r"line 1: the template asks for \{pieces\}"):
        examples(write(tmp_path / "b.jsonl", single()), template=str(tmp_path / "prompt.txt"))


def test_prompts_of_one_id_stay_as_they_are(tmp_path: Path) -> None:
    lines = [single(at, id=name, position=at, group=name) for name in ("x", "y") for at in (0, 4, 9)]
    path = write(tmp_path / "a.jsonl", *lines)
    assert [(example.record, example.gold_index, example.prompt, example.group) for example in examples(path)] == [
        (f"jsonl-{name}", at, f"Question {at}", name) for name in ("x", "y") for at in (0, 4, 9)
    ]
    assert jsonl(path, 2).positions == (0, 9)
    assert jsonl(path, (4,)).examples("all")[0].answers == ("yes 4",)
    with pytest.raises(DataError, match=r"positions \[4, 5\]: the file's records have \[0, 4, 9\], not 5"):
        jsonl(path, (4, 5))
    with pytest.raises(DataError, match="4 positions among 3 places"):
        jsonl(path, 4)
    with pytest.raises(DataError, match="0 positions among 3 places"):
        jsonl(path, 0)


def test_without_a_position_there_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", single(0), {"pieces": ["a", "b"], "answers": ["x", "y"], "id": 3})
    found = examples(path, separator=" + ", opening='"', closing='"')
    assert [example.prompt for example in found] == ["Question 0", "a + b"]
    assert [example.gold_index for example in found] == [0, 0]
    assert (found[1].record, found[1].answers) == ("jsonl-3", ("x", "y"))
    assert (found[1].opening, found[1].closing) == ('"', '"')
    with pytest.raises(DataError, match="2 positions among 1 places"):
        jsonl(path, 2)


def test_lines_of_different_lengths_need_positions_that_all_have(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", moved(0, pieces=6), moved(1, pieces=3), moved(2, pieces=6))
    with pytest.raises(DataError, match=r"line 2: 3 pieces, while line 1 has 6: .* give the positions themselves"):
        jsonl(path, 3)
    assert len(examples(path, (0, 2))) == 6
    with pytest.raises(DataError, match="0-based places from 0 to 2"):
        jsonl(path, (0, 3))


def test_both_metrics(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", single())
    generated, forced = jsonl(path, max_new_tokens="7").metric, jsonl(path, metric="exact_match").metric
    assert (generated.name, generated.generated, generated.max_new_tokens, generated.stop) == (
        "best_subspan_em", True, 7, ("\n",),
    )  # fmt: skip
    assert generated.score("The Yes, 0!\nno", ["yes 0"]) == 1.0
    assert generated.score("no\nyes 0", ["yes 0"]) == 0.0
    assert (forced.name, forced.generated, forced.max_new_tokens) == ("exact_match", False, 100)
    assert forced.score("so YES it is", ["no", "yes"]) == 1.0
    assert forced.score("perhaps", ["no", "yes"]) == forced.score("x", []) == 0.0


def test_an_answer_that_anything_contains_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", single(), single(1, answer="The!"))
    with pytest.raises(DataError, match=r"line 2: the answer 'The!' is empty after the metric's normalisation"):
        jsonl(path)
    assert examples(path, metric="exact_match")[1].answers == ("The!",)


def test_splits_go_by_the_id(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *(moved(index) for index in range(40)))
    other = write(tmp_path / "b.jsonl", *(moved(index, question="Other?") for index in range(40)))
    for split in ("search", "validation", "test"):
        records = [example.record for example in jsonl(path, 1).examples(split)]
        assert records
        assert records == [example.record for example in jsonl(other, 1).examples(split)]
    assert len(jsonl(path, 2, limit=3).examples("test")) == 6
    with pytest.raises(DataError, match="no record in the split"):
        [jsonl(write(tmp_path / "c.jsonl", single()), 1).examples(split) for split in ("search", "validation", "test")]


def test_settings_are_json_and_follow_the_contents(tmp_path: Path) -> None:
    one, copy = write(tmp_path / "a.jsonl", single()), write(tmp_path / "b.jsonl", single())
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("{prompt}?")
    settings = jsonl(one, template=str(tmp_path / "one.txt")).settings()
    assert json.loads(json.dumps(settings)) == settings == jsonl(copy, template=str(tmp_path / "two.txt")).settings()
    assert settings != jsonl(one).settings()
    assert jsonl(one, separator="\\n").settings() == jsonl(one, separator="\n").settings() == jsonl(one).settings()
    assert jsonl(one).short() is None


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", single())
    with pytest.raises(DataError, match="'max_new_tokens' is 0, expected a whole number of at least 1"):
        jsonl(path, max_new_tokens=0)
    with pytest.raises(DataError, match="option 'metric' is 'f1', expected one of: best_subspan_em, exact_match"):
        jsonl(path, metric="f1")
    with pytest.raises(DataError, match="task jsonl needs --data"):
        jsonl(None)
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        jsonl(path, template=str(tmp_path / "none.txt"))


def test_a_question_about_a_document_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("Ann built it.\n")
    (tmp_path / "prompt.txt").write_text("{document}\n\nQuestion: {prompt}\nAnswer:")
    path = write(tmp_path / "a.jsonl", {"document": {"file": "book.txt"}, "prompt": "Who?", "answer": "Ann"})
    (example,) = examples(path, template=str(tmp_path / "prompt.txt"))
    assert example.prompt == "Ann built it.\n\nQuestion: Who?\nAnswer:"


def test_pieces_in_files_of_their_own_are_moved(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(f"Chapter {name}.\n")
    pieces = [{"file": "one.txt"}, {"file": "two.txt"}]
    path = write(tmp_path / "a.jsonl", {"pieces": pieces, "position": 0, "answer": "one", "id": "q"})
    assert [example.prompt for example in examples(path, 2)] == [
        "Chapter one.\nChapter two.",
        "Chapter two.\nChapter one.",
    ]
