"""The one thread that talks to the model's process: it starts it, then evaluates what is queued, one curve at a time.

Whatever an evaluation raises, or ends the process, becomes the reason that the page shows, and the thread goes on with
the next one, for which the model is loaded again if need be.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import Any, Literal

from ropewalk.errors import DataError, RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.studio.bench import Bench
from ropewalk.studio.model_process import CancelledError, Load, ModelProcess, reason
from ropewalk.studio.session import Session, check_shape, result_key

State = Literal["waiting", "running", "done", "cancelled", "failed"]
MOST_WAITING = 20
SHOWN = 3  # of the jobs that ended, the last ones


@dataclass
class Job:
    """One evaluation. name: how the curve was called. done, total: prompts."""

    number: int
    name: str
    factors: ScalingFactors
    state: State = "waiting"
    done: int = 0
    total: int = 0
    reason: str = ""
    began: float = 0.0
    cancelled: bool = field(default=False, repr=False)

    def view(self) -> dict[str, Any]:
        """As the page shows it; seconds_left: None before anything is known."""
        passed = time.monotonic() - self.began
        known = self.state == "running" and self.done > 0
        return {
            "number": self.number,
            "name": self.name,
            "state": "stopping" if self.cancelled and self.state == "running" else self.state,
            "done": self.done,
            "total": self.total,
            "reason": self.reason,
            "seconds_left": round(passed * (self.total - self.done) / self.done, 1) if known else None,
        }


class Worker(threading.Thread):
    """load: reads model and examples, in the process. `bench` is None until that is done."""

    def __init__(self, load: Load, session: Session) -> None:
        super().__init__(name="ropewalk-studio", daemon=True)
        self._model, self._session = ModelProcess(load), session
        self._changed = threading.Condition()
        self._ends = False
        self.bench: Bench | None = None
        self.trouble = ""  # why there is no model
        self.jobs: list[Job] = []

    def run(self) -> None:
        """Load, then evaluate until `end`."""
        try:
            bench = self._model.start()
            check_shape(self._session, bench.shape)
        except BaseException as error:  # the page says it; without a model there is nothing more to do here
            self.trouble = reason(error)
            return
        self.bench = bench
        while (job := self._next()) is not None:
            self._evaluate(bench, job)

    def add(self, name: str, factors: ScalingFactors) -> Job:
        """Queue an evaluation. Raises `DataError` if too many wait, or there is no model."""
        with self._changed:
            if self.bench is None:
                raise DataError(self.trouble or "the model is still being loaded")
            if sum(job.state == "waiting" for job in self.jobs) >= MOST_WAITING:
                raise DataError(f"{MOST_WAITING} evaluations are waiting, the most there may be: cancel one first")
            job = Job(1 + max((one.number for one in self.jobs), default=0), name, factors)
            ended = [one for one in self.jobs if one.state not in ("waiting", "running")]
            self.jobs = [one for one in self.jobs if one not in ended[:-SHOWN]] + [job]
            self._changed.notify()
            return job

    def cancel(self, number: Any) -> None:
        """Take an evaluation out of the queue, or stop it. Raises `DataError` for one that is not there."""
        with self._changed:
            job = next((one for one in self.jobs if one.number == number), None)
            if job is None:
                raise DataError(f"there is no evaluation {str(number)[:20]}")
            job.cancelled = True
            if job.state == "waiting":
                job.state = "cancelled"

    def end(self, seconds: float = 20.0) -> None:
        """End the model's process and the thread; all that was scored is kept."""
        with self._changed:
            self._ends = True
            for job in self.jobs:
                job.cancelled = True
            self._changed.notify()
        self._model.end()
        self.join(seconds)

    def _next(self) -> Job | None:
        """The next job once there is one; None at the end."""
        with self._changed:
            while not self._ends:
                job = next((one for one in self.jobs if one.state == "waiting"), None)
                if job is not None:
                    job.state, job.began = "running", time.monotonic()
                    return job
                self._changed.wait()
        return None

    def _evaluate(self, bench: Bench, job: Job) -> None:
        def advance(count: int) -> None:
            job.done += count
            if job.cancelled:
                raise CancelledError

        arms: list[ScalingFactors | None] = [None, job.factors]
        keys = {result_key(None if arm is None else arm.values, bench.examples): arm for arm in arms}
        try:
            missing = {key: arm for key, arm in keys.items() if self._session.result(key) is None}
            job.total = len(missing) * bench.prompts
            if not self._model.loaded and self._model.start().examples != bench.examples:
                raise DataError("the model was loaded again, and is another now: start the studio again")
            for key, arm in missing.items():
                advance(0)
                self._session.keep(key, self._model.score(arm, advance))
            job.state = "done"
        except CancelledError:
            job.state = "cancelled"
        except Exception as error:
            if not isinstance(error, RopewalkError):
                traceback.print_exc(file=sys.stderr)  # a bug, or a full GPU: the terminal has all of it
            again = "" if self._model.loaded else "; the next evaluation loads the model again"
            job.reason, job.state = f"{reason(error)}{again}", "failed"
