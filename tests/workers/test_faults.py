"""What goes wrong with workers, each on a real local cluster: lost, hung, broken, failing, of another kind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faulty import Faults, FaultyWorker

from ropewalk.errors import RopewalkError
from ropewalk.run import SearchResult
from ropewalk.workers import ModelSource
from ropewalk.workers.cluster import WorkerSettings, cluster
from ropewalk.workers.errors import WorkerError
from ropewalk.workers.model import on_workers
from run_faults import content
from small_search import evaluator, plan, search

pytestmark = pytest.mark.slow
Run = Callable[..., SearchResult]


@pytest.fixture(scope="module", autouse=True)
def running(ray_token: Path) -> Iterator[None]:
    """One cluster for all tests here, with room for 4 workers, and a cache of models of their own."""
    os.environ["ROPEWALK_CACHE"] = str(ray_token.parent / "cache")
    with cluster(WorkerSettings(count=4)):
        yield


@pytest.fixture
def run(tiny_path: Path, tmp_path: Path) -> Run:
    """A small search on workers of which some have faults."""

    def run(
        kind: str, at: tuple[int, ...] = (), *, count: int = 2, timeout: float = 60.0, make: Any = FaultyWorker
    ) -> Any:
        source = ModelSource(str(tiny_path), "float32")
        faults = Faults(str(tmp_path), kind, at)
        said: list[str] = []
        settings = WorkerSettings(count=count, timeout=timeout)
        with on_workers(
            source, settings, say=said.append, make=partial(FaultyWorker, faults), all_ready=True
        ) as loaded:
            result = search(plan(racing=True), evaluator(*loaded, records=5), None, tmp_path / "run")
        return result, said

    return run


@pytest.fixture(scope="module")
def expected(loaded: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The same search in this process."""
    result = search(plan(racing=True), evaluator(*loaded, records=5), None, tmp_path_factory.mktemp("own"))
    return [content(record) for record in result.records]


def same(result: SearchResult, expected: list[Any]) -> bool:
    return [content(record) for record in result.records] == expected


def test_four_workers(run: Run, expected: list[Any]) -> None:
    result, said = run("nothing", count=4)
    assert same(result, expected)
    assert sum("ready after" in line for line in said) == 4


def test_a_killed_worker_is_replaced_and_its_work_done_once_more(run: Run, expected: list[Any], tmp_path: Path) -> None:
    result, said = run("kill", (4,))
    assert same(result, expected)
    assert sum("is lost and replaced" in line for line in said) == 1
    undisturbed = sum(record.prompts > 0 for record in result.records)
    assert (tmp_path / "calls").stat().st_size <= 3 * undisturbed + 1  # stages, and one piece of work twice
    assert result.failed == 0


def test_a_worker_that_hangs_is_timed_out(run: Run, expected: list[Any]) -> None:
    started = time.monotonic()
    result, said = run("hang", (3,), timeout=12.0)
    assert same(result, expected)
    assert any("--worker-timeout" in line for line in said)
    assert time.monotonic() - started < 120


def test_a_broken_worker_spoils_no_candidate(run: Run, expected: list[Any]) -> None:
    """What it raises is tried on another one, which does not raise: it is replaced."""
    result, said = run("raise", (4,))
    assert same(result, expected)
    assert any("failed where worker" in line for line in said)


def test_work_that_kills_every_worker_ends_the_run(run: Run) -> None:
    with pytest.raises(WorkerError, match="was lost with 2 workers"):
        run("kill", tuple(range(3, 100)), count=1)


def test_a_worker_that_never_loads_ends_the_run_with_its_traceback(run: Run) -> None:
    with pytest.raises(WorkerError, match=r"(?s)can't load the model:\nTraceback.*no model today, on purpose"):
        run("never loads")


def test_a_worker_that_dies_loading_is_not_replaced_for_ever(run: Run) -> None:
    with pytest.raises(WorkerError, match="was lost 3 times without any work done"):
        run("dies loading", count=1)


def test_what_fails_everywhere_fails_the_baseline_in_one_line(run: Run) -> None:
    with pytest.raises(RopewalkError, match=r"the model as it is can't be scored.*broken on purpose"):
        run("raise", (0,), count=1)


def test_a_missing_model_is_the_users_mistake(tmp_path: Path, tiny_path: Path) -> None:
    missing = replace(ModelSource(str(tiny_path)), dtype="float128")
    with (
        pytest.raises(RopewalkError, match=r"worker \d on .*float128"),
        on_workers(missing, WorkerSettings(count=1)),
    ):
        pass


def test_gpus_that_are_not_there_are_an_error(tiny_path: Path) -> None:
    with (
        pytest.raises(RopewalkError, match=r"asked for: 2, of 1 GPU each.*room for 0 \(0 GPUs in all\)"),
        on_workers(ModelSource(str(tiny_path)), WorkerSettings(count=2, gpus_each=1)),
    ):
        pass


def test_a_model_that_a_node_lacks_is_shipped_once(
    tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path leads to the model in this process alone: through its working directory, which workers don't share."""
    (tmp_path / "model").symlink_to(tiny_path)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    source = ModelSource("/proc/self/cwd/model", "float32")
    with on_workers(source, WorkerSettings(count=2), say=said.append, all_ready=True) as away:
        found = evaluator(*away).score(None)
    assert found.to_dict() == evaluator(*loaded).score(None).to_dict()
    assert sum("gets the model" in line for line in said) == 2
    assert len(list((Path(os.environ["ROPEWALK_CACHE"]) / "models").glob("model-*"))) == 1
