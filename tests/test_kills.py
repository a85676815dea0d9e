"""Searches that are killed (kill -9) at any instant, and continued, end as if they had not been."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from killed_search import CORE, WRITES, Server, server
from ropewalk.factors import ScalingFactors

METHODS = ["bezier-ga", "default"]  # one candidate at a time; three at once that race on windows of records
TIMED = {"seconds"}


@pytest.fixture(scope="module")
def processes(tiny_path: Path) -> Iterator[Server]:
    with server(tiny_path) as running:
        yield running


class Whole:
    """What each method's search leaves that nobody killed, and how many lines it runs; found out when asked for."""

    def __init__(self, processes: Server, folder: Path) -> None:
        self.processes, self.folder = processes, folder
        self.ends: dict[str, list[Any]] = {}
        self.counts: dict[tuple[str, tuple[str, ...]], int] = {}

    def end(self, method: str) -> list[Any]:
        if method not in self.ends:
            self.lines(method, CORE)
        return self.ends[method]

    def lines(self, method: str, files: tuple[str, ...]) -> int:
        if (method, files) not in self.counts:
            out = self.folder / str(len(self.counts))
            self.counts[method, files] = self.processes.search(out, method, files=files) or 0
            assert self.ends.setdefault(method, left(out)) == left(out)
        return self.counts[method, files]


@pytest.fixture(scope="module")
def whole(processes: Server, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(processes, tmp_path_factory.mktemp("whole"))


def left(out: Path) -> list[Any]:
    """All that a search leaves but the time it took: every record to the bit, and the factors."""
    factors = ScalingFactors.load(out / "factors.json")
    found = [factors.values, {name: value for name, value in factors.found.items() if name not in TIMED}]
    for split in ("search", "validation"):
        study = optuna.load_study(study_name=split, storage=f"sqlite:///{out}/study.db")
        found += [
            (trial.state.name, trial.value, {name: own for name, own in trial.user_attrs.items() if name not in TIMED})
            for trial in study.get_trials(deepcopy=False)
        ]
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("files", [CORE, WRITES], ids=["core", "writes"])
def test_a_killed_search_ends_as_if_it_had_not_been(
    processes: Server, whole: Whole, tmp_path: Path, method: str, files: tuple[str, ...]
) -> None:
    """In the middle, and among the last lines."""
    lines = whole.lines(method, files)
    for number, line in enumerate((lines // 2, lines - lines // 50)):
        out = tmp_path / str(number)
        assert processes.search(out, method, files=files, line=line) is None
        assert processes.search(out, method) is not None
        assert left(out) == whole.end(method)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("files", [CORE, WRITES], ids=["core", "writes"])
def test_searches_killed_at_random_lines(
    processes: Server, whole: Whole, tmp_path: Path, method: str, files: tuple[str, ...]
) -> None:
    """Twenty instants each; every second search is killed once more while it continues."""
    rng = np.random.default_rng(29)
    killed = 0
    for number in range(20):
        out = tmp_path / str(number)
        for _ in range(1 + number % 2):
            line = int(rng.integers(1, whole.lines(method, files)))
            killed += processes.search(out, method, files=files, line=line) is None
        assert processes.search(out, method) is not None
        assert left(out) == whole.end(method)
    assert killed >= 20


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_searches_killed_by_the_clock(processes: Server, whole: Whole, tmp_path: Path, method: str) -> None:
    """Twenty instants; some searches are killed several times before they may end."""
    started = time.perf_counter()
    processes.search(tmp_path / "whole", method)
    seconds = time.perf_counter() - started
    rng = np.random.default_rng(31)
    killed = 0
    for number in range(10):
        out = tmp_path / str(number)
        for _ in range(2):
            killed += processes.kill_after(out, method, float(rng.uniform(0, 0.7 * seconds)))
        assert processes.search(out, method) is not None
        assert left(out) == whole.end(method)
    assert killed >= 15  # the others had ended before
