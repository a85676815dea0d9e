"""Whole processes: a killed driver, Ctrl-C, a lost node, and the same study in one process and on workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from faulty import Faults, Slow

from ropewalk.checkpoint import load_pretrained
from ropewalk.events import Evaluated
from ropewalk.factors import ScalingFactors
from ropewalk.objectives import Objective
from ropewalk.run import Examples, SearchPlan
from ropewalk.run import search as whole_search
from ropewalk.search.bezier_ga import BezierGA
from ropewalk.search.space import SearchSpace
from ropewalk.study import open_study
from ropewalk.workers import ModelSource
from ropewalk.workers.cluster import WorkerSettings
from ropewalk.workers.model import on_workers
from run_faults import content, stored_settings
from small_search import evaluator, plan, search

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ROPEWALK = Path(sys.executable).with_name("ropewalk")
MARK = "ROPEWALK_TEST_MARK"
SEARCH = [
    "--keys", "2", "--positions", "2", "--limit", "4", "--validation-limit", "2", "--test-limit", "3",
    "--control-budget", "0", "--method", "cma-es", "--generations", "400", "--workers", "ray", "--num-workers", "2",
]  # fmt: skip


@pytest.fixture
def environment(ray_token: Path) -> dict[str, str]:
    """Of processes that can be found again."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", MARK: uuid4().hex}


def processes(mark: str, name: str = "") -> list[str]:
    """Those that were started with a mark, by command line; name: part of it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
        except OSError:
            continue
    return [command for command in found if name in command]


def gone(mark: str, seconds: float, name: str = "") -> list[str]:
    """What is left after so long."""
    end = time.monotonic() + seconds
    while processes(mark, name) and time.monotonic() < end:
        time.sleep(0.5)
    return processes(mark, name)


def test_a_killed_driver_started_again_continues(
    environment: dict[str, str], tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    command = [sys.executable, str(HERE / "driver.py"), str(tiny_path), str(tmp_path / "run")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        evaluated = 0
        for line in process.stdout:
            evaluated += line.strip() == "Evaluated"
            if evaluated == 3:
                break
        process.kill()
    kept = len(open_records(tmp_path / "run"))
    assert kept >= 4
    assert gone(environment[MARK], 60, "WorkerActor") == []  # Ray's own agents take up to 90 s
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert "Evaluated" in done.stdout
    on, validation = (evaluator(*loaded, split, records=5) for split in ("search", "validation"))
    search(plan(racing=True), on, validation, tmp_path / "own")
    both = [open_records(tmp_path / name) for name in ("run", "own")]
    assert {key: content(record) for key, record in both[0].items()} == {
        key: content(record) for key, record in both[1].items()
    }
    factors = [ScalingFactors.load(tmp_path / name / "factors.json") for name in ("run", "own")]
    assert factors[0].values == factors[1].values


def open_records(out: Path) -> dict[tuple[int, int], Any]:
    with open_study(out, stored_settings(out)) as study:
        return study.records()


def test_ray_that_was_imported_without_a_token_is_said() -> None:
    program = "import ray\nfrom ropewalk.workers.cluster import *\nwith cluster(WorkerSettings()): pass"
    bare = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run([sys.executable, "-c", program], env=bare, capture_output=True, text=True, timeout=100)
    assert "import ropewalk.workers first" in done.stderr


def test_ctrl_c_leaves_no_process_behind(environment: dict[str, str], roomy_path: Path, tmp_path: Path) -> None:
    command = [str(ROPEWALK), "search", "--model", str(roomy_path), "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        [*command, *SEARCH], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        heard = []
        for line in process.stderr:
            heard.append(line)
            if line.startswith("Search:"):
                break
        time.sleep(2)
        os.killpg(process.pid, signal.SIGINT)
        heard.append(process.stderr.read())
        assert process.wait(60) == 130, "".join(heard)
    assert "The same command continues" in heard[-1]
    assert "Traceback" not in "".join(heard)
    assert gone(environment[MARK], 20) == []


def test_ctrl_c_while_workers_start(environment: dict[str, str], roomy_path: Path, tmp_path: Path) -> None:
    command = [str(ROPEWALK), "search", "--model", str(roomy_path), "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        [*command, *SEARCH], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "reads the model" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130, rest
    assert "Traceback" not in rest
    assert gone(environment[MARK], 20) == []


@pytest.fixture
def two_nodes(ray_token: Path) -> Iterator[Any]:
    """A cluster of a driver's node and two of one core each."""
    os.environ["RAY_AUTH_MODE"] = "token"
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


def test_a_lost_node_makes_the_run_smaller(
    two_nodes: Any, tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    """On a cluster that was there before, by its address; with its last node the run ends."""
    cluster, nodes = two_nodes
    said: list[str] = []
    left = [nodes[0]]
    seen = 0

    def lose_one(event: Any) -> None:
        nonlocal seen
        seen += isinstance(event, Evaluated)
        if seen == 2 and left:
            cluster.remove_node(left.pop())

    settings = WorkerSettings(count=2, address=cluster.address)
    make = partial(Slow, Faults(str(tmp_path)))
    source = ModelSource(str(tiny_path), "float32")
    with on_workers(source, settings, say=said.append, make=make, all_ready=True) as away:
        result = search(plan(racing=True), evaluator(*away, records=5), None, tmp_path / "run", lose_one)
    own = search(plan(racing=True), evaluator(*loaded, records=5), None, tmp_path / "own")
    assert [content(record) for record in result.records] == [content(record) for record in own.records]
    assert any("1 workers go on" in line for line in said), said


def test_the_same_study_of_smollm2(ray_token: Path, demo_path: Path, tmp_path: Path) -> None:
    """In this process, with 1 worker and with 4: record by record, to the bit."""
    space = SearchSpace(30)
    method = BezierGA(space, 0, population=4, parents=2, mutations=1, crossovers=1, generations=1)
    one = SearchPlan(space, method, Objective(), 2)
    source = ModelSource(str(demo_path))

    def records(loaded: tuple[Any, Any], name: str) -> list[Any]:
        on = evaluator(*loaded, records=2)
        result = whole_search(one, Examples((on,)), None, tmp_path / name)
        return [content(record) for record in result.records]

    own = records(load_pretrained(demo_path, device="cpu"), "own")
    for count in (1, 4):
        with on_workers(source, WorkerSettings(count=count)) as loaded:
            assert records(loaded, str(count)) == own
