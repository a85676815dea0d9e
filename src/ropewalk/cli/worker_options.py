"""Where candidates are scored: in this process, or on the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from ropewalk.cli.options import ModelOptions, described, flag, number
from ropewalk.errors import RopewalkError

WORKERS = Group("Workers", sort_key=4)


@Parameter(name="*", group=WORKERS)
@dataclass(frozen=True)
class WorkerOptions:
    """Which workers. All but the first option need `--workers ray`."""

    workers: Annotated[
        Literal["ray"] | None,
        described("ray: score on workers of a Ray cluster, each with the model. Default: in this process."),
    ] = None
    num_workers: Annotated[int | None, number("Workers. Default: all GPUs there are, or 1 without any.")] = None
    gpus_per_worker: Annotated[
        int | None, number("GPUs of a worker; several share a model too large for one. Default: 1 where there are any.")
    ] = None
    ray_address: Annotated[
        str | None, described("A Ray cluster that is running, as HOST:PORT. Default: one on this machine, for the run.")
    ] = None
    ray_dashboard: Annotated[bool, flag("Start Ray's dashboard on the cluster of this machine.")] = False
    worker_timeout: Annotated[
        float, described("Seconds after which a worker that is silent counts as hung and is replaced.")
    ] = 1800.0

    def check(self, model: ModelOptions) -> None:
        """Raise `RopewalkError` for what can't be meant, before anything is started."""
        if self.workers is None:
            given = [entry.name for entry in fields(self) if getattr(self, entry.name) != entry.default]
            if given:
                raise RopewalkError(f"--{given[0].replace('_', '-')} is for workers: give --workers ray as well")
            return
        for name, lowest in (("num_workers", 1), ("gpus_per_worker", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise RopewalkError(f"--{name.replace('_', '-')} is {value}, expected at least {lowest}")
        if not self.worker_timeout > 0:
            raise RopewalkError(f"--worker-timeout is {self.worker_timeout} seconds, expected a number above 0")
        if self.ray_dashboard and self.ray_address:
            raise RopewalkError("--ray-dashboard is for a cluster of our own; the one at --ray-address has its own")
        if model.device not in (None, "cpu", "cuda"):
            raise RopewalkError(
                f"--device is {model.device}, and workers get their devices from Ray: give cpu, cuda or none, and "
                "--gpus-per-worker for a model that one GPU can't hold"
            )
        if model.device == "cpu" and self.gpus_per_worker:
            raise RopewalkError(f"--device is cpu and --gpus-per-worker {self.gpus_per_worker}: give one of them")

    @contextmanager
    def loaded(self, model: ModelOptions) -> Iterator[tuple[Any, Any]]:
        """Model and tokenizer, here or on workers, which end with the block."""
        if self.workers is None:
            yield model.load()
            return
        from ropewalk.cli.console import line
        from ropewalk.demo import demo_model
        from ropewalk.workers import ModelSource
        from ropewalk.workers.cluster import WorkerSettings
        from ropewalk.workers.model import on_workers

        rope, path = model.scheme(), str(demo_model() if model.model == "demo" else model.model)
        source = ModelSource(path, model.dtype, model.trust_remote_code, None if rope is None else str(rope))
        gpus = 1 if model.device == "cuda" and self.gpus_per_worker is None else self.gpus_per_worker
        settings = WorkerSettings(
            self.num_workers, gpus, self.ray_address, self.worker_timeout, dashboard=self.ray_dashboard
        )
        line(f"Starting workers for {model.model}" + (f" at {self.ray_address}" if self.ray_address else ""))
        with on_workers(source, settings, on_cpu=model.device == "cpu", say=line) as loaded:
            yield loaded[0], model.dressed(loaded[1])
