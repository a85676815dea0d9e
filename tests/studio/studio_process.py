"""`ropewalk studio` in a process of its own, and requests to it as a browser or somebody else would send them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

COMMAND = [sys.executable, "-c", "import sys; from ropewalk.cli import main; main(sys.argv[1:])", "studio"]
SMALL = ("--keys", "3", "--positions", "0,2", "--limit", "3")
WAIT = 120.0  # of a crowded machine


class Served:
    """A studio that is served."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.address = process.stdout.readline().strip()
        if not self.address:
            raise AssertionError(process.communicate(timeout=WAIT)[1])
        self.port = urlsplit(self.address).port or 0
        self.token = parse_qs(urlsplit(self.address).query)["token"][0]
        self.cookie = f"ropewalk-studio-{self.port}={self.token}"

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str | None
    ) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers. A header of None is left out of those that the page itself would send."""
        own = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie}
        if method != "GET":
            own["Origin"] = f"http://127.0.0.1:{self.port}"
        sent = {name: value for name, value in (own | headers).items() if value is not None}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=WAIT)) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.getheaders())

    def read(self, name: str) -> Any:
        status, body, _ = self.ask(f"/api/{name}")
        assert status == 200, body
        return json.loads(body)

    def act(self, name: str, /, **body: Any) -> Any:
        status, text, _ = self.ask(f"/api/{name}", "POST", json.dumps(body).encode())
        assert status == 200, text
        return json.loads(text)

    def refused(self, name: str, /, **body: Any) -> str:
        status, text, _ = self.ask(f"/api/{name}", "POST", json.dumps(body).encode())
        assert status == 400, (status, text)
        return str(json.loads(text)["error"])

    def until(self, happened: Callable[[Any], bool]) -> Any:
        """The state once something is so."""
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            state = self.read("state")
            if happened(state):
                return state
            time.sleep(0.05)
        raise AssertionError(f"it never happened: {state}")

    def end(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=WAIT)
        return self.process.returncode


@contextmanager
def served(*arguments: object, cwd: Path) -> Iterator[Served]:
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,  # a group of its own, for a Ctrl-C as a terminal sends it
    )
    try:
        yield Served(process)
    finally:
        process.kill()
        process.communicate()


def ready(studio: Served) -> Any:
    """The state with a model."""
    return studio.until(lambda state: not state["loading"])


def no_job_left(state: Any) -> bool:
    return all(job["state"] not in ("waiting", "running") for job in state["jobs"])
