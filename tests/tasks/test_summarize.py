"""The summarize task: lines of texts and references become prompts, and summaries are scored by ROUGE-L."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import DataError
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, TaskOptions


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def line(index: int, **more: Any) -> dict[str, Any]:
    return {"text": f"A long text, number {index}.", "summary": f"Text {index}."} | more


def summarize(data: Path | None, limit: int | None = None, positions: Any = None, **own: Any) -> Any:
    return make_task("summarize", TaskOptions(positions, None, data, limit, 0, own))


def examples(path: Path, **own: Any) -> list[Example]:
    return summarize(path, **own).examples("all")


def test_the_prompt_is_instruction_text_and_a_cue(tmp_path: Path) -> None:
    (example,) = examples(write(tmp_path / "a.jsonl", line(1, text="  Once upon a time.\n", id="tale")))
    assert example.prompt == "Summarize the following text in a few sentences.\n\nOnce upon a time.\n\nSummary:"
    assert (example.id, example.record, example.gold_index) == ("summarize-tale@0", "summarize-tale", 0)
    assert (example.answers, example.opening, example.closing) == (("Text 1.",), "", "")


def test_fields_and_instruction_are_the_users(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"article": "News.", "highlights": ["One.", "Two."], "url": 7})
    (example,) = examples(path, text="article", summary="highlights", id="url", instruction="Sum up:")
    assert example.prompt == "Sum up:\n\nNews.\n\nSummary:"
    assert example.answers == ("One.", "Two.")
    assert example.record == "summarize-7"


def test_lines_without_an_id_are_named_by_their_text(tmp_path: Path) -> None:
    (example,) = examples(write(tmp_path / "a.jsonl", line(1)))
    assert example.record == "summarize-" + hashlib.sha256(b"A long text, number 1.").hexdigest()[:16]


def test_the_metric_is_rouge_l_of_the_generated_summary(tmp_path: Path) -> None:
    task = summarize(write(tmp_path / "a.jsonl", line(1)), max_new_tokens="12")
    metric = task.metric
    assert (metric.name, metric.generated, metric.graded, metric.max_new_tokens) == ("rouge_l", True, True, 12)
    assert metric.score("Text 1", task.examples("all")[0].answers) == 1.0
    assert 0.0 < metric.score("A text of another kind", task.examples("all")[0].answers) < 1.0


def test_splits_go_by_the_text_and_limit_takes_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *(line(index) for index in range(40)))
    parts = {split: summarize(path).examples(split) for split in ("search", "validation", "test")}
    assert sorted(example.id for part in parts.values() for example in part) == sorted(
        example.id for example in examples(path)
    )
    assert all(parts.values())
    assert summarize(path, limit=2).examples("test") == parts["test"][:2]


def test_settings_are_json_and_follow_the_content(tmp_path: Path) -> None:
    one, copy = write(tmp_path / "a.jsonl", line(1)), write(tmp_path / "b.jsonl", line(1))
    settings = summarize(one).settings()
    assert json.loads(json.dumps(settings)) == settings == summarize(copy).settings()
    assert settings != summarize(one, instruction="Sum up:").settings()
    assert summarize(one).short() is None


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"summary": "s"}, 'line 2: field "text" is None, expected a non-empty string'),
        ({"text": "t"}, 'line 2: field "summary" is None'),
        ({"text": "t", "summary": []}, 'line 2: field "summary" is \\[\\], expected a list of non-empty strings'),
        ({"text": "t", "summary": ["a", ""]}, 'line 2: field "summary"'),
        ({"text": "t", "summary": "日本"}, 'line 2: field "summary" has no word that ROUGE counts'),
        ({"text": "t", "summary": "s", "id": ["x"]}, "line 2: field \"id\" is \\['x'\\], expected a name"),
        (line(1), "line 2: the same record as line 1"),
    ],
)
def test_a_malformed_line_is_named_with_its_field(tmp_path: Path, broken: Any, message: str) -> None:
    path = write(tmp_path / "a.jsonl", line(1), broken)
    with pytest.raises(DataError, match=re.escape(str(path)) + ".*" + message):
        examples(path)


def test_impossible_options_and_missing_data_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line(1))
    with pytest.raises(DataError, match="'max_new_tokens' is 0, expected a whole number of at least 1"):
        summarize(path, max_new_tokens=0)
    with pytest.raises(DataError, match="task summarize needs --data"):
        summarize(None)
    with pytest.raises(DataError, match="3 positions among 1 places"):
        summarize(path, positions=3)
    with pytest.raises(DataError, match="no record in the split 'all'"):
        examples(write(tmp_path / "empty.jsonl"))


def test_a_text_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("\n  A whole book.\n")
    path = write(tmp_path / "a.jsonl", {"text": {"file": "books/one.txt"}, "summary": "A book."})
    plain = write(tmp_path / "b.jsonl", {"text": "A whole book.", "summary": "A book."})
    assert examples(path) == examples(plain)
    before = summarize(path).settings()
    (tmp_path / "books" / "one.txt").write_text("Another book.")
    assert summarize(path).settings() != before
