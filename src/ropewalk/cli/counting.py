"""How far a loop has come, said on standard error once it takes longer than two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ropewalk.cli import console

PATIENCE = 2.0  # seconds without a word


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Gives a function of how many are done and of how many: a bar on a terminal, a line now and then elsewhere."""
    started = last_line = time.monotonic()
    stream = console.errors()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn(unit))
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=stream, transient=True)
    task = bar.add_task(what)

    def report(done: int, total: int | None) -> None:
        nonlocal last_line
        now = time.monotonic()
        if now - started < PATIENCE:
            return
        if console.is_live(stream):
            bar.start()
            bar.update(task, completed=done, total=total)
        elif last_line == started or now - last_line >= console.LINE_EVERY:
            last_line = now
            console.line(f"{what}: {_told(done, total, unit, now - started)}")

    try:
        yield report
    finally:
        if bar.live.is_started:  # stopping one that never started prints an empty line
            bar.stop()


def _told(done: int, total: int | None, unit: str, elapsed: float) -> str:
    """How far it is, and the time left where that can be known."""
    if total is None:
        return f"{done} {unit}, {elapsed:.0f} s"
    return f"{done}/{total} {unit}, {elapsed:.0f} s, {elapsed * max(0, total - done) / max(done, 1):.0f} s left"
