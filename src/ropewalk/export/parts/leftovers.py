"""The folder that an export is written in before it appears, and what a killed export left of such a one.

Who writes holds a lock on its folder, which ends with the process: a folder without one is nobody's and is removed. The
parent is locked for the moment in which leftovers are looked for and the new folder is made.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ropewalk.cache import fresh_folder


@contextmanager
def writing_folder(out: Path) -> Iterator[Path]:
    """`fresh_folder`, which no other export takes for a leftover."""
    with ExitStack() as stack:
        with ExitStack() as moment:
            if out.parent.is_dir():
                moment.enter_context(_locked(out.parent, wait=True))
            folder = stack.enter_context(fresh_folder(out))
            stack.enter_context(_locked(folder, wait=False))
        yield folder


def clear_leftovers(out: Path) -> None:
    """Remove what killed exports to the same place left beside it."""
    leftovers = list(out.parent.glob(f".{glob.escape(out.name.removeprefix('.'))}.partial-*"))
    if not leftovers:
        return
    with _locked(out.parent, wait=True):
        for leftover in leftovers:
            with suppress(OSError), _locked(leftover, wait=False) as is_nobodys:
                if is_nobodys:
                    shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the lock of a folder was to be had; held until the block ends. Never where there are no such locks."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody else's, or a file system without locks
            yield False
        else:
            yield True
    finally:
        os.close(handle)
