"""What every task promises; a new file in `ropewalk.tasks` is tested here as it is, with its data of task_data.py."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import DataError
from ropewalk.prompts import PromptRenderer
from ropewalk.tasks import make_task, task_names
from ropewalk.tasks.base import Example, Metric, Task
from task_data import SMALL, task_options
from tokenizers_factory import byte_level

SPLITS = ("search", "validation", "test")
every_task = pytest.mark.parametrize("name", task_names())

# What a fresh process prints: a digest of a task's examples, every field of them.
PRINT_DIGEST = """
import hashlib, pathlib, sys
from ropewalk.tasks import make_task
from task_data import task_options
for name, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    task = make_task(name, task_options(name, pathlib.Path(folder)))
    examples = [example for split in ("search", "validation", "test") for example in task.examples(split)]
    print(name, hashlib.sha256(repr((examples, task.settings())).encode()).hexdigest())
"""


def small(name: str, folder: Path, **more: Any) -> Task:
    return make_task(name, task_options(name, folder, **more))


def records(examples: list[Example]) -> list[str]:
    return list(dict.fromkeys(example.record for example in examples))


def test_every_task_has_its_small_data() -> None:
    assert set(task_names()) == set(SMALL)


@every_task
def test_name_metric_and_options_are_declared(name: str, tmp_path: Path) -> None:
    task = small(name, tmp_path)
    assert task.name == name
    assert isinstance(task.metric, Metric)
    assert dataclasses.is_dataclass(task.OPTIONS)
    assert task.OPTIONS.__dataclass_params__.frozen
    for entry in dataclasses.fields(task.OPTIONS):
        assert len(entry.metadata["description"]) > 5, f"option {entry.name} says nothing"
    if task.metric.generated:
        assert task.metric.score is not None
        assert task.metric.max_new_tokens > 0


@every_task
def test_every_record_is_there_at_every_position_record_by_record(name: str, tmp_path: Path) -> None:
    task = small(name, tmp_path)
    assert list(task.positions) == sorted(set(task.positions))
    for split in SPLITS:
        examples = task.examples(split)
        assert examples
        expected = [(record, place) for record in records(examples) for place in task.positions]
        assert [(example.record, example.gold_index) for example in examples] == expected
        assert [example.id for example in examples] == [f"{record}@{place}" for record, place in expected]
        assert len({example.id for example in examples}) == len(examples)
        for record in records(examples):
            assert len({example.group for example in examples if example.record == record}) == 1


@every_task
def test_splits_share_no_record_and_no_prompt(name: str, tmp_path: Path) -> None:
    task = small(name, tmp_path)
    parts = [task.examples(split) for split in SPLITS]
    assert len({record for part in parts for record in records(part)}) == sum(len(records(part)) for part in parts)
    renderer = PromptRenderer(byte_level([]))
    prompts = [{renderer.render_all(example)[0].ids for example in part} for part in parts]
    assert len(set.union(*prompts)) == sum(len(part) for part in prompts)


@every_task
def test_an_unknown_split_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'train'"):
        small(name, tmp_path).examples("train")  # type: ignore[arg-type]


@every_task
def test_examples_have_prompts_and_answers(name: str, tmp_path: Path) -> None:
    for example in small(name, tmp_path).examples("test"):
        assert example.prompt.strip()
        if example.span is None:
            assert example.answers
            assert all(answer.strip() for answer in example.answers)
        else:
            assert not example.answers
            assert {piece.kind for piece in example.pieces} == {"text"}
        gold = [piece.text for piece in example.pieces if piece.kind == "gold"]
        if gold and name != "summarize":  # a summary need not stand in its text
            assert any(answer in text for answer in example.answers for text in gold)
            others = [piece.text for piece in example.pieces if piece.kind not in ("gold", "instruction")]
            assert not any(answer in text for answer in example.answers for text in others)


@every_task
def test_examples_can_be_rendered_and_the_metric_finds_their_answers(name: str, tmp_path: Path) -> None:
    task = small(name, tmp_path)
    renderer = PromptRenderer(byte_level([], chat=True))
    for example in task.examples("test"):
        assert all(prompt.num_scored > 0 for prompt in renderer.render_all(example))
        if task.metric.score is not None:
            assert task.metric.score(f"{example.answers[0]}{example.closing}", example.answers) == 1.0
            assert task.metric.score("nothing of the kind", example.answers) < 1.0


# Windows of a text are spread by their number: fewer of them lie elsewhere.
@pytest.mark.parametrize("name", [name for name in task_names() if name != "perplexity"])
def test_limit_takes_the_first_records(name: str, tmp_path: Path) -> None:
    few, more = (small(name, tmp_path, limit=limit).examples("test") for limit in (1, 2))
    assert len(records(few)) == 1
    assert few == more[: len(few)]
    with pytest.raises(DataError, match="limit is 0 records, expected at least 1"):
        small(name, tmp_path, limit=0)


def test_limit_is_the_windows_of_each_file_in_perplexity(tmp_path: Path) -> None:
    assert [len(records(small("perplexity", tmp_path, limit=limit).examples("test"))) for limit in (1, 2)] == [2, 4]


@every_task
def test_settings_are_json_and_equal_for_equal_tasks(name: str, tmp_path: Path) -> None:
    task = small(name, tmp_path)
    settings = task.settings()
    assert json.loads(json.dumps(settings, allow_nan=False)) == settings
    assert settings["task"] == name
    assert settings["positions"] == list(task.positions)
    assert small(name, tmp_path).settings() == settings
    assert small(name, tmp_path, limit=1).settings() != settings
    assert small(name, tmp_path).examples("search") == task.examples("search")


@every_task
def test_an_unknown_option_is_refused_with_a_hint(name: str, tmp_path: Path) -> None:
    options = dict(task_options(name, tmp_path).options)
    with pytest.raises(DataError, match=f"task {name} has no option 'nonsense'"):
        small(name, tmp_path, options=options | {"nonsense": "1"})
    for entry in dataclasses.fields(small(name, tmp_path).OPTIONS):
        with pytest.raises(DataError, match=f"has no option '{entry.name}x'.*did you mean '{entry.name}'"):
            small(name, tmp_path, options=options | {f"{entry.name}x": "1"})


@every_task
def test_options_as_text_mean_the_same(name: str, tmp_path: Path) -> None:
    options = {key: str(value) for key, value in task_options(name, tmp_path).options.items()}
    assert small(name, tmp_path, options=options).settings() == small(name, tmp_path).settings()


@every_task
def test_the_short_form_is_shorter_and_gives_examples(name: str, tmp_path: Path) -> None:
    task = small(name, tmp_path)
    short = task.short()
    if short is None:
        return
    assert short.name == name
    longest = max(len(example.prompt) for example in short.examples("test"))
    assert longest < min(len(example.prompt) for example in task.examples("test"))


def test_a_fresh_process_with_another_hash_seed_gives_the_same(tmp_path: Path) -> None:
    words = [word for name in task_names() for word in (name, str(tmp_path / name))]
    for name in task_names():
        (tmp_path / name).mkdir()
    printed = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", PRINT_DIGEST, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.add(done.stdout)
    assert len(printed) == 1
    assert printed.pop().count("\n") == len(task_names())
