"""docs/tasks.md: a section with a whole table for every task, and commands that make prompts as they stand."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest

from doc_blocks import ROOT
from doc_files import task_files
from ropewalk.cli import app
from ropewalk.cli.options import TaskChoice
from ropewalk.tasks import make_task, task_names
from task_data import task_options

PAGE = (ROOT / "docs" / "tasks.md").read_text()
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = [
    (task, command)
    for task, text in SECTIONS.items()
    for block in re.findall(r"```sh [^\n]*\n(.*?)```", text, re.DOTALL)
    for command in block.splitlines()
]
every_task = pytest.mark.parametrize("name", task_names())


def test_every_task_has_its_section_and_a_command() -> None:
    assert set(task_names()) <= set(SECTIONS)
    assert {task for task, _ in COMMANDS} == set(task_names())
    overview = PAGE[: PAGE.index("\n## ")]
    assert re.findall(r"^\| `(\w+)` \|.*\|.*\|.*\|", overview, re.MULTILINE) == [
        name for name in SECTIONS if name in task_names()
    ]


@every_task
def test_the_table_is_the_tasks_options(name: str, tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)` )?\| (.*) \|$", SECTIONS[name], re.MULTILINE)
    fields = dataclasses.fields(make_task(name, task_options(name, tmp_path)).OPTIONS)
    assert rows == [
        (entry.name, "" if entry.default is None else str(entry.default), entry.metadata["description"])
        for entry in fields
    ]


@every_task
def test_the_metric_is_named_in_the_overview(name: str, tmp_path: Path) -> None:
    row = re.search(rf"^\| `{name}` \|.*$", PAGE, re.MULTILINE)
    assert row is not None
    metric = make_task(name, task_options(name, tmp_path)).metric
    assert f"`{metric.name}`" in row[0]
    assert row[0].split("|")[-2].strip() in ("as chosen", "yes" if metric.generated else "no")


@pytest.mark.parametrize(("task", "command"), COMMANDS)
def test_the_commands_make_prompts(task: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)
    assert words[:2] == ["ropewalk", "profile"]
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    choice = next(value for value in bound.arguments.values() if isinstance(value, TaskChoice))
    assert choice.task == task
    examples = choice.make().examples(bound.arguments.get("split", "test"))
    assert examples
    assert all(example.prompt for example in examples)


def test_the_example_of_a_line_becomes_the_prompt_of_its_template(tmp_path: Path) -> None:
    task_files(tmp_path)
    options = {"template": str(tmp_path / "prompt.txt")}
    task = make_task(
        "jsonl", task_options("jsonl", tmp_path, data=tmp_path / "mine.jsonl", positions=2, options=options)
    )
    assert task.examples("all")[1].prompt == (
        "Read these notes.\n\n[1] It rained.\n[2] Mason built it.\n\nQuestion: Who built it?\nAnswer:"
    )


def test_the_example_of_a_report_is_a_record(tmp_path: Path) -> None:
    (line,) = re.findall(r"```json\n(.*?)\n```", SECTIONS["summarize"])
    (tmp_path / "one.jsonl").write_text(line)
    task = make_task("summarize", task_options("summarize", tmp_path, data=tmp_path / "one.jsonl"))
    assert task.examples("all")[0].answers == (json.loads(line)["summary"],)
