"""One process a directory: a file lock that says in one line who else is there, or why nothing can be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ropewalk.errors import StudyError


@contextmanager
def held(directory: Path, name: str, activity: str = "running this search") -> Iterator[None]:
    """Hold the lock `name` in a directory, which is made if need be, for this process alone.

    activity: what another process that holds it is doing, for the message. Raises `StudyError` if there is one, if the
    directory is a file or if it can't be written.
    """
    import filelock

    if directory.exists() and not directory.is_dir():
        raise StudyError(f"{directory}: is a file, expected a folder; use another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(directory / name, timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise StudyError(f"{directory}: another process is {activity}; wait for it, or use another --out") from None
    except OSError as error:
        raise StudyError(f"{directory}: can't be written ({error.strerror or error}); use another --out") from None
    try:
        yield
    finally:
        lock.release()
