"""The model in its process, and the thread that talks to it: cancelled, failed and killed evaluations, those after."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from studio_model import IS_HELD, IS_KILLED, RAISES, TinyModel

from ropewalk import ScalingFactors
from ropewalk.errors import DataError
from ropewalk.studio.session import Session, result_key
from ropewalk.studio.worker import Worker


@pytest.fixture
def worker(tiny_path: Path, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(TinyModel(tiny_path, tmp_path), Session(tmp_path, "tiny"))
    worker.start()
    until(lambda: worker.bench is not None or bool(worker.trouble))
    assert worker.trouble == ""
    yield worker
    process = pid(tmp_path)
    worker.end()
    assert not worker.is_alive()
    assert not is_alive(process)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def factors(value: float) -> ScalingFactors:
    return ScalingFactors([value] * 4)


def states(worker: Worker) -> list[str]:
    return [job.view()["state"] for job in worker.jobs]


def calls(folder: Path) -> list[float]:
    """Whose factors were scored."""
    return list(map(float, (folder / "calls").read_text().split()))


def pid(folder: Path) -> int:
    return int((folder / "pid").read_text())


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_fails_or_is_killed_says_why_and_the_next_one_is_scored(worker: Worker, tmp_path: Path) -> None:
    first = pid(tmp_path)
    assert first != os.getpid()
    for name, value in (("bad", RAISES), ("worse", IS_KILLED), ("good", 1.1)):
        worker.add(name, factors(value))
    until(lambda: states(worker)[-1] == "done")
    assert states(worker) == ["failed", "failed", "done"]
    reasons = [job.reason for job in worker.jobs]
    again = "; the next evaluation loads the model again"
    assert reasons[0] == f"RuntimeError: out of paper{again}"
    assert reasons[1] == f"the model's process was ended by SIGKILL, as a system out of memory does it{again}"
    assert pid(tmp_path) != first
    os.kill(pid(tmp_path), signal.SIGKILL)  # while nothing is scored
    until(lambda: not worker._model.loaded)
    worker.add("another", factors(1.2))
    until(lambda: states(worker)[-1] == "done")


def test_a_curve_is_scored_once(worker: Worker, tmp_path: Path) -> None:
    for value in (1.1, 1.1, 1.2):
        worker.add("one", factors(value))
    until(lambda: states(worker) == ["done"] * 3)
    assert calls(tmp_path) == [1.1, 1.2]
    assert [job.total for job in worker.jobs] == [8, 0, 4]  # vanilla's once


def test_a_running_and_a_waiting_evaluation_can_be_cancelled(worker: Worker, tmp_path: Path) -> None:
    bench = worker.bench
    assert bench is not None
    held = worker.add("held", factors(IS_HELD))
    until(lambda: (tmp_path / "calls").exists())
    waiting = worker.add("waiting", factors(1.2))
    worker.cancel(waiting.number)
    assert states(worker) == ["running", "cancelled"]
    (tmp_path / "go").touch()
    until(lambda: held.state == "done")
    assert held.done == held.total
    job = worker.add("long", factors(1.3))
    worker.cancel(job.number)
    until(lambda: job.state in ("cancelled", "done"))
    again = worker.add("again", factors(1.3))
    until(lambda: again.state == "done")
    assert worker._session.result(result_key(factors(1.3).values, bench.examples)) is not None
    with pytest.raises(DataError, match="no evaluation 99"):
        worker.cancel(99)


def test_the_end_waits_for_no_evaluation(worker: Worker, tmp_path: Path) -> None:
    held = worker.add("held", factors(IS_HELD))
    until(lambda: (tmp_path / "calls").exists())
    worker.end()
    assert not worker.is_alive()
    assert held.state in ("failed", "cancelled")


def test_without_a_model_nothing_can_be_queued(tmp_path: Path) -> None:
    worker = Worker(TinyModel(tmp_path / "none", tmp_path), Session(tmp_path, "none"))
    worker.start()
    worker.join(120)
    assert "none" in worker.trouble
    with pytest.raises(DataError, match="none"):
        worker.add("one", factors(1.1))
