"""Ctrl-C, as a real signal: the first one saves what is being scored, the second one stops at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ropewalk import ScalingFactors
from ropewalk.cli.interrupt import GracefulStop, never_lost
from ropewalk.events import Evaluated, Scored, Stage
from ropewalk.search.space import SearchSpace
from ropewalk.study import CandidateRecord

EVALUATED = Evaluated(CandidateRecord(0, 0, SearchSpace(4).identity(), 0.0), 0.0)
SEARCH = [
    "--keys", "2", "--positions", "2", "--limit", "4", "--validation-limit", "2", "--test-limit", "3",
    "--control-budget", "0", "--method", "cma-es", "--generations", "400",
]  # fmt: skip


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


class _Slow:
    """A finaliser that Ctrl-C comes in the middle of."""

    def __del__(self) -> None:
        ctrl_c()


def test_one_in_a_finaliser_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    usual = sys.unraisablehook

    def work() -> None:
        slow = _Slow()
        del slow  # Python ignores what is raised here
        for _ in range(500):
            time.sleep(0.01)

    with never_lost(), pytest.raises(KeyboardInterrupt):
        work()
    assert sys.unraisablehook is usual
    assert capsys.readouterr().err == ""


def test_other_errors_in_a_finaliser_are_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    class Broken:
        def __del__(self) -> None:
            raise ValueError

    with never_lost():
        broken = Broken()
        del broken
    assert told == [ValueError]


def test_the_first_one_in_a_search_waits_for_the_record() -> None:
    seen: list[object] = []
    with GracefulStop() as stop:
        on_event = stop.watch(seen.append)
        on_event(Stage("Search", 4))
        ctrl_c()
        on_event(Scored(2))
        with pytest.raises(KeyboardInterrupt):
            on_event(EVALUATED)
    assert seen[-1] is EVALUATED  # whoever watches has it too


def test_the_second_one_stops_at_once() -> None:
    with GracefulStop() as stop:
        stop.watch(lambda event: None)(Stage("Search", 4))
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()


def test_other_stages_stop_at_once() -> None:
    with GracefulStop() as stop:
        on_event = stop.watch(lambda event: None)
        for name in ("Profile", "Finalists", "Test"):
            on_event(Stage("Search", 4))
            on_event(Stage(name, 4))
            with pytest.raises(KeyboardInterrupt):
                ctrl_c()
        on_event(Stage("Search", 4))
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            on_event(Stage("Finalists", 4))  # the search ended before another candidate did


def test_the_handler_is_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with GracefulStop():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_in_another_thread_signals_are_left_alone() -> None:
    def enter() -> None:
        with GracefulStop():
            pass

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()


def started(model: Path, out: Path, until: str) -> subprocess.Popen[str]:
    """The real command, in a process of its own, once it has said `until`."""
    command = [sys.executable, "-c", "from ropewalk.cli import main; main()", "search", "--model", str(model)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *SEARCH, "--out", str(out)], stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(until):
            return process
    raise AssertionError(f"the command ended without saying {until!r}: {process.wait()}")


def records(out: Path) -> int:
    import optuna

    return len(optuna.load_study(study_name="search", storage=f"sqlite:///{out}/study.db").trials)


def test_ctrl_c_saves_and_the_same_command_continues(tiny_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = []
    for _ in range(2):
        process = started(tiny_path, out, "Search:")
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "Ctrl-C again stops at once" in error
        assert f"the best so far is in {out / 'factors.json'}. The same command continues" in error
        assert "Traceback" not in error
        found.append(records(out))
        assert ScalingFactors.load(out / "factors.json").num_layers == 4
    assert 2 <= found[0] < found[1]  # the baseline and a candidate, then at least one more


def test_two_of_them_stop_without_a_traceback(tiny_path: Path, tmp_path: Path) -> None:
    process = started(tiny_path, tmp_path / "run", "Search:")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "The same command continues" in error
    assert "Traceback" not in error
