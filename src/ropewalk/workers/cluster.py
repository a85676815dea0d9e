"""A Ray cluster for the length of a search: one of our own on this machine, or one that is there already.

What Ray would do by default and is not done here: sending usage statistics, starting a dashboard, following a stale
file to another cluster, running without a token. `ray stop`, which ends everybody's clusters, is never used.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ropewalk.errors import PrerequisiteError, RopewalkError
from ropewalk.workers import NO_TOKEN

if TYPE_CHECKING:
    from ropewalk.workers.crew import Needs

CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class WorkerSettings:
    """How many workers, on what. None: all the GPUs there are, or one worker where there is none.

    address: of a cluster that is there; None starts one on this machine. timeout: seconds, see `Pool`.
    """

    count: int | None = None
    gpus_each: int | None = None
    address: str | None = None
    timeout: float = 1800.0
    dashboard: bool = False


@contextmanager
def cluster(settings: WorkerSettings, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """A cluster; one of our own ends with the block, with all its processes. One that this process is in stays.

    Raises `PrerequisiteError` without Ray, `RopewalkError` if the cluster can't be joined or started.
    """
    if find_spec("ray") is None:
        raise PrerequisiteError("--workers ray needs Ray: pip install 'ropewalk[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if settings.address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a worker without a GPU sees none
    import ray

    if ray.is_initialized():
        yield
        return
    if NO_TOKEN and settings.address is None:
        raise RopewalkError(
            "ray was imported before ropewalk.workers, so it has no token to start a cluster with: import "
            "ropewalk.workers first, or set RAY_AUTH_MODE=token"
        )
    if settings.address is not None:
        _check_address(settings.address)
    options: dict[str, Any] = {"address": settings.address or "local"}
    if settings.address is None:
        cpus = max(os.cpu_count() or 1, settings.count or 1)
        options |= {"include_dashboard": settings.dashboard, "num_cpus": cpus}
    context = _init(options, settings.address)
    if settings.dashboard and context.dashboard_url:
        say(f"Ray's dashboard: http://{context.dashboard_url}")
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise `RopewalkError` if nobody listens there, for Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise RopewalkError(f"--ray-address {address}: expected HOST:PORT of the head, as `ray start --head` prints it")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RopewalkError(f"--ray-address {address}: no cluster answers there ({error})") from None


def _init(options: dict[str, Any], address: str | None) -> Any:
    """`ray.init`; one of our own is tried twice, for Ray gives it 30 seconds, however busy the machine is."""
    import ray

    for attempt in range(1 if address else 2):
        try:
            return ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray has no class for some of them
            ray.shutdown()
            what = f"can't join the Ray cluster at {address}" if address else "can't start Ray"
            hint = "; its token has to be the one here (RAY_AUTH_TOKEN_PATH, RAY_AUTH_MODE)" if address else ""
            if address or attempt:
                raise RopewalkError(f"{what}: {' '.join(str(error).split())}{hint}") from error
    return None


def sized(settings: WorkerSettings, nodes: Sequence[dict[str, float]], *, on_cpu: bool) -> tuple[int, Needs]:
    """How many workers there will be, and what each takes of these nodes' resources.

    on_cpu: no GPUs, whatever there is. Raises `RopewalkError` for what the nodes don't have, which Ray would wait for.
    """
    from ropewalk.workers.crew import Needs

    there = int(sum(node.get("GPU", 0) for node in nodes))
    gpus = settings.gpus_each if settings.gpus_each is not None else 1 if there and not on_cpu else 0
    if gpus:
        needs = Needs(1, gpus)
        room = needs.places(nodes)
        count = settings.count or max(1, room)
        if count > room:
            raise RopewalkError(
                f"workers asked for: {count}, of {gpus} GPU{'s' * (gpus > 1)} each; the nodes have room for {room} "
                f"({there} GPUs in all): give fewer --num-workers, or --gpus-per-worker 0 for the CPU"
            )
        return count, needs
    count = settings.count or 1
    cores = int(max((node.get("CPU", 0) for node in nodes), default=0))
    for cpus in range(cores, 0, -1):
        if Needs(cpus, 0).places(nodes) >= count:
            return count, Needs(cpus, 0)
    raise RopewalkError(
        f"{count} workers were asked for, and the nodes have {sum(int(node.get('CPU', 0)) for node in nodes)} cores: "
        "give fewer --num-workers"
    )
