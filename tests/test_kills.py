"""Searches that are killed (kill -9) at any instant, and continued, end as if they had not been."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from killed_search import CORE, KILLED, WRITES, Server, server
from ropewalk import files
from ropewalk.demo import demo_model
from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from small_search import PLANS

METHODS = list(PLANS)  # one candidate at a time; three at once, which race on windows of records; ours
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

    def lines(self, method: str, own: tuple[str, ...]) -> int:
        if (method, own) not in self.counts:
            out = self.folder / str(len(self.counts))
            self.counts[method, own] = self.processes.search(out, method, files=own) or 0
            assert self.ends.setdefault(method, left(out)) == left(out)
        return self.counts[method, own]


@pytest.fixture(scope="module")
def whole(processes: Server, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(processes, tmp_path_factory.mktemp("whole"))


def left(out: Path) -> list[Any]:
    """All that a search leaves but the time it took: every record to the bit, and the factors."""
    factors = ScalingFactors.load(out / "factors.json")
    found = [factors.values, {name: value for name, value in factors.found.items() if name not in TIMED}]
    for split in ("search", "validation"):
        study = optuna.load_study(study_name=split, storage=f"sqlite:///{out}/study.db")
        for trial in study.get_trials(deepcopy=False):
            record = {name: own for name, own in trial.user_attrs["record"].items() if name not in TIMED}
            found.append((trial.state.name, trial.value, record))
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("own", [CORE, WRITES], ids=["core", "writes"])
def test_a_killed_search_ends_as_if_it_had_not_been(
    processes: Server, whole: Whole, tmp_path: Path, method: str, own: tuple[str, ...]
) -> None:
    """In the middle, and among the last lines."""
    lines = whole.lines(method, own)
    for number, line in enumerate((lines // 2, lines - lines // 50)):
        out = tmp_path / str(number)
        assert processes.search(out, method, files=own, line=line) is None
        assert processes.search(out, method) is not None
        assert left(out) == whole.end(method)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("own", [CORE, WRITES], ids=["core", "writes"])
def test_searches_killed_at_random_lines(
    processes: Server, whole: Whole, tmp_path: Path, method: str, own: tuple[str, ...]
) -> None:
    """Four searches each, and every second one is killed once more while it continues."""
    rng = np.random.default_rng(29)
    killed = 0
    for number in range(4):
        out = tmp_path / str(number)
        for _ in range(1 + number % 2):
            line = int(rng.integers(1, whole.lines(method, own)))
            killed += processes.search(out, method, files=own, line=line) is None
        assert processes.search(out, method) is not None
        assert left(out) == whole.end(method)
    assert killed >= 4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bezier-ga", "default"])
def test_searches_killed_by_the_clock(processes: Server, whole: Whole, tmp_path: Path, method: str) -> None:
    """Ten instants for each method; a search is killed up to three times before it may end."""
    started = time.perf_counter()
    processes.search(tmp_path / "whole", method)
    seconds = time.perf_counter() - started
    rng = np.random.default_rng(31)
    killed = 0
    for number in range(20):
        out = tmp_path / str(number)
        for _ in range(3):
            if not processes.kill_after(out, method, float(rng.uniform(0, 0.7 * seconds))):
                break  # it had ended
            killed += 1
        assert processes.search(out, method) is not None
        assert left(out) == whole.end(method)
        if killed >= 10:
            break
    assert killed >= 10


# The real command ----------------------------------------------------------------------------------------------------

COMMAND = """search --model demo --no-chat-template --keys 3 --positions 3 --limit 3 --method bezier-ga --population 4
--parents 2 --mutations 2 --crossovers 1 --generations 2 --finalists 1 --validation-limit 2 --test-limit 2
--control-budget 0"""


def run_command(out: Path, stage: str | None = None, seconds: float = 0.0) -> int:
    """The exit status of `ropewalk search`, which is killed so long after it has announced a stage."""
    command = [Path(sys.executable).with_name("ropewalk"), *COMMAND.split(), "--out", out]
    one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | one_thread
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if stage is not None and line.startswith(stage + ":"):
                time.sleep(seconds)
                process.kill()
                break
        process.stdout.read()
    return process.returncode


@pytest.mark.slow
def test_the_real_command_killed_at_random_instants(tmp_path: Path) -> None:
    """In each of its stages, the final test and its report among them; the same command continues every time."""
    try:
        demo_model(progress=False)
    except RopewalkError as error:
        pytest.skip(f"the demo model can't be had: {error}")
    assert run_command(tmp_path / "whole") == 0
    rng = np.random.default_rng(37)
    stages = ("Profile", "Search", "Search", "Search", "Finalists", "Test", "Short", "Short")
    out = tmp_path / "killed"
    killed = [run_command(out, stage, float(rng.uniform(0, 4))) == KILLED for stage in stages]
    assert sum(killed) >= 5  # the others had ended before
    assert run_command(out) == 0
    assert left(out) == left(tmp_path / "whole")
    assert files.read_json(out / "scores.json") == files.read_json(tmp_path / "whole" / "scores.json")
