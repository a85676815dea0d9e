"""A worker of several processes that share a model's weights (tensor parallel): one leads, the others do what it does.

Each of them has a part of every weight (transformers' `tp_plan`), and each layer puts their results together. So all
have to do the same in the same order: the leader tells the others what it is about to do, and afterwards hears whether
it ended alike. The others end with the leader, and the leader ends if one of them does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from ropewalk.workers.worker import Failed, Worker

if TYPE_CHECKING:
    from ropewalk.workers.worker import ModelSource

LAST_WORDS = 30.0  # seconds that the leader has to say why loading failed, before it ends with the others


class Followers:
    """The other processes of a worker, as its leader sees them."""

    def __init__(self, source: ModelSource, threads: int | None) -> None:
        from ray import cloudpickle  # the source's class may be one of the program that was started

        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(source.ranks)}
        self._pipes: list[Connection[Any, Any]] = []
        for rank in range(1, source.ranks):
            own, other = Pipe()
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = subprocess.Popen(
                [sys.executable, "-m", "ropewalk.workers.ranks", str(other.fileno())],
                env=os.environ | group | place,
                pass_fds=[other.fileno()],
                start_new_session=True,  # Ctrl-C is for the driver
            )
            other.close()
            own.send_bytes(cloudpickle.dumps((source, threads)))  # type: ignore[no-untyped-call]
            self._pipes.append(own)
            Thread(target=_end_with, args=(process,), daemon=True).start()
        os.environ.update(group, RANK="0", LOCAL_RANK="0")

    def tell(self, method: str, *arguments: Any) -> None:
        """Let them do what the leader is about to do."""
        for pipe in self._pipes:
            pipe.send((method, arguments))

    def agree(self, *, failed: bool) -> None:
        """Wait for them. Who failed alone has left the others behind: then the worker ends, to be replaced."""
        theirs = [pipe.recv() for pipe in self._pipes]
        if any(other != failed for other in theirs):
            _end(f"one process of this worker failed alone ({[failed, *theirs]})")


def _end_with(process: subprocess.Popen[bytes]) -> None:
    code = process.wait()
    _end(f"process {process.pid} of this worker ended ({code})")


def _end(why: str) -> None:
    print(why, file=sys.stderr, flush=True)  # noqa: T201 - Ray's log of the worker
    os._exit(1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def follow(pipe: Connection[Any, Any]) -> None:
    """Do what the leader at the other end does, until it is gone."""
    from ray import cloudpickle

    source, threads = cloudpickle.loads(pipe.recv_bytes())
    commands: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_listen, args=(pipe, commands), daemon=True).start()
    try:
        worker = Worker(source, threads, leads=False)
    except Exception:
        sys.excepthook(*sys.exc_info())
        time.sleep(LAST_WORDS)
        sys.exit(1)
    while True:
        method, arguments = commands.get()
        try:
            failed = isinstance(getattr(worker, method)(*arguments), Failed)
        except Exception:
            sys.excepthook(*sys.exc_info())
            failed = True
        pipe.send(failed)


def _listen(pipe: Connection[Any, Any], commands: SimpleQueue[Any]) -> None:
    """Also while the other thread waits for a process that is gone."""
    try:
        while True:
            commands.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    follow(Connection(int(sys.argv[1])))
