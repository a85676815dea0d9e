"""The model in a process of its own: what ends it, a full memory or a fault of a driver, leaves the page alive.

The process loads, says what it has (a `Bench`), and scores the factors that it is sent. After every batch it tells how
many prompts are done, and asks whether to go on. It ends when nobody listens any more.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.results import TaskResult
from ropewalk.studio.bench import Bench

if TYPE_CHECKING:
    from ropewalk.evaluate import Evaluator

Load = Callable[[], "tuple[Bench, Evaluator]"]  # is sent to the process, so it can be pickled
PATIENCE = 5.0  # seconds for a process to end before it is killed


class CancelledError(BaseException):
    """The user wants no more of this evaluation. Like KeyboardInterrupt no failure that a loop could work around."""


class ModelError(RopewalkError):
    """Why the model's process could not load or score, or that it ended."""


class ModelProcess:
    """One process at a time. All but `end` belongs to one thread."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._context = multiprocessing.get_context("spawn")  # a process that was forked could use no GPU
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._ended = False

    @property
    def loaded(self) -> bool:
        """Whether there is a process with the model."""
        return self._connection is not None and self._process is not None and self._process.is_alive()

    def start(self) -> Bench:
        """Load the model, which takes a while. Raises `ModelError` with what the loading raised, or what ended it."""
        self._forget()
        self._connection, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, self._load), name="ropewalk-studio-model", daemon=True
        )
        resource_tracker.ensure_running()  # which `start` would do, and take SIGINT back in
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a Ctrl-C in the terminal is the studio's
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._process = process
        theirs.close()
        if self._ended:  # meanwhile
            self.end()
        kind, content = self._receive()
        if kind == "loaded":
            return content  # type: ignore[no-any-return]
        self._forget()
        raise ModelError(content)

    def score(self, factors: ScalingFactors | None, on_progress: Callable[[int], None]) -> TaskResult:
        """What factors score; None: vanilla. Raises `ModelError`.

        on_progress: told how many prompts were just done; it may raise `CancelledError`, which stops the scoring.
        """
        self._send(factors)
        cancelled: CancelledError | None = None
        while True:
            kind, content = self._receive()
            if kind == "scored":
                return content  # type: ignore[no-any-return]
            if kind == "stopped":
                raise cancelled or CancelledError
            if kind != "done":
                if kind == "failed":  # what it raised may have left the GPU unusable
                    self._forget()
                raise ModelError(content)
            try:
                on_progress(content)
            except CancelledError as error:
                cancelled = error
            self._send(cancelled is None)

    def end(self) -> None:
        """End the process, whatever it does: all that it found has been sent."""
        self._ended = True
        if self._process is not None:
            _stop(self._process)

    def _send(self, content: Any) -> None:
        assert self._connection is not None
        try:
            self._connection.send(content)
        except OSError:
            raise self._gone() from None

    def _receive(self) -> tuple[str, Any]:
        assert self._connection is not None
        try:
            return self._connection.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError):
            raise self._gone() from None

    def _gone(self) -> ModelError:
        """What became of a process that answers no more."""
        process = self._process
        self._forget()
        if process is None or self._ended:
            return ModelError("the studio has ended")
        code = process.exitcode or 0
        why = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            why += ", as a system out of memory does it"
        return ModelError(f"the model's process was ended {why}")

    def _forget(self) -> None:
        """No process from now on: one that has nobody to talk to ends."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is not None:
            process.join(PATIENCE)
            _stop(process)


def _stop(process: multiprocessing.process.BaseProcess) -> None:
    process.terminate()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


def _work(connection: Connection, load: Load) -> None:
    """The process: load, then score until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # not at once: a spinner has to give the cursor back
    try:
        try:
            bench, evaluator = load()
        except Exception as error:
            connection.send(("refused", reason(error)))
            return
        connection.send(("loaded", bench))
        while _answer(connection, evaluator):
            pass
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the studio is gone
        return


def _answer(connection: Connection, evaluator: Evaluator) -> bool:
    """Score once; whether the process can go on."""

    def progress(count: int) -> None:
        connection.send(("done", count))
        if not connection.recv():
            raise CancelledError

    factors = connection.recv()
    try:
        progress(0)
        connection.send(("scored", evaluator.score(factors, on_progress=progress)))
    except CancelledError:
        connection.send(("stopped", None))
    except RopewalkError as error:
        connection.send(("refused", reason(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # a bug, or a full GPU: the terminal has all of it
        traceback.print_exc(file=sys.stderr)
        connection.send(("failed", reason(error)))
        return False
    return True


def reason(error: BaseException) -> str:
    """In a line, for the page."""
    text = str(error).strip().splitlines()
    first = text[0] if text else ""
    return first if isinstance(error, RopewalkError) and first else f"{type(error).__name__}: {first}".rstrip(": ")
