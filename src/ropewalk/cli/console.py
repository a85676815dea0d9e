"""What the terminal shows: results on standard output; while it works, progress with the time left on standard error.

Colours and moving bars only on a terminal, and not where NO_COLOR is set; elsewhere plain lines.
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY = 15.0  # seconds between progress lines where there is no terminal


@dataclass(frozen=True)
class Voice:
    """What the command may say. quiet: results alone. figures_only: standard output belongs to the JSON figures."""

    quiet: bool = False
    figures_only: bool = False


USUAL = Voice()
_VOICE: ContextVar[Voice] = ContextVar("voice", default=USUAL)


@contextmanager
def speaking(voice: Voice) -> Iterator[None]:
    """Inside the block the command speaks with this voice."""
    token = _VOICE.set(voice)
    try:
        yield
    finally:
        _VOICE.reset(token)


def output() -> Console:
    """Standard output: results."""
    return _console(silent=_VOICE.get().figures_only)


def errors() -> Console:
    """Standard error: progress and remarks."""
    return _console(stderr=True, silent=_VOICE.get().quiet)


def line(text: str) -> None:
    """One plain line on standard error."""
    if not _VOICE.get().quiet:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def say(text: str | Text, style: str | None = None) -> None:
    """Sentences on standard output, wrapped between words: a path that is longer than a line stays whole.

    A `Text` has one style from end to end; in a str brackets are brackets. An empty one is no line.
    """
    plain, whole_style = (text.plain, str(text.style)) if isinstance(text, Text) else (text, style)
    console = output()
    lines = textwrap.wrap(plain, console.width, break_long_words=False, break_on_hyphens=False)
    if lines:
        console.print("\n".join(lines), style=whole_style, markup=False, soft_wrap=True)


def write(text: str) -> None:
    """A result on standard output, letter by letter as it is."""
    if not _VOICE.get().figures_only:
        sys.stdout.write(text)


def is_live(console: Console) -> bool:
    """Whether a bar can move there."""
    return console.is_terminal and not console.is_dumb_terminal and not console.quiet


def _console(*, stderr: bool = False, silent: bool = False) -> Console:
    if os.environ.get("NO_COLOR"):  # no colours, and no control characters either: bold is one
        return Console(stderr=stderr, quiet=silent, highlight=False, force_terminal=False, color_system=None)
    return Console(stderr=stderr, quiet=silent, highlight=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say what is being done while it takes: a spinner with the time so far on a terminal, a line elsewhere."""
    console = errors()
    if not is_live(console):
        line(what)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield


class StageProgress:
    """Elapsed and remaining time of the current stage: a bar on a terminal, a line now and then elsewhere.

    A subclass may show more below the bars (`extra`).
    """

    def __init__(self) -> None:
        self._console = errors()
        self._is_live = is_live(self._console)
        self._bar = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("prompts"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
        )
        self._name, self._total, self._done, self._remark = "", 0, 0, ""
        self._started = self._last_line = time.monotonic()
        self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._screen)

    def __enter__(self) -> Self:
        if self._is_live:
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
        if self._is_live:
            self._bar.add_task(name, total=prompts)
        else:
            line(f"{name}: {prompts} prompts")

    def advance(self, prompts: int) -> None:
        """That many prompts were scored."""
        self._done += prompts
        if self._is_live:
            self._bar.advance(self._bar.task_ids[-1], prompts)
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            elapsed = self._last_line - self._started
            left = elapsed * max(0, self._total - self._done) / max(self._done, 1)
            text = f"{self._name}: {self._done}/{self._total} prompts, {elapsed:.0f} s, {left:.0f} s left"
            line(f"{text}, {self._remark}" if self._remark else text)

    def spare(self, prompts: int) -> None:
        """That many prompts of the stage will not be scored."""
        self._total = max(self._done, self._total - prompts)
        if self._is_live:
            self._bar.update(self._bar.task_ids[-1], total=self._total)

    def remark(self, text: str) -> None:
        """Some words on the stage, such as the best so far: below the bars, for beside them there is no room."""
        self._remark = text

    @property
    def pace(self) -> float:
        """Prompts a second in this stage."""
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def _complete(self) -> None:
        if self._is_live and self._bar.task_ids:
            self._bar.update(self._bar.task_ids[-1], total=max(self._done, 1), completed=max(self._done, 1))

    def _screen(self) -> RenderableType:
        remark = [Text(f"{'':<11}{self._remark}", style="dim")] if self._remark else []
        return Group(self._bar, *remark, *self.extra())


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
