"""The workers as Ray actors: one process each, started, watched and replaced; never restarted by Ray itself.

Ray's own restarts lose the actor's state, the model, without a word; here a lost process is a new one that loads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import ray

from ropewalk.answers import Block
from ropewalk.elsewhere import Facts
from ropewalk.factors import ScalingFactors
from ropewalk.workers.shipping import Shipment, unpack
from ropewalk.workers.units import Unit
from ropewalk.workers.worker import Done, Failed, Worker, host

State = Literal["waiting for a place", "reading the model", "free", "busy"]
Make = Callable[[str], Worker]  # of the path of the model


class WorkerActor:
    """A `Worker` in a process of its own. It is made in `load`, so that the process can say where it is before."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._worker: Worker | None = None

    def where(self) -> tuple[str, str, int]:
        """Host, Ray's id of the node, process id."""
        return host(), ray.get_runtime_context().get_node_id(), os.getpid()

    def load(self, path: str, shipment: Shipment | None) -> Facts | Failed | None:
        """Load the model, and say which one it is. None: it is not on this node, and has to be shipped."""
        try:
            if Path(path).is_absolute() and not Path(path).exists():
                if shipment is None:
                    return None
                self._worker = self._make(str(unpack(shipment)))
                self._worker.model.config._name_or_path = path  # the model's name, which its results carry
            else:
                self._worker = self._make(path)
            return self._worker.facts()
        except Exception as error:
            return Failed.of(error)

    def answers(
        self,
        key: int,
        questions: Sequence[Any],
        block: Block,
        candidates: Sequence[ScalingFactors | None],
        any_model: bool,
    ) -> Done | Failed:
        """As `Worker.answers`; questions: a reference to them, in a list, that is followed once."""
        worker = self._worker
        assert worker is not None
        try:
            if not worker.knows(key):
                worker.take(key, ray.get(questions[0]))
        except Exception as error:
            return Failed.of(error)
        return worker.answers(key, block, candidates, any_model)


@dataclass(frozen=True)
class Needs:
    """What a worker takes of its node."""

    cpus: int
    gpus: int

    def places(self, nodes: Sequence[dict[str, float]]) -> int:
        """How many workers these nodes have room for, each within one node."""
        return sum(self._places(node) for node in nodes)

    def _places(self, node: dict[str, float]) -> int:
        by_cpus = int(node.get("CPU", 0) // self.cpus)
        return min(by_cpus, int(node.get("GPU", 0) // self.gpus)) if self.gpus else by_cpus


class Member:
    """A place among the workers and the process that has it now.

    number: from 1. ref: what it is waited for with; None if it has nothing to do. failures: processes lost or failed
    one after the other, without a piece of work done in between. since: when it began what it is doing.
    """

    def __init__(self, number: int, make: Make, needs: Needs) -> None:
        self.number, self._make, self._needs = number, make, needs
        self.failures = 0
        self.host = self.node = ""
        self.pid = 0
        self.unit: Unit | None = None
        self.begin()

    def begin(self) -> None:
        """A new process, in place of the one before if there was one."""
        actor: Any = ray.remote(WorkerActor).options(
            num_cpus=self._needs.cpus, num_gpus=self._needs.gpus, max_restarts=0, max_task_retries=0
        )
        self._actor = actor.remote(self._make)
        self.unit = None
        self._is("waiting for a place", self._actor.where.remote())

    def load(self, path: str, shipment: Shipment | None) -> None:
        """Let it load the model."""
        self._is("reading the model", self._actor.load.remote(path, shipment))

    def ready(self) -> None:
        """It has the model, and nothing to do."""
        self.unit = None
        self._is("free", None)

    def work(self, unit: Unit, questions: Any) -> None:
        """Give it a piece of work."""
        job, self.unit = unit.job, unit
        asked = self._actor.answers.remote(job.key, [questions], unit.block, list(job.candidates), job.any_model)
        self._is("busy", asked)

    def end(self) -> None:
        """End its process, whatever it is doing."""
        self._is("free", None)
        ray.kill(self._actor, no_restart=True)

    def _is(self, state: State, ref: Any) -> None:
        self.state, self.ref, self.since = state, ref, time.monotonic()

    @property
    def is_starting(self) -> bool:
        """Whether it has no model yet."""
        return self.state in ("waiting for a place", "reading the model")

    @property
    def name(self) -> str:
        """For messages."""
        return f"worker {self.number}" + (f" (process {self.pid} on {self.host})" if self.pid else "")


def living_nodes() -> dict[str, dict[str, float]]:
    """Resources of the nodes that are alive, by Ray's id of the node."""
    nodes: list[dict[str, Any]] = cast(Any, ray).nodes()  # untyped there
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
