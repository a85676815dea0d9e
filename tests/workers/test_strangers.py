"""Who may not join, on a real local cluster: a worker of another kind, and a driver with another token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from strangers import SecondIsOther

from ropewalk.errors import RopewalkError
from ropewalk.workers import ModelSource
from ropewalk.workers.cluster import WorkerSettings, cluster
from ropewalk.workers.model import on_workers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head(ray_token: Path) -> Iterator[Any]:
    """A cluster of one node that is there already, with room for two workers."""
    os.environ["RAY_AUTH_MODE"] = "token"
    import ray
    from ray.cluster_utils import Cluster

    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("version", r"worker \d on .* has torch 0\.0\.7, this command has .*: install the same version"),
        ("dtype", r"worker \d on .* has another dtype than the first one: bfloat16 and float32"),
        ("weight", r"worker \d on .* has another model digest than the first one"),
    ],
)
def test_a_worker_of_another_kind_is_refused(what: str, words: str, head: Any, tiny_path: Path, tmp_path: Path) -> None:
    make = SecondIsOther(str(tmp_path), what)
    source = ModelSource(str(tiny_path), "float32")
    with (
        pytest.raises(RopewalkError, match=words),
        cluster(WorkerSettings(address=head.address)),
        on_workers(source, WorkerSettings(count=2, address=head.address), make=make, all_ready=True),
    ):
        pass


def test_another_token_is_refused(head: Any, tmp_path: Path) -> None:
    other = tmp_path / "token"
    other.write_text("f" * 64)
    program = (
        "from ropewalk.errors import RopewalkError\nfrom ropewalk.workers.cluster import *\n"
        f"try:\n  with cluster(WorkerSettings(address={head.address!r})): print('joined')\n"
        "except RopewalkError as error: print('refused:', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"RAY_AUTH_TOKEN_PATH": str(other), "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.startswith(f"refused: can't join the Ray cluster at {head.address}"), done.stdout + done.stderr
    assert "token" in done.stdout.lower()
