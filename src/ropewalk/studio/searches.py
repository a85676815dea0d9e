"""A search that the studio started from its curve: `ropewalk search` in a process of its own, followed as any run."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.errors import DataError, PrerequisiteError
from ropewalk.factors import ScalingFactors

LOG, START = "search.log", "start.factors.json"
TAIL = 400  # letters of the log that the page shows
SECONDS = 20.0  # for a search to finish the candidates that it scores


class Searches:
    """directory: where the runs go, search-1, search-2, … command: `ropewalk search` with model and task.

    One at a time. None for the command: nothing can be started.
    """

    def __init__(self, directory: Path, command: Sequence[str] | None) -> None:
        self._directory, self._command = directory, command
        self._process: subprocess.Popen[bytes] | None = None
        self.out: Path | None = None

    @property
    def running(self) -> bool:
        """Whether one is at work."""
        return self._process is not None and self._process.poll() is None

    def earlier(self) -> list[Path]:
        """Run directories of the searches before this start, the oldest first."""
        found = [path.parent for path in self._directory.glob("search-*/study.db")]
        return sorted(found, key=lambda path: int("".join(filter(str.isdigit, path.name)) or 0))

    def begin(self, start: ScalingFactors, budget: Any) -> Path:
        """Start a search from these factors. Returns its run directory. Raises `RopewalkError`.

        budget: of evaluations; None: the method's own choice.
        """
        if self._command is None:
            raise PrerequisiteError("this studio can't start a search: its options are unknown")
        if self.running:
            raise DataError("a search is at work already; stop it first")
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
            raise DataError(f"a budget of {str(budget)[:20]}, expected a whole number of evaluations from 1")
        out = self._new()
        start.save(out / START)
        own = [] if budget is None else ["--budget", str(budget)]
        command = [*self._command, *own, "--start", str(out / START), "--out", str(out)]
        files.write_text(out / LOG, "")
        with (out / LOG).open("wb") as log:
            # A group of its own: a Ctrl-C in the terminal ends the studio, which then stops the search in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.out = out
        return out

    def stop(self, seconds: float = 0.0) -> None:
        """Let it finish what it scores and end; what it found stays. seconds: to wait for that, then it is killed."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        if seconds:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def view(self) -> dict[str, Any]:
        """For the page."""
        if self.out is None or self._process is None:
            return {"possible": self._command is not None, "state": "none"}
        code = self._process.poll()
        state = "running" if code is None else {0: "done", 130: "stopped"}.get(code, "failed")
        text = (self.out / LOG).read_bytes()[-TAIL:].decode(errors="replace").strip()
        return {"possible": True, "state": state, "out": str(self.out), "says": (text.splitlines() or [""])[-1]}

    def _new(self) -> Path:
        number = 1
        while (self._directory / f"search-{number}").exists():
            number += 1
        out = self._directory / f"search-{number}"
        out.mkdir(parents=True)
        return out
