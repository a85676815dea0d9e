"""Silence for the parts of transformers that talk: progress bars always, warnings only where they are known noise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging as transformers_logging


@contextmanager
def quiet_transformers(*, warnings: bool = False) -> Iterator[None]:
    """Hide transformers' progress bars inside the block; with `warnings=True` its logged warnings too."""
    logging: Any = transformers_logging  # partly untyped
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    if warnings:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def without_load_report() -> Iterator[None]:
    """Keep back transformers' table of weights: its callers say the same in a line, or as an error."""

    def keep(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    loggers = [logging.getLogger(f"transformers.{name}") for name in ("modeling_utils", "integrations.peft")]
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(keep)
