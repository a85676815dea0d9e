"""A worker of two processes on this machine's cores, as one with two GPUs is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ropewalk.workers import ModelSource, Worker


def pair(source: ModelSource, threads: int | None) -> Worker:
    return Worker(replace(source, ranks=2), threads)


def followers() -> list[int]:
    """Process ids of those that are led by others."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"ropewalk.workers.ranks" in command:
            found.append(int(folder.name))
    return found
