"""`ropewalk search` as a user meets it: what it leaves, how it continues, what it refuses before anything is scored."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import filelock
import pytest

from ropewalk import ScalingFactors
from ropewalk.cli import run
from ropewalk.haystack import generated_sentences
from ropewalk.objectives import DEFAULT_WEIGHTS

KV = ["--keys", "2", "--positions", "2"]
RECORDS = ["--limit", "4", "--validation-limit", "2", "--test-limit", "3"]
GENETIC = [
    "--method", "bezier-ga", "--population", "4", "--parents", "2", "--mutations", "1", "--crossovers", "1",
    "--generations", "2",
]  # fmt: skip
SMALL = [*KV, *RECORDS, *GENETIC]
CANDIDATES, PROMPTS = 6, 8  # the identity among them; of one candidate


def ropewalk(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def searched(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small search with both controls."""
    out = tmp_path_factory.mktemp("runs") / "kv"
    arguments = [*SMALL, "--control-budget", "400", "--out", out, "--json", out / "json"]
    assert ropewalk("search", "--model", tiny_path, *arguments) == 0
    return out


# What it leaves ----------------------------------------------------------------------------------------------------


def test_a_search_leaves_everything(searched: Path) -> None:
    factors = ScalingFactors.load(searched / "factors.json")
    assert factors.num_layers == 4
    assert factors.found["tasks"][0]["task"] == "kv"
    result = read(searched / "result.json")
    assert result == read(searched / "json")
    assert result["search"]["candidates"] == CANDIDATES + 1  # the identity is scored before all others too
    assert result["search"]["evaluations"] == CANDIDATES * PROMPTS
    assert set(read(searched / "scores.json")) >= {"vanilla", "factors"}
    assert (searched / "curves.svg").read_text().lstrip().startswith("<svg")


def test_a_single_tasks_figures_stand_at_the_top_too(searched: Path) -> None:
    result = read(searched / "result.json")
    assert list(result["tasks"]) == ["kv"]
    block = result["tasks"]["kv"]
    assert {name: result[name] for name in block if name not in ("provenance", "evaluations")} == {
        name: figures for name, figures in block.items() if name not in ("provenance", "evaluations")
    }
    assert result["constraints"] == []


def test_the_controls_are_found_within_their_budget_and_tested(searched: Path) -> None:
    result = read(searched / "result.json")
    assert set(result["controls"]) == {"uniform_best", "line_best"}
    assert all(PROMPTS < spent <= 400 for spent in result["controls"].values())
    for arm, method in (("uniform_best", "uniform"), ("line_best", "line")):
        found = ScalingFactors.load(searched / "controls" / method / "factors.json")
        assert found.found["method"]["method"] == method
        assert (arm in result) == (not found.is_identity)
    assert result["factors_over"].keys() <= {"uniform", "uniform_best", "line_best"}


def test_the_provenance_names_model_data_and_what_was_spent(searched: Path) -> None:
    result = read(searched / "result.json")
    where = result["provenance"]
    assert where["model"]["fingerprint"].startswith("sha256:")
    assert set(where["data"]) == {"search", "validation", "test"}
    assert len({split["kv"]["sha256"] for split in where["data"].values()}) == 3
    assert where["seed"] == 0
    assert where["command"].startswith("ropewalk search --model ")
    assert where["seconds"] > 0
    assert where["evaluations"] == {
        "search": CANDIDATES * PROMPTS,
        "validation": result["search"]["validation_evaluations"],
        "controls": sum(result["controls"].values()),
        "test": result["evaluations"],
    }
    tokens = where["data"]["search"]["kv"]["tokens"]
    assert where["tokens"]["search"] == tokens * CANDIDATES
    assert {"python", "torch"} <= set(where["versions"])


