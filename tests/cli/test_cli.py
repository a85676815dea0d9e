"""The command line as a user meets it: every verb on a tiny checkpoint, and every mistake in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk import ScalingFactors
from ropewalk.cli import run

SMALL = ["--keys", "2", "--positions", "2"]
SEARCH = [
    "--limit", "2", "--validation-limit", "2", "--test-limit", "3", "--population", "4", "--parents", "2",
    "--mutations", "1", "--crossovers", "1", "--generations", "2",
]  # fmt: skip


def ropewalk(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def searched(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small search."""
    out = tmp_path_factory.mktemp("runs") / "kv"
    assert ropewalk("search", "--model", tiny_path, *SMALL, *SEARCH, "--out", out, "--json", out / "json") == 0
    return out


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_search_leaves_everything(searched: Path) -> None:
    factors = ScalingFactors.load(searched / "factors.json")
    assert factors.num_layers == 4
    assert factors.found["search"]["task"] == "kv"
    result = read(searched / "result.json")
    assert result == read(searched / "json")
    assert result["search"]["candidates"] >= 6
    assert set(read(searched / "scores.json")) >= {"vanilla", "factors"}
    assert (searched / "curves.svg").read_text().lstrip().startswith("<svg")


def test_the_same_search_again_evaluates_nothing_and_gives_the_same(tiny_path: Path, searched: Path) -> None:
    before = read(searched / "factors.json")
    assert ropewalk("search", "--model", tiny_path, *SMALL, *SEARCH, "--out", searched) == 0
    assert read(searched / "factors.json")["values"] == before["values"]


def test_a_changed_setting_is_refused_with_the_difference(
    tiny_path: Path, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ropewalk("search", "--model", tiny_path, *SMALL, *SEARCH, "--radius", "0.3", "--out", searched) == 2
    error = capsys.readouterr().err
    assert "radius: 0.2 -> 0.3" in error
    assert "prompts" not in error  # it is refused before anything is scored


def test_eval_has_the_documented_json(tiny_path: Path, searched: Path, tmp_path: Path) -> None:
    figures = tmp_path / "eval.json"
    arguments = ["--factors", searched / "factors.json", "--limit", "3", "--json", figures]
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


def test_dry_run_writes_nothing(tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ropewalk("search", "--model", tiny_path, *SMALL, *SEARCH, "--out", tmp_path / "run", "--dry-run") == 0
    assert "Nothing was written" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


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
        (["search", "--model", "demo", "--method", "bezierga"], "bezier-ga"),
        (["search", "--model", "demo", "--weights", "1;2"], "--weights '1;2'"),
        (["search", "--model", "demo", "--low", "1.2"], "low"),
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


def test_ctrl_c_saves_the_best_and_the_same_command_continues(tiny_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", "from ropewalk.cli import main; main()", "search", "--model", str(tiny_path)]
    command += [*SMALL, *SEARCH[:-1], "5000", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (out / "factors.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command continues" in error
    assert "Traceback" not in error
    assert ScalingFactors.load(out / "factors.json").num_layers == 4
