"""The command line as it was given, for the record of what made a result."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextvars import ContextVar

_GIVEN: ContextVar[tuple[str, ...]] = ContextVar("given", default=())


def remember(arguments: Sequence[str]) -> None:
    """Keep the arguments of the command that begins."""
    _GIVEN.set(tuple(arguments))


def command() -> str | None:
    """The command that runs, ready for a shell; None where Python code was called without one."""
    given = _GIVEN.get()
    return shlex.join(["ropewalk", *given]) if given else None
