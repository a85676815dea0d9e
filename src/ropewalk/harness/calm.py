"""Silence for lm-eval and what it brings along: their logs, bars and prints would drown ours."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from typing import Any

import datasets
import lm_eval.api.task
from tqdm import tqdm

from ropewalk.quiet import quiet_transformers

LOGGERS = ("lm_eval", "datasets", "evaluate", "huggingface_hub", "httpx", "rouge_score", "absl")


@contextmanager
def calm() -> Iterator[None]:
    """Inside the block nothing of theirs reaches a terminal; what matters of it is said by us, as errors or remarks."""
    with ExitStack() as stack:
        for name in LOGGERS:
            stack.enter_context(_mute(logging.getLogger(name)))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(quiet_transformers(warnings=True))
        stack.enter_context(_without_bars())
        stack.enter_context(redirect_stdout(io.StringIO()))  # some of it is printed
        yield


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
    library: Any = datasets
    task: Any = lm_eval.api.task
    shown, bar = not library.are_progress_bars_disabled(), task.tqdm
    library.disable_progress_bars()
    task.tqdm = partial(tqdm, disable=True)  # the one bar of lm-eval's that no argument turns off
    try:
        yield
    finally:
        task.tqdm = bar
        if shown:
            library.enable_progress_bars()
