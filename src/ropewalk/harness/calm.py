"""Silence for lm-eval and what it brings along: their logs, bars and prints would drown ours."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partialmethod
from typing import Any

from tqdm import tqdm

from ropewalk.quiet import quiet_transformers

LOGGERS = ("lm_eval", "datasets", "evaluate", "huggingface_hub", "httpx", "rouge_score", "absl")


@contextmanager
def calm(*, errors: bool = False) -> Iterator[None]:
    """Inside the block nothing of theirs reaches a terminal; what matters of it is said by us, as errors or remarks.

    errors: keep back what is written to standard error, too, all but our spinner.
    """
    with ExitStack() as stack:
        for name in LOGGERS:
            stack.enter_context(_mute(logging.getLogger(name)))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(quiet_transformers(warnings=True))
        stack.enter_context(_without_bars())
        stack.enter_context(redirect_stdout(io.StringIO()))  # some of it is printed
        if errors:
            stack.enter_context(redirect_stderr(_Sink()))
        yield


class _Sink(io.StringIO):
    """Takes what is written, but rich sees the stream behind it: its displays go on."""

    def __init__(self) -> None:
        super().__init__()
        self.rich_proxied_file = getattr(sys.stderr, "rich_proxied_file", sys.stderr)


@contextmanager
def _mute(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Tasks, data sets and the hub all draw theirs with tqdm, and few of them ask whether they should."""
    bar: Any = tqdm
    start = bar.__init__
    bar.__init__ = partialmethod(start, disable=True)
    try:
        yield
    finally:
        bar.__init__ = start
