"""The words of the command line on tasks of every kind: generated, graded, grouped, plain text, too long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk import ScalingFactors
from ropewalk.cli import run
from ropewalk.cli.options import ModelOptions, TaskChoice
from ropewalk.findings import findings

VALUES = ["--task", "needle", "--option", "variant=multi-value", "--option", "lengths=50,60", "--positions", "3"]


@pytest.fixture
def factors(tmp_path: Path) -> Path:
    ScalingFactors([0.7, 1.3, 1.2, 0.9]).save(tmp_path / "factors.json")
    return tmp_path / "factors.json"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    (tmp_path / "book.txt").write_text("It was a bright cold day in April. " * 40)
    return tmp_path / "book.txt"


def ropewalk(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_graded_generated_task_with_groups(
    roomy_path: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--json", tmp_path / "eval.json", "--scores", tmp_path / "scores.json"]
    assert ropewalk("eval", "--model", roomy_path, *VALUES, "--limit", 3, "--factors", factors, *out) == 0
    shown = capsys.readouterr().out
    document, scores = read(tmp_path / "eval.json"), read(tmp_path / "scores.json")
    for arm in ("vanilla", "factors"):
        assert (document[arm]["metric"], document[arm]["generated"]) == ("values_found", True)
        assert list(document[arm]["by_group"]) == ["50 words", "60 words"]
        assert [example["verdict"] for example in scores[arm]["examples"]] == [None] * 9
        assert all(isinstance(example["text"], str) for example in scores[arm]["examples"])
    assert "values found, %" in shown
    assert "by group:" in shown
    assert "50 words" in shown


def test_no_generate_scores_by_teacher_forcing(roomy_path: Path, tmp_path: Path) -> None:
    out = ["--no-generate", "--json", tmp_path / "profile.json"]
    assert ropewalk("profile", "--model", roomy_path, *VALUES, "--limit", 2, *out) == 0
    block = read(tmp_path / "profile.json")["vanilla"]
    assert (block["metric"], block["generated"], block["graded"]) == ("exact_match", False, False)


def test_generate_scores_kv_by_its_substring_rule(roomy_path: Path, tmp_path: Path) -> None:
    out = ["--generate", "--json", tmp_path / "profile.json"]
    assert ropewalk("profile", "--model", roomy_path, "--keys", 2, "--limit", 2, "--positions", 2, *out) == 0
    assert read(tmp_path / "profile.json")["vanilla"]["generated"] is True


def test_plain_texts(roomy_path: Path, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = ["--task", "perplexity", "--data", book, "--option", "window=60", "--positions", 2, "--limit", 2]
    assert ropewalk("profile", "--model", roomy_path, *task, "--json", tmp_path / "profile.json") == 0
    document = read(tmp_path / "profile.json")
    assert len(document["vanilla"]["perplexity"]) == len(document["positions"]) == 2
    assert "(perplexity)" in capsys.readouterr().out
    assert document["warnings"] == []
    assert ropewalk("profile", "--model", roomy_path, *task, "--generate") == 2
    assert "nothing to generate" in capsys.readouterr().err


def test_records_over_the_limit_are_left_out_and_counted(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every second prompt is too long for 512 tokens."""
    lines = [
        json.dumps({"id": str(row), "prompt": "x" * (900 if row % 2 else 9), "answers": ["y"]}) for row in range(6)
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(lines))
    own = ["--task", "jsonl", "--data", tmp_path / "own.jsonl", "--split", "all", "--no-generate"]
    assert ropewalk("profile", "--model", tiny_path, *own) == 2
    assert "--overflow skip" in capsys.readouterr().err
    assert ropewalk("profile", "--model", tiny_path, *own, "--overflow", "skip", "--json", tmp_path / "p.json") == 0
    assert "3 records were left out at every position" in capsys.readouterr().out
    assert (read(tmp_path / "p.json")["vanilla"]["records"], read(tmp_path / "p.json")["vanilla"]["skipped"]) == (3, 3)


def test_eval_says_what_a_short_context_costs(roomy_path: Path, factors: Path, tmp_path: Path) -> None:
    task = ["--keys", 16, "--positions", 3, "--limit", 2, "--json", tmp_path / "eval.json"]
    assert ropewalk("eval", "--model", roomy_path, *task, "--factors", factors) == 0
    document = read(tmp_path / "eval.json")
    assert document["short"]["task"]["keys"] == 2
    assert document["short"]["gain"]["average_log_likelihood"]["difference"] is not None
    assert document["evaluations"] == 2 * 6 + 2 * 4
    assert document["warnings"] == findings(document)


@pytest.mark.parametrize(
    ("options", "by", "generated"),
    [
        ({}, None, True),
        ({}, "accuracy", True),
        ({}, "likelihood", False),
        ({"generate": False}, "accuracy", False),
        ({"generate": True}, "likelihood", False),
    ],
)
def test_a_search_by_likelihood_generates_nothing(
    roomy_path: Path, options: dict[str, Any], by: Any, generated: bool
) -> None:
    model = ModelOptions(model=str(roomy_path), **options)
    task = TaskChoice(task="needle", option=("lengths=50",), limit=1, positions="1").make()
    evaluator = model.evaluator(*model.load(), task, "search", search_by=by)
    assert evaluator.generated == generated


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--option", "keys"], "--option keys: expected NAME=VALUE"),
        (["--option", "=3"], "--option =3: expected NAME=VALUE"),
        (["--task", "needle", "--option", "length=3"], "did you mean 'lengths'"),
        (["--task", "needle", "--option", "value=x"], "expected one of: number, uuid"),
        (["--overflow", "drop"], "--overflow"),
        (["--task", "mdqa"], "needs a file of questions"),
        (["--data", "hf://datasets/one"], "expected hf://datasets/OWNER/NAME/FILE"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str], says: str, tiny_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ropewalk("profile", "--model", tiny_path, *arguments) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ropewalk: ")
    assert says in line


@pytest.mark.parametrize("task", ["kv", "mdqa", "needle", "perplexity", "summarize", "jsonl"])
def test_a_missing_file_is_said_before_the_model_is_looked_for(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "--model", "/no/such/model", "--task", task, "--data", "missing.txt"]) == 2
    assert "missing.txt" in capsys.readouterr().err
