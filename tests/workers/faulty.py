"""A worker that fails on purpose: at a call counted over all workers, in the way that a file asks for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.workers.worker import ModelSource, Worker


@dataclass(frozen=True)
class Faults:
    """folder: shared by all workers; `calls` in it grows by a byte a call. kind: what happens. at: at which calls."""

    folder: str
    kind: str = "nothing"
    at: tuple[int, ...] = ()

    def call(self) -> int:
        """The number of this call among those of all workers, from 0."""
        with (Path(self.folder) / "calls").open("ab") as stream:
            stream.write(b".")
            return stream.tell() - 1

    def happen(self) -> None:
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.kind == "raise":
            raise RuntimeError("this GPU is broken on purpose")


class FaultyWorker(Worker):
    """The real worker with `FAULTS`; its GPU, once broken, stays so."""

    def __init__(self, faults: Faults, source: ModelSource, threads: int | None) -> None:
        if faults.kind == "never loads":
            raise RuntimeError("no model today, on purpose")
        if faults.kind == "dies loading":
            os.kill(os.getpid(), signal.SIGKILL)
        super().__init__(source, threads)
        self.faults, self.is_broken = faults, False
        take = self.take

        def taken(*arguments: Any) -> None:
            take(*arguments)
            key = arguments[0]
            own = self._sources[key]
            answers = own.answers

            def faulty(*given: Any) -> Any:
                if self.faults.call() in self.faults.at or self.is_broken:
                    self.is_broken = True
                    self.faults.happen()
                return answers(*given)

            own.answers = faulty  # type: ignore[method-assign]

        self.take = taken  # type: ignore[method-assign]


class Slow(FaultyWorker):
    """The real worker, slowly."""

    def answers(self, key: int, block: Sequence[int], *more: Any) -> Any:
        time.sleep(0.2)
        return super().answers(key, tuple(block), *more)
