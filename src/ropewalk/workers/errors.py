"""What goes wrong with workers and is not the user's doing."""

from __future__ import annotations


class WorkerError(RuntimeError):
    """Workers can't do their work; the message has the traceback or the words of the system."""


class ScoringError(RuntimeError):
    """What a worker raised while it scored. found_elsewhere: the traceback there."""

    def __init__(self, found_elsewhere: str) -> None:
        super().__init__(found_elsewhere.strip().splitlines()[-1])
        self.found_elsewhere = found_elsewhere