def test_if_nothing_beats_vanilla_the_answer_is_vanilla(tiny_path: Path, tmp_path: Path) -> None:
    """Bounds that leave the identity alone."""
    alone = ["--low", "1", "--high", "1", "--method", "default", "--generations", "1", "--control-budget", "0"]
    assert ropewalk("search", "--model", tiny_path, *KV, *RECORDS, *alone, "--out", tmp_path) == 0
    result = read(tmp_path / "result.json")
    assert "the answer is vanilla" in result["sentence"]
    assert ScalingFactors.load(tmp_path / "factors.json").is_identity
    assert result["vanilla"] == result["factors"]
    assert result["controls"] == {}


def test_a_mix_with_constraints(roomy_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("".join(generated_sentences("texts", 4000)))
    tasks = ["--task", "kv:keys=2,share=2", "--task", "needle:lengths=50,60", "--task", "kv:keys=3,limit=2"]
    limits = ["--max-position-loss", "0.5", "--max-short-perplexity", "50", "--short-text", tmp_path / "texts.txt"]
    more = ["--positions", "2", *RECORDS, *GENETIC, "--control-budget", "0", "--objective", "mean", *limits]
    out = tmp_path / "run"
    assert ropewalk("search", "--model", roomy_path, *tasks, *more, "--out", out) == 0
    assert "Constraint short-text perplexity: holds on the test" in capsys.readouterr().out
    result = read(out / "result.json")
    assert list(result["tasks"]) == list(read(out / "scores.json")) == ["kv", "needle", "kv 2"]
    assert "vanilla" not in result
    assert [check["name"] for check in result["constraints"]][-1] == "short-text perplexity"
    assert len(result["constraints"]) == 7
    assert [part["share"] for part in result["search"]["objective"]["parts"]] == [2.0, 1.0, 1.0]
    assert {name: split["examples"] for name, split in result["provenance"]["data"]["search"].items()} == {
        "kv": 8, "needle": 8, "kv 2": 4, "short texts": 16
    }  # fmt: skip
    assert all((out / f"curves-{name}.svg").exists() for name in ("kv", "needle", "kv-2"))
    assert list(result["short_texts"]) == ["perplexity", "choice"]
    checks = sum(2 * check["vanilla"]["records"] for check in result["short_texts"].values())
    tests = sum(block["evaluations"] for block in result["tasks"].values())
    assert result["evaluations"] == tests + 2 * 16 + checks
    (text,) = {check["task"]["data"][0]["sha256"] for check in [result["short_texts"]["perplexity"]]}
    assert text == hashlib.sha256((tmp_path / "texts.txt").read_bytes()).hexdigest()


# How it continues --------------------------------------------------------------------------------------------------


def test_the_same_search_again_evaluates_nothing_and_gives_the_same(tiny_path: Path, searched: Path) -> None:
    before, figures = read(searched / "factors.json"), read(searched / "result.json")
    assert ropewalk("search", "--model", tiny_path, *SMALL, "--control-budget", "400", "--out", searched) == 0
    assert read(searched / "factors.json") == before
    after = read(searched / "result.json")
    for timed in (figures, after):
        del timed["provenance"]["seconds"], timed["provenance"]["command"]  # which has another --json
    assert after == figures


def test_a_changed_setting_is_refused_with_the_difference(
    tiny_path: Path, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [*SMALL, "--control-budget", "400", "--radius", "0.3", "--out", searched]
    assert ropewalk("search", "--model", tiny_path, *changed) == 2
    error = capsys.readouterr().err
    assert "radius: 0.2 -> 0.3" in error
    assert "prompts" not in error  # it is refused before anything is scored


def test_a_budget_chooses_the_generations(tiny_path: Path, tmp_path: Path) -> None:
    budget = ["--method", "default", "--population", "4", "--budget", "200", "--control-budget", "0"]
    assert ropewalk("search", "--model", tiny_path, *KV, *RECORDS, *budget, "--out", tmp_path) == 0
    found = read(tmp_path / "result.json")["search"]
    assert found["method"]["generations"] > 1
    assert 150 < found["evaluations"] <= 200


def test_dry_run_writes_nothing(tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SMALL, "--control-budget", "400", "--out", tmp_path / "run", "--dry-run"]
    assert ropewalk("search", "--model", tiny_path, *arguments) == 0
    shown = capsys.readouterr().out
    assert "Nothing was written" in shown
    assert "6 candidates in 2 generations, 48 candidate·prompt evaluations" in " ".join(shown.split())
    assert "GiB of memory" in " ".join(shown.split())
    assert not (tmp_path / "run").exists()


# What it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "bezierga"], "did you mean 'bezier-ga'"),
        (["--method", "bezier-ga", "--sigma", "0.1"], "method bezier-ga has no option 'sigma', expected one of"),
        (["--populaton", "4"], "--population"),
        (["--population", "8.5"], "expected a whole number, got '8.5'"),
        (["--method", "cma-es", "--sigma", "9"], "sigma is 9.0"),
        (["--weights", "1;2"], "--weights '1;2'"),
        (["--weights", "1,2,3,4"], "4 weights for 2 positions"),
        (["--objective", "worst", "--weights", "1,1,1"], "weighs no positions"),
        (["--objective", "best"], "--objective"),
        (["--low", "1.2"], "low"),
        (["--budget", "10"], "give at least"),
        (["--time", "0"], "--time is 0"),
        (["--control-budget", "5"], "does not pay for the control 'uniform'"),
        (["--max-short-perplexity", "1", "--short-text", "/no/text"], "/no/text: no such file"),
        (["--short-text", "/no/text"], "/no/text: no such file"),
        (["--task", "kv:kyes=3"], "did you mean 'keys'"),
        (["--config", "/no/run.toml"], "/no/run.toml: no such file"),
        (["--test-limit", "1", *GENETIC, "--control-budget", "0"], "at least 2"),
    ],
)
def test_a_mistake_gets_one_line(
    arguments: list[str], says: str, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = RECORDS[:4] if "--test-limit" in arguments else RECORDS
    assert ropewalk("search", "--model", tiny_path, *KV, *records, *arguments, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err.strip()
    *_, line = error.splitlines()
    assert line.startswith("ropewalk: ")
    assert says in line


def spoil(kind: str, out: Path) -> None:
    if kind == "file":
        out.write_text("")
        return
    out.mkdir()
    if kind == "corrupt":
        (out / "study.db").write_bytes(os.urandom(20000))
    elif kind == "foreign":
        with sqlite3.connect(out / "study.db") as connection:
            connection.execute("CREATE TABLE t (a)")


@pytest.mark.parametrize(
    ("kind", "says"),
    [("file", "expected a folder"), ("corrupt", "can't be opened as a study"), ("foreign", "no study of ropewalk")],
)
def test_a_run_directory_that_is_none_is_said_before_anything_is_scored(
    kind: str, says: str, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(kind, tmp_path / "run")
    assert ropewalk("search", "--model", tiny_path, *SMALL, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert says in error
    assert "prompts" not in error


@pytest.mark.parametrize("name", ["study.lock", "run.lock"])
def test_a_second_driver_is_refused_before_anything_is_scored(
    name: str, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with filelock.FileLock(tmp_path / name):
        assert ropewalk("search", "--model", tiny_path, *SMALL, "--out", tmp_path) == 2
    error = capsys.readouterr().err
    assert "another process is running this search" in error
    assert "prompts" not in error


def test_the_options_defaults_are_the_objectives() -> None:
    from ropewalk.cli.mix import TaskMix
    from ropewalk.cli.search_options import SearchOptions

    (part,) = SearchOptions().target(TaskMix().tasks()).parts
    assert (part.name, part.kind, part.measure, part.weights) == ("kv", "utilisation", "likelihood", DEFAULT_WEIGHTS)
    (part,) = SearchOptions(method="paper").target(TaskMix().tasks()).parts
    assert part.measure == "accuracy"
