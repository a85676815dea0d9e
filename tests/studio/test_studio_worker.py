"""The thread that owns the model: one evaluation at a time, cancelled and failed ones, and those after them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ropewalk import ScalingFactors
from ropewalk.errors import DataError
from ropewalk.results import TaskResult
from ropewalk.studio.bench import Bench
from ropewalk.studio.session import Session, result_key
from ropewalk.studio.worker import Worker
from small_search import CountingEvaluator, evaluator


@pytest.fixture
def on(loaded: tuple[Any, Any]) -> CountingEvaluator:
    return evaluator(*loaded, "validation", tokens_per_batch=1)


@pytest.fixture
def worker(on: CountingEvaluator, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(lambda: Bench.of(on, "validation"), Session(tmp_path, "tiny"))
    worker.start()
    until(lambda: worker.bench is not None)
    yield worker
    worker.end()
    assert not worker.is_alive()


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def factors(value: float) -> ScalingFactors:
    return ScalingFactors([value] * 4)


def states(worker: Worker) -> list[str]:
    return [job.view()["state"] for job in worker.jobs]


def test_what_fails_says_why_and_the_next_one_is_scored(worker: Worker, on: CountingEvaluator) -> None:
    def fault(given: ScalingFactors, result: TaskResult) -> TaskResult:
        if given[0] == 0.9:
            raise RuntimeError("out of paper\nand of ink")
        return result

    on.fault = fault
    worker.add("bad", factors(0.9))
    worker.add("good", factors(1.1))
    until(lambda: states(worker)[-1] == "done")
    assert states(worker) == ["failed", "done"]
    assert worker.jobs[0].reason == "RuntimeError: out of paper"


def test_vanilla_is_scored_once_and_so_is_a_curve(worker: Worker, on: CountingEvaluator) -> None:
    for _ in range(2):
        worker.add("one", factors(1.1))
        until(lambda: states(worker)[-1] == "done")
    worker.add("two", factors(1.2))
    until(lambda: states(worker) == ["done"] * 3)
    assert on.calls == 3


def test_a_running_and_a_waiting_evaluation_can_be_cancelled(worker: Worker, on: CountingEvaluator) -> None:
    begun, on_its_way = threading.Event(), threading.Event()

    def fault(given: ScalingFactors, result: TaskResult) -> TaskResult:
        begun.set()
        on_its_way.wait(60)
        return result

    worker.add("vanilla's", factors(1.3))
    until(lambda: states(worker) == ["done"])
    on.fault = fault
    held = worker.add("held", factors(1.1))
    begun.wait(60)
    waiting = worker.add("waiting", factors(1.2))
    worker.cancel(waiting.number)
    assert states(worker)[1:] == ["running", "cancelled"]
    on.fault = None
    on_its_way.set()
    until(lambda: held.state == "done")
    assert held.done == held.total


def test_cancel_stops_between_batches(worker: Worker, on: CountingEvaluator) -> None:
    bench = worker.bench
    assert bench is not None
    job = worker.add("long", factors(1.1))
    until(lambda: job.state != "waiting")
    worker.cancel(job.number)
    until(lambda: job.state in ("cancelled", "done"))
    again = worker.add("again", factors(1.1))
    until(lambda: again.state == "done")
    key = result_key(factors(1.1).values, bench.examples)
    assert worker._session.result(key) is not None
    with pytest.raises(DataError, match="no evaluation 99"):
        worker.cancel(99)


def test_without_a_model_nothing_can_be_queued(tmp_path: Path) -> None:
    def load() -> Bench:
        raise DataError("no such model")

    worker = Worker(load, Session(tmp_path, "none"))
    worker.start()
    worker.join(60)
    assert worker.trouble == "no such model"
    with pytest.raises(DataError, match="no such model"):
        worker.add("one", factors(1.1))
