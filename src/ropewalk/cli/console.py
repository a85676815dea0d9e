"""What the terminal shows while it works: progress with the time left, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY = 15.0  # seconds between progress lines where there is no terminal


def output() -> Console:
    """Standard output: results."""
    return Console(highlight=False, soft_wrap=False)


def errors() -> Console:
    """Standard error: progress and remarks."""
    return Console(stderr=True, highlight=False)


def line(text: str) -> None:
    """One plain line on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say what is being done while it takes: a spinner on a terminal, a line elsewhere."""
    console = errors()
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        line(what)
        yield


class StageProgress:
    """Elapsed and remaining time of the current stage: a bar on a terminal, a line now and then elsewhere.

    A subclass may show more below the bars (`extra`).
    """

    def __init__(self) -> None:
        self._console = errors()
        self._bar = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("prompts"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[remark]}"),
            console=self._console,
        )
        self._name, self._total, self._done, self._remark = "", 0, 0, ""
        self._started = self._last_line = time.monotonic()
        self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._screen)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def extra(self) -> Iterator[RenderableType]:
        """What stands below the bars on a terminal."""
        return iter(())

    def stage(self, name: str, prompts: int) -> None:
        """A stage of that many prompts begins; the one before is complete."""
        self._complete()
        self._name, self._total, self._done, self._remark = name, prompts, 0, ""
        self._started = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._bar.add_task(name, total=prompts, remark="")
        else:
            line(f"{name}: {prompts} prompts")

    def advance(self, prompts: int) -> None:
        """That many prompts were scored."""
        self._done += prompts
        if self._console.is_terminal:
            self._bar.advance(self._bar.task_ids[-1], prompts)
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            elapsed = self._last_line - self._started
            left = elapsed * max(0, self._total - self._done) / max(self._done, 1)
            text = f"{self._name}: {self._done}/{self._total} prompts, {elapsed:.0f} s, {left:.0f} s left{self._remark}"
            line(text)

    def spare(self, prompts: int) -> None:
        """That many prompts of the stage will not be scored."""
        self._total = max(self._done, self._total - prompts)
        if self._console.is_terminal:
            self._bar.update(self._bar.task_ids[-1], total=self._total)

    def remark(self, text: str) -> None:
        """A short word beside the bar, such as the best so far."""
        self._remark = f", {text}"
        if self._console.is_terminal and self._bar.task_ids:
            self._bar.update(self._bar.task_ids[-1], remark=text)

    @property
    def pace(self) -> float:
        """Prompts a second in this stage."""
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def _complete(self) -> None:
        if self._console.is_terminal and self._bar.task_ids:
            self._bar.update(self._bar.task_ids[-1], total=max(self._done, 1), completed=max(self._done, 1), remark="")

    def _screen(self) -> RenderableType:
        return Group(self._bar, *self.extra())


def follow(progress: StageProgress) -> Callable[[Any], None]:
    """An event handler for `ropewalk.run` that drives the progress display."""
    from ropewalk.events import Scored, Spared, Stage

    def on_event(event: Any) -> None:
        match event:
            case Stage(name, prompts):
                progress.stage(name, prompts)
            case Scored(prompts):
                progress.advance(prompts)
            case Spared(prompts):
                progress.spare(prompts)

    return on_event
