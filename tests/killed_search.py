"""Small searches in processes that can be killed at any instant, by the clock or at a line of the program.

`python killed_search.py MODEL` reads the model once, then forks a process for each search it is asked for: a kill
leaves what it would leave of any process, and a test can afford many. `Server` is its other end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

CORE = ("ropewalk/run.py", "ropewalk/ledger.py", "ropewalk/group.py", "ropewalk/race.py")
WRITES = ("ropewalk/study.py", "ropewalk/files.py", "_rdb/storage.py", "sqlalchemy/engine/default.py")
KILLED = -signal.SIGKILL


class Lines:
    """Counts the lines that are run of some files; at the given one the process kills itself."""

    def __init__(self, files: tuple[str, ...], last: int | None) -> None:
        self.files, self.last, self.count = files, last, 0

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self.step if frame.f_code.co_filename.endswith(self.files) else None

    def step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.step


class Server:
    """Asks the program for searches and, if told to, kills them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def search(self, out: Path, method: str, *, files: tuple[str, ...] = (), line: int | None = None) -> int | None:
        """The lines of these files that a whole search ran; None if it was killed at that line."""
        self._ask(out, method, files, line)
        status = self._answer()
        assert status in (0, KILLED), f"exit status {status}"
        return self.lines if status == 0 else None

    def kill_after(self, out: Path, method: str, seconds: float) -> bool:
        """Kill a search so long after it began; False if it had ended by then."""
        self._ask(out, method, (), None)
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGKILL)  # it is not reaped before the answer is read
        return self._answer() == KILLED

    def _ask(self, out: Path, method: str, files: tuple[str, ...], line: int | None) -> None:
        assert self.process.stdin is not None
        print(json.dumps([str(out), method, files, line]), file=self.process.stdin, flush=True)
        self.pid = self._number("pid")

    def _answer(self) -> int:
        """The exit status; `lines` if it lived to count them."""
        assert self.process.stdin is not None
        print("go on", file=self.process.stdin, flush=True)
        self.lines = self._number("lines")
        return self._number("status")

    def _number(self, name: str) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(name + " "), line
        return int(line.split()[1])


@contextmanager
def server(model: Path) -> Iterator[Server]:
    """The program, for a while."""
    with subprocess.Popen(
        [sys.executable, __file__, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()


def _serve(model: Path) -> None:
    import cmaes  # noqa: F401 - here, so that not each process has to import it
    import filelock  # noqa: F401
    from optuna.storages import RDBStorage  # noqa: F401

    from small_search import PLANS, load, search_with

    loaded = load(model)
    for make, _ in PLANS.values():
        make()  # its modules
    for request in sys.stdin:
        out, method, files, line = json.loads(request)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            lines = Lines(tuple(files), line)
            sys.settrace(lines.enter if files else None)
            search_with(loaded, Path(out), method)
            sys.settrace(None)
            os.write(writing, str(lines.count).encode())
            os._exit(0)
        os.close(writing)
        print("pid", pid, flush=True)
        sys.stdin.readline()  # whoever asked has killed it, or lets it run
        counted = os.read(reading, 100) or b"0"
        os.close(reading)
        _, status = os.waitpid(pid, 0)
        print("lines", counted.decode(), flush=True)
        print("status", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
