"""Ctrl-C: the first one lets a search finish what it is scoring, the second one stops at once, none is lost."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ropewalk.cli import console
from ropewalk.events import Evaluated, Event, OnEvent, Stage

SEARCH = "Search"  # the stage whose candidates are finished; all other stages stop at once


REPEAT_SECONDS = 0.01  # by then the finaliser has returned


@contextmanager
def never_lost() -> Iterator[None]:
    """For the length of the block, a Ctrl-C that falls into a finaliser comes again.

    Python prints what `__del__` raises and goes on, so the user's stop would be ignored.
    """
    usual = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(REPEAT_SECONDS, _thread.interrupt_main).start()  # the hook itself can't raise either
        else:
            usual(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = usual


class GracefulStop:
    """While it is entered, a first Ctrl-C in a search waits for the next candidate's record to be in the study.

    Wrap the event handler of the search in `watch`: that is where the stop becomes a KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.asked = False
        self._searching = self._said = False
        self._previous: Any = None

    def __enter__(self) -> GracefulStop:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def watch(self, on_event: OnEvent) -> OnEvent:
        """The same handler, which also ends the search where that was asked for and its records are safe."""

        def watched(event: Event) -> None:
            if isinstance(event, Stage):
                self._searching = event.name == SEARCH
            on_event(event)
            if self.asked and not self._said:
                self._said = True  # not in the signal handler: it may come in the middle of another line
                console.line("Stopping after the candidates that are being scored; Ctrl-C again stops at once.")
            if self.asked and (isinstance(event, Evaluated) or not self._searching):
                raise KeyboardInterrupt

        return watched

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self._searching:
            raise KeyboardInterrupt
        self.asked = True
