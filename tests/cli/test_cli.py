"""The command line as a user meets it: every verb on a tiny checkpoint, and every mistake in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk import ScalingFactors
from ropewalk.cli import run

SMALL = ["--keys", "2", "--positions", "2"]


def ropewalk(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


@pytest.fixture
def factors(tmp_path: Path) -> Path:
    ScalingFactors([0.7, 1.3, 1.2, 0.9]).save(tmp_path / "factors.json")
    return tmp_path / "factors.json"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_eval_has_the_documented_json(tiny_path: Path, factors: Path, tmp_path: Path) -> None:
    figures = tmp_path / "eval.json"
    arguments = ["--factors", factors, "--limit", "3", "--json", figures]
    assert ropewalk("eval", "--model", tiny_path, *SMALL, *arguments) == 0
    document = read(figures)
    assert document["positions"] == [0, 1]
    for arm in ("vanilla", "factors"):
        assert [len(document[arm][name]) for name in ("accuracy", "nll", "interval")] == [2, 2, 2]
        assert document[arm]["average"] == pytest.approx(np.mean(document[arm]["accuracy"]))


def test_eval_with_factors_of_one_gives_vanilla_exactly(tiny_path: Path, tmp_path: Path) -> None:
    ScalingFactors.uniform(1.0, 4).save(tmp_path / "ones.json")
    scores = tmp_path / "scores.json"
    arguments = ["--factors", tmp_path / "ones.json", "--limit", "3", "--scores", scores]
    assert ropewalk("eval", "--model", tiny_path, *SMALL, *arguments) == 0
    document = read(scores)
    assert document["vanilla"] == document["factors"]


def test_profile_and_doctor(tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ropewalk("profile", "--model", tiny_path, *SMALL, "--limit", "3", "--json", tmp_path / "p.json") == 0
    document = read(tmp_path / "p.json")
    assert len(document["vanilla"]["nll"]) == len(document["positions"]) == 2
    assert ropewalk("doctor", "--model", tiny_path, *SMALL, "--json", tmp_path / "d.json") == 0
    assert "supported, 4 of 4 layers are rotary" in capsys.readouterr().out
    assert [layer["kind"] for layer in read(tmp_path / "d.json")["layers"]] == ["rotary"] * 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["profil"], 'Did you mean "profile"'),
        (["profile"], "--model"),
        (["profile", "--model", "demo", "--keyz", "3"], "--keyz"),
        (["profile", "--model", "demo", "--keys", "many"], "--keys"),
        (["profile", "--model", "demo", "--keys", "1"], "1 keys: expected at least 2"),
        (["profile", "--model", "demo", "--positions", "0,75"], "0 to 74"),
        (["profile", "--model", "demo", "--positions", "a"], "--positions 'a'"),
        (["profile", "--model", "demo", "--split", "tst"], "split"),
        (["profile", "--model", "demo", "--task", "kvs"], "did you mean 'kv'"),
        (["profile", "--model", "/no/such/folder", *SMALL], "/no/such/folder"),
        (["eval", "--model", "demo", "--factors", "/no/factors.json"], "/no/factors.json: no such file"),
        (["profile", "--model", "demo", "--keys", "8.5"], "expected a whole number, got '8.5'"),
        (["profile", "--model", "demo", "--task", "kv", "--task", "mdqa"], "--task"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(
    arguments: list[str], says: str, tiny_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_path) if argument == "demo" else argument for argument in arguments]
    assert run(arguments) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ropewalk: ")
    assert says in line


def test_a_prompt_over_the_limit_names_the_example(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ropewalk("profile", "--model", tiny_path, "--keys", "400", "--positions", "2", "--limit", "2") == 2
    error = capsys.readouterr().err
    assert "kv-0-test-0@0" in error
    assert "--keys" in error
