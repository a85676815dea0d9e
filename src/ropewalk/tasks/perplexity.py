"""Negative log-likelihood of long texts, by the distance from the window's start or in a sliding window.

Without a stride, windows are spread evenly over a text and each is cut into buckets: position p is the bucket that
begins p tokens after the window's start, so that the result is a curve over the length of the context. With a stride,
a window begins every `stride` tokens and only its last `stride` tokens count, each of them with at least `window` -
`stride` tokens before it: the sliding window of the literature (Press et al., arXiv 2012.15832, section 2).

Results hold the mean log-likelihood a token; perplexity is the exponential of its negative. A text belongs to all
splits: its first 40 % of tokens are for the search, the next 20 % for validation, the rest for the test.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from ropewalk.errors import DataError
from ropewalk.long_texts import LongText, long_texts, text_sources
from ropewalk.options import option, parse_options
from ropewalk.splits import Split, check_split, region_of
from ropewalk.tasks.base import (
    DEFAULT_POSITIONS,
    Example,
    Metric,
    Piece,
    TaskOptions,
    TokenSpan,
    check_options,
    gold_positions,
)

DEFAULT_LIMIT = 16

NEXT_TOKEN_ACCURACY = Metric("next_token_accuracy", generated=False, score=None, graded=True)


@dataclass(frozen=True)
class Options:
    """The task's own options."""

    window: int = option(2048, "Tokens of a window, without the BOS.")
    stride: int | None = option(
        None, "Tokens from one window to the next; only so many at each window's end count. Default: spread windows."
    )


class Perplexity:
    """The task `perplexity`. data: text files, comma-separated, or a folder of .txt and .txt.gz; also hf://datasets/…

    limit: windows a file. positions: bucket starts in tokens, or how many equal buckets; one position with a stride.
    """

    name: ClassVar[str] = "perplexity"
    OPTIONS: ClassVar[type] = Options
    metric = NEXT_TOKEN_ACCURACY

    def __init__(self, options: TaskOptions) -> None:
        check_options(options, self.name, "keys")
        self.own = parse_options(Options, f"task {self.name}", options.options)
        self.limit = DEFAULT_LIMIT if options.limit is None else options.limit
        _check(self.own)
        self.positions = _positions(options.positions, self.own)
        if options.data is None:
            raise DataError("task perplexity needs --data: a text file, several with commas between, or a folder")
        self.sources = text_sources(str(options.data))

    def settings(self) -> dict[str, object]:
        """What determines the examples; files count by the digest of their content, not by their names."""
        return {
            "task": self.name,
            "positions": list(self.positions),
            "limit": self.limit,
            "data": [{"sha256": text.sha256} for text in long_texts(self.sources)],
            "options": dataclasses.asdict(self.own),
        }

    def examples(self, split: Split) -> list[Example]:
        """The windows of each file in the split's part of the text, each with every bucket."""
        check_split(split)
        return [
            self._example(text, split, index, place)
            for text in long_texts(self.sources)
            for index in range(self.limit)
            for place in range(len(self.positions))
        ]

    def short(self) -> None:
        """There is no such: a short window is the first bucket of a long one."""
        return

    def _example(self, text: LongText, split: Split, index: int, place: int) -> Example:
        start = self.positions[place]
        stop = self.positions[place + 1] if place + 1 < len(self.positions) else self.own.window
        record = f"{text.label}-{split}-{index}"
        span = TokenSpan(region_of(split), self.own.window, index, self.limit, self.own.stride, start, stop)
        piece = Piece(text.text, "text")
        return Example(f"{record}@{start}", record, start, (piece,), (), span=span, group=text.label)


TASK = Perplexity


def _check(own: Options) -> None:
    if not isinstance(own.window, int) or own.window < 2:
        raise DataError(f"perplexity: option 'window' is {own.window}, expected a whole number of at least 2 tokens")
    if own.stride is not None and (not isinstance(own.stride, int) or not 1 <= own.stride <= own.window):
        raise DataError(f"perplexity: option 'stride' is {own.stride}, expected 1 to {own.window} (the window) tokens")


def _positions(given: int | tuple[int, ...] | None, own: Options) -> tuple[int, ...]:
    """The starts of the buckets, in tokens from the window's start."""
    if own.stride is not None:
        only = own.window - own.stride
        if given not in (None, 1, (only,)):
            raise DataError(f"perplexity with a stride has one position, {only}, but {given} was given; leave it out")
        return (only,)
    given = min(DEFAULT_POSITIONS, own.window) if given is None else given
    if isinstance(given, int):
        if not 1 <= given <= own.window:
            raise DataError(f"{given} positions in a window of {own.window} tokens: expected 1 to {own.window}")
        return tuple(own.window * index // given for index in range(given))
    return gold_positions(given, own.window)
