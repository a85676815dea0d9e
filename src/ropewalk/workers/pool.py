"""The work of a search on workers: handed out one piece at a time to whoever is free, put together by number.

Nothing that is decided depends on who is how fast. What goes wrong: a process that is lost or hangs is replaced, and
its work done once more by another; a node that is lost makes the workers fewer; what fails for the same piece of work
or the same worker again and again ends the run, with the reason. An error that scoring raises is tried once on another
worker, for it may be that one's GPU: only if it is raised there too it is the candidate's own.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayActorError, RayTaskError

from ropewalk.answers import Block, Job, Questions
from ropewalk.elsewhere import Facts
from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.workers.agreement import check_agreement
from ropewalk.workers.crew import Make, Member, Needs, living_nodes
from ropewalk.workers.errors import WorkerError
from ropewalk.workers.shipping import Shipment, pack
from ropewalk.workers.units import PoolJob, Unit
from ropewalk.workers.worker import Done, Failed

TICK = 1.0  # seconds between looks at the clock
STARTING = 1800.0  # seconds that a worker may at least wait for a place, and then read the model
TELL_EVERY = 15.0  # seconds between lines on workers that start
MOST_LOST = 2  # workers that one piece of work may be lost with before it is taken to be the reason
MOST_FAILURES = 3  # processes in a row that a worker may lose without doing anything


class Pool:
    """Workers that hold a model; see `ropewalk.answers.Answerers`.

    make: makes the worker in its process, from the path of its model. path: of the model here, absolute, or a hub id;
    nodes that lack it get a copy. timeout: seconds after which a worker that says nothing is taken to hang, in a piece
    of work or while it starts (which may take `STARTING`). say: told in a line of every worker that starts, is ready,
    or is lost.
    """

    facts: Facts

    def __init__(
        self,
        make: Make,
        path: str,
        size: int,
        needs: Needs,
        *,
        timeout: float,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._timeout, self._say, self._needs, self._size = timeout, say, needs, size
        self._path = path
        self._shipment: Shipment | None = None
        self._waiting: deque[Unit] = deque()
        self._keys: dict[int, int] = {}  # of questions, by the id of the object
        self._questions: list[tuple[Questions, Any]] = []  # and their reference; kept, or the id would go to another
        self._reasons: dict[int, str | None] = {}
        self._first: Facts | None = None
        self.memory_gib = 0.0
        self._told = self._last_end = time.monotonic()
        self.members = [Member(number, make, needs) for number in range(1, size + 1)]

    def start_up(self, *, all_of_them: bool = False) -> None:
        """Wait until a worker is ready, or all of them; the others come in when they are."""
        while self._first is None or (all_of_them and any(member.is_starting for member in self.members)):
            self._turn()
        workers = {"workers": {"count": self._size, "gpus_each": self._needs.gpus, "cpus_each": self._needs.cpus}}
        self.facts = replace(self._first, provenance={**self._first.provenance, **workers})

    def start(
        self,
        questions: Questions,
        blocks: Sequence[Block],
        candidates: Sequence[ScalingFactors | None],
        any_model: bool,
        report: Callable[[int], None],
    ) -> Job:
        """Ask for scores; see `Answerers`."""
        job = PoolJob(self._key(questions), blocks, candidates, any_model, report)
        self._waiting.extend(job.units())
        return job

    def wait(self, jobs: Collection[Job]) -> Job:
        """One of the jobs, as soon as it is done. Raises `WorkerError` where the workers can't go on."""
        own = cast(Collection[PoolJob], jobs)
        self._last_end = time.monotonic()
        while True:
            for job in own:
                if job.is_done:
                    return job
            self._turn()

    def reason(self, questions: Questions) -> str | None:
        """See `Answerers`."""
        return self._reasons.get(self._key(questions))

    def _key(self, questions: Questions) -> int:
        if id(questions) not in self._keys:
            self._keys[id(questions)] = len(self._questions)
            self._questions.append((questions, ray.put(questions)))
        return self._keys[id(questions)]

    def _turn(self) -> None:
        """Hand out what is waiting, and take in what comes within a moment."""
        for member in self.members:
            if member.state == "free" and (unit := self._next_for(member)) is not None:
                member.work(unit, self._questions[unit.job.key][1])
        pending = {member.ref: member for member in self.members if member.ref is not None}
        ready = ray.wait(list(pending), timeout=TICK)[0]
        if ready:
            ready = ray.wait(list(pending), num_returns=len(pending), timeout=0)[0]
        for ref in ready:
            self._take_in(pending[ref], ref)
        self._look_at_the_clock()

    def _next_for(self, member: Member) -> Unit | None:
        """The first piece of work that is wanted; not for the worker that failed on it, while there are others."""
        while self._waiting and self._waiting[0].job.is_cancelled:
            self._waiting.popleft()
        for place, unit in enumerate(self._waiting):
            if unit.failed_on is not member or len(self.members) == 1:
                del self._waiting[place]
                return unit
        return None

    def _take_in(self, member: Member, ref: Any) -> None:
        try:
            found = ray.get(ref)
        except RayTaskError as error:  # outside of what a worker catches: the program itself
            raise WorkerError(f"{member.name} failed:\n{_plain(error)}") from None
        except RayActorError as error:
            if error.actor_init_failed:  # it could not even be made: another process would fail likewise
                raise WorkerError(f"{member.name} can't begin:\n{_plain(error)}") from None
            self._lost(member, " ".join(_plain(error).split()))
            return
        if member.state == "waiting for a place":
            member.host, member.node, member.pid = found
            member.load(self._path, None)
            self._say(f"Worker {member.number} of {self._size}: reads the model on {member.host}")
        elif member.state == "reading the model":
            self._join(member, found)
        else:
            self._done(member, found)

    def _join(self, member: Member, found: Facts | Failed | None) -> None:
        if found is None:
            self._say(f"Worker {member.number} of {self._size}: gets the model, which is not on {member.host}")
            self._shipment = self._shipment or pack(Path(self._path))
            member.load(self._path, self._shipment)
            return
        if isinstance(found, Failed):
            where = f"worker {member.number} on {member.host}"
            if found.error is not None:
                raise RopewalkError(f"{where}: {found.error}")
            raise WorkerError(f"{where} can't load the model:\n{found.text}")
        check_agreement(found, self._first, f"worker {member.number} on {member.host}")
        self._first = self._first or found
        self._say(f"Worker {member.number} of {self._size}: ready after {time.monotonic() - member.since:.0f} s")
        member.ready()

    def _done(self, member: Member, found: Done | Failed) -> None:
        unit = member.unit
        assert unit is not None
        member.ready()
        now = time.monotonic()
        unit.job.seconds += now - self._last_end
        self._last_end = now
        blamed = unit.failed_on
        others = any(other is not member for other in self.members)
        if isinstance(found, Failed) and found.error is None and blamed is None and others:
            unit.failed_on = member
            self._waiting.appendleft(unit)
            return
        if isinstance(found, Done):
            member.failures = 0
            self._reasons[unit.job.key] = found.reason
            self.memory_gib = max(self.memory_gib, found.memory_gib)
            if blamed is not None and blamed is not member:
                self._replace(blamed, f"failed where {member.name} did not")
        unit.job.found[unit.number] = found
        if isinstance(found, Done) and not unit.job.is_cancelled:
            unit.job.report(len(unit.block) * len(unit.job.candidates))

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for member in list(self.members):
            limit = max(self._timeout, STARTING) if member.is_starting else self._timeout
            if member.ref is not None and now - member.since > limit:
                doing = "started" if member.is_starting else "worked on one piece of work"
                self._lost(member, f"it has {doing} for {now - member.since:.0f} s (--worker-timeout)")
        starting = [member for member in self.members if member.is_starting]
        if starting and any(member.failures for member in starting):
            self._shrink()
        if starting and now - self._told > TELL_EVERY:
            self._told = now
            states = [f"{sum(one.state == state for one in starting)} {state}" for state in
                      dict.fromkeys(one.state for one in starting)]  # fmt: skip
            self._say(f"Workers: {len(self.members) - len(starting)} of {self._size} ready, {', '.join(states)}")

    def _lost(self, member: Member, why: str) -> None:
        """A process is gone, or to be given up: its work goes first in the queue, its place to a new one."""
        unit, node_is_gone = member.unit, member.node not in living_nodes()
        if unit is not None:
            unit.lost += not node_is_gone
            if unit.lost >= MOST_LOST:
                raise WorkerError(f"a piece of work was lost with {unit.lost} workers, last with {member.name}: {why}")
            self._waiting.appendleft(unit)
        self._replace(member, why)

    def _replace(self, member: Member, why: str) -> None:
        unit = member.unit
        if unit is not None and unit not in self._waiting:
            self._waiting.appendleft(unit)
        member.failures += 1
        member.end()
        if member.failures >= MOST_FAILURES:
            raise WorkerError(f"{member.name} was lost {member.failures} times without any work done, last: {why}")
        self._say(f"Worker {member.number} of {self._size} is lost and replaced: {why}")
        member.begin()

    def _shrink(self) -> None:
        """Give up workers that no node is left for."""
        room = self._needs.places(list(living_nodes().values()))
        if room == 0:
            raise WorkerError("no node is left that has room for a worker; the same command continues on others")
        for member in sorted(self.members, key=lambda one: (one.state != "waiting for a place", one.number)):
            if len(self.members) <= room or member.state != "waiting for a place":
                return
            member.end()
            self.members.remove(member)
            self._say(f"Worker {member.number} has no node any more: {len(self.members)} workers go on")

    def close(self) -> None:
        """End all processes."""
        for member in self.members:
            member.end()
        self.members = []


def _plain(error: Exception) -> str:
    """Ray's words without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error))
