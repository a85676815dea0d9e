"""Searches that are interrupted, killed and continued end as if they had not been."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.errors import StudyError
from ropewalk.factors import ScalingFactors
from ropewalk.run import Evaluated, Scored, SearchResult, Stage, search
from ropewalk.study import open_study
from run_faults import CANDIDATES, Stop, same_end, stored_settings
from small_search import SPACE, CountingEvaluator, evaluator, plan, whole_search


@pytest.mark.parametrize(("kind", "count"), [(Stage, 1), (Scored, 1), (Scored, 6), (Evaluated, 3), (Evaluated, 7)])
def test_an_interrupted_search_ends_as_if_it_had_not_been(
    tmp_path: Path,
    on_search: CountingEvaluator,
    on_validation: CountingEvaluator,
    uninterrupted: tuple[SearchResult, Path],
    kind: type,
    count: int,
) -> None:
    reused = plan()
    with pytest.raises(KeyboardInterrupt):
        search(reused, on_search, on_validation, tmp_path, on_event=Stop(kind, count))
    with open_study(tmp_path, stored_settings(tmp_path)) as study:
        kept = len({SPACE.factors(record.candidate).values for record in study.records().values()})
    on_search.calls = 0
    result = search(reused, on_search, on_validation, tmp_path)  # the very plan that was interrupted
    assert on_search.calls == CANDIDATES - kept
    same_end(result, tmp_path, uninterrupted)


def test_interrupted_among_the_finalists(
    tmp_path: Path,
    on_search: CountingEvaluator,
    on_validation: CountingEvaluator,
    uninterrupted: tuple[SearchResult, Path],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(plan(), on_search, on_validation, tmp_path, on_event=Stop(Scored, CANDIDATES + 2))
    on_search.calls = on_validation.calls = 0
    same_end(search(plan(), on_search, on_validation, tmp_path), tmp_path, uninterrupted)
    assert (on_search.calls, on_validation.calls) == (0, 2)


def test_a_finished_search_is_not_scored_again(
    tmp_path: Path,
    on_search: CountingEvaluator,
    on_validation: CountingEvaluator,
    uninterrupted: tuple[SearchResult, Path],
) -> None:
    search(plan(), on_search, on_validation, tmp_path)
    on_search.calls = on_validation.calls = 0
    events: list[Any] = []
    same_end(search(plan(), on_search, on_validation, tmp_path, on_event=events.append), tmp_path, uninterrupted)
    assert (on_search.calls, on_validation.calls) == (0, 0)
    assert events == [Stage("Search", 0), Stage("Finalists", 0)]


def test_factors_are_rebuilt_from_the_study(
    tmp_path: Path, on_search: CountingEvaluator, uninterrupted: tuple[SearchResult, Path]
) -> None:
    """A kill between a record and the file, or somebody's hand: the study is the truth."""
    with pytest.raises(KeyboardInterrupt):
        search(plan(), on_search, None, tmp_path, on_event=Stop(Evaluated, 8))
    best = ScalingFactors.load(tmp_path / "factors.json")
    (tmp_path / "factors.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        search(plan(), on_search, None, tmp_path, on_event=Stop(Scored, 1))
    assert ScalingFactors.load(tmp_path / "factors.json").values == best.values


def test_other_settings_are_refused(tmp_path: Path, loaded: tuple[Any, Any], on_search: CountingEvaluator) -> None:
    search(plan(), on_search, None, tmp_path)
    before = (tmp_path / "factors.json").read_bytes()
    for message, other in {
        "method.seed: 0 -> 1": (plan(seed=1), on_search),
        "method.generations: 3 -> 4": (plan(generations=4), on_search),
        "objective.measure: 'likelihood' -> 'accuracy'": (plan(measure="accuracy"), on_search),
        "search.seed: 0 -> 5": (plan(), evaluator(*loaded, seed=5)),
        "search.sha256": (plan(), evaluator(*loaded, "test")),
    }.items():
        with pytest.raises(StudyError, match=message):
            search(other[0], other[1], None, tmp_path)
    assert (tmp_path / "factors.json").read_bytes() == before


def test_another_version_of_the_method_is_refused(tmp_path: Path, on_search: CountingEvaluator) -> None:
    """Equal settings, other proposals: the records would be taken for candidates they are not of."""
    search(plan(), on_search, None, tmp_path)
    changed = plan()
    changed.method.ask(1)
    with pytest.raises(StudyError, match="another version of the search method"):
        search(changed, on_search, None, tmp_path)


def kill_a_search(model: Path, out: Path, seconds: float) -> bool:
    """Run the small search in a process and kill it so long after it began; whether it was still running."""
    script = Path(__file__).with_name("small_search.py")
    command = [sys.executable, script, model, out]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "Stage" in process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_a_killed_search_ends_as_if_it_had_not_been(
    tiny_path: Path, tmp_path: Path, uninterrupted: tuple[SearchResult, Path], seconds: float
) -> None:
    assert kill_a_search(tiny_path, tmp_path, seconds)
    same_end(whole_search(tiny_path, tmp_path), tmp_path, uninterrupted)


@pytest.mark.slow
def test_searches_killed_at_twenty_instants(
    tiny_path: Path, tmp_path: Path, uninterrupted: tuple[SearchResult, Path]
) -> None:
    """Some runs are killed several times before they may end; every one ends the same."""
    rng, killed = np.random.default_rng(23), 0
    for run in range(10):
        out = tmp_path / str(run)
        for _ in range(2):
            killed += kill_a_search(tiny_path, out, float(rng.uniform(0, 0.7)))
        same_end(whole_search(tiny_path, out), out, uninterrupted)
    assert killed >= 15  # the others had ended before
