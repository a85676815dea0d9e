"""Files of questions: the official format, the flat one, and lines that are wrong on purpose."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import DataError
from ropewalk.questions import Passage, read_questions

GOLD = {"title": "Gold", "text": "the gold text", "hasanswer": True, "isgold": True}
OTHER = {"id": "7", "title": "Other", "text": "another text", "score": "1.5", "hasanswer": False, "isgold": False}
FLAT = {"question": "who", "answers": ["me"], "title": "Gold", "text": "the gold text"}


def official(**fields: Any) -> dict[str, Any]:
    return {"question": "what", "answers": ["it", "that"], "ctxs": [OTHER, GOLD]} | fields


def write(path: Path, *documents: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in documents))
    return path


def test_official_and_flat_lines(tmp_path: Path) -> None:
    first, second, third = read_questions(
        write(tmp_path / "q.jsonl", official(), FLAT, {**FLAT, "question": "why", "title": ""})
    )
    assert (first.text, first.answers, first.gold) == ("what", ("it", "that"), Passage("Gold", "the gold text"))
    assert first.distractors == (Passage("Other", "another text"),)
    assert (second.gold, second.distractors) == (first.gold, ())
    assert third.gold.title == ""
    assert len({first.id, second.id, third.id}) == 3
    assert re.fullmatch(r"[0-9a-f]{16}", first.id)


def test_blank_aliases_are_set_apart(tmp_path: Path) -> None:
    (question,) = read_questions(write(tmp_path / "q.jsonl", official(answers=["The", "theatre", "*"])))
    assert (question.answers, question.blank) == (("theatre",), ("The", "*"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "line 2: expected a JSON object, got list"),
        (official(question=None), 'line 2: field "question" is None'),
        (official(question=" "), "line 2: field \"question\" is ' '"),
        (FLAT, 'line 2: field "question" is the same as in line 1'),
        (official(answers="it"), "line 2: field \"answers\" is 'it', expected a list of non-empty strings"),
        (official(answers=[]), 'line 2: field "answers" is []'),
        (official(answers=["it", ""]), 'line 2: field "answers" is'),
        (official(answers=["it", 3]), 'line 2: field "answers" is'),
        (official(answers=["A", "*"]), "line 2: field \"answers\" is ['A', '*']: without punctuation and articles"),
        (official(ctxs=None), 'line 2: field "ctxs" is None, expected a list of documents'),
        (official(ctxs={"a": GOLD}), 'line 2: field "ctxs" is'),
        (official(ctxs=[]), 'line 2: field "ctxs": 0 documents have "isgold" true, expected exactly one'),
        (official(ctxs=[OTHER]), 'line 2: field "ctxs": 0 documents have "isgold" true'),
        (official(ctxs=[GOLD, OTHER, GOLD]), 'line 2: field "ctxs": 2 documents have "isgold" true'),
        (official(ctxs=[GOLD, "text"]), "line 2, ctxs[1]: expected a JSON object, got str"),
        (official(ctxs=[GOLD, {"title": "T"}]), 'line 2, ctxs[1]: field "text" is None'),
        (official(ctxs=[GOLD | {"text": ""}]), "line 2, ctxs[0]: field \"text\" is ''"),
        (official(ctxs=[GOLD | {"title": 5}]), 'line 2, ctxs[0]: field "title" is 5, expected a string'),
        (
            official(ctxs=[GOLD | {"isgold": "yes"}]),
            "line 2, ctxs[0]: field \"isgold\" is 'yes', expected true or false",
        ),
        ({"question": "what", "answers": ["it"]}, 'line 2: field "text" is None'),
    ],
)
def test_a_malformed_line_is_named_with_its_field(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path / "q.jsonl", FLAT, line)
    with pytest.raises(DataError, match=re.escape(f"{path}, {message}")):
        read_questions(path)


def test_half_a_surrogate_pair_is_refused_and_a_whole_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(FLAT | {"question": "who 🪢"}) + "\n")
    assert "\\ud83e" in path.read_text()
    assert read_questions(path)[0].text == "who 🪢"
    path.write_text(json.dumps(FLAT | {"question": "who \ud83e"}) + "\n")
    with pytest.raises(DataError, match="line 1: not valid Unicode"):
        read_questions(path)


def test_a_file_without_a_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"q\.jsonl: no question in it"):
        read_questions(write(tmp_path / "q.jsonl"))
