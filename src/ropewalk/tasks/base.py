"""What every task gives: examples with the evidence at a known place, and the words that describe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np

from ropewalk.errors import DataError
from ropewalk.splits import Split

Kind = Literal["instruction", "distractor", "gold", "query", "text"]
Options = TypeVar("Options")

DEFAULT_POSITIONS = 5


@dataclass(frozen=True)
class Piece:
    """A stretch of the prompt and what it is."""

    text: str
    kind: Kind


@dataclass(frozen=True)
class TokenSpan:
    """The scored tokens of a plain text that has no answer: a stretch of one window of it.

    region: the fractions of the text's tokens that may be used, so that splits are disjoint. window: tokens of a
    window. index, count: this is window `index` of `count`. stride: tokens from one window's start to the next one's;
    None spreads the windows evenly over the region. start, stop: the scored tokens, counted from the window's start.
    """

    region: tuple[float, float]
    window: int
    index: int
    count: int
    stride: int | None
    start: int
    stop: int


@dataclass(frozen=True)
class Example:
    """One prompt with its evidence at one place. The same record at another position is another example.

    id: stable and unique, "<record>@<gold_index>". record: the cluster of statistics; the same at every position.
    gold_index: 0-based place of the evidence. answers: accepted answers (aliases); the one that the model finds
    likeliest is teacher-forced. opening and closing: what stands around the answer in the model's turn, so that its
    format is given and only the content is scored. span: for a plain text in place of answers. group: a label by which
    results are broken down (a length, a file); one label a record.
    """

    id: str
    record: str
    gold_index: int
    pieces: tuple[Piece, ...]
    answers: tuple[str, ...]
    opening: str = ""
    closing: str = ""
    span: TokenSpan | None = None
    group: str = ""

    @property
    def prompt(self) -> str:
        """The user's turn, as text."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True)
class Metric:
    """How an answer counts.

    name: as results call it. generated: results report it from real greedy generation; if False, the verdict is the
    teacher-forced one and `score` is used only where generation is asked for. score: (generated text, answers) -> a
    number in [0, 1]; None where nothing can be generated. max_new_tokens: budget of an answer. stop: generation ends
    at the first of these texts (and at the end of the turn, always). graded: scores lie between 0 and 1 too. by_choice:
    the first answer is right and the others are wrong, and the model's is the one that it finds likeliest a token.
    """

    name: str
    generated: bool
    score: Callable[[str, Sequence[str]], float] | None
    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    graded: bool = False
    by_choice: bool = False


@dataclass(frozen=True)
class TaskOptions:
    """What the command line and the Python caller can say of a task; a task refuses what it has no use for.

    positions: a count n (round(linspace(0, last, n))) or the 0-based gold positions themselves; None is the task's own
    choice. keys: for kv. limit: records, each at every position. data: a file of records, also hf://datasets/OWNER/
    NAME/FILE; without one they are generated from the seed. options: the task's own (`Task.OPTIONS`), by name; numbers
    may be given as text.
    """

    positions: int | tuple[int, ...] | None = None
    keys: int | None = None
    data: str | Path | None = None
    limit: int | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A source of examples. A module in `ropewalk.tasks` names its class `TASK`; the registry finds it by file name.

    OPTIONS: a frozen dataclass of the task's own options, each field made by `option`. metric: how an answer counts.
    """

    name: ClassVar[str]
    OPTIONS: ClassVar[type]
    positions: tuple[int, ...]
    metric: Metric

    def __init__(self, options: TaskOptions) -> None: ...

    def examples(self, split: Split) -> list[Example]:
        """All examples of a split, record by record, each record at every position in ascending order."""
        ...

    def settings(self) -> dict[str, object]:
        """What determines the examples, as JSON; two tasks of equal settings give equal prompts."""
        ...

    def short(self) -> Task | None:
        """The same kind of question in a short context, to see what factors cost there; None if there is no such."""
        ...


def check_options(options: TaskOptions, task: str, *unused: str) -> None:
    """`DataError` if one of the fields named in `unused` was given all the same, or the limit is below one record."""
    for name in unused:
        if getattr(options, name) is not None:
            raise DataError(f"task {task} has no use for --{name} ({getattr(options, name)} was given); leave it out")
    if options.limit is not None and options.limit < 1:
        raise DataError(f"limit is {options.limit} records, expected at least 1")


def gold_positions(positions: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The 0-based gold positions among `count` places, ascending; a count n means round(linspace(0, last, n)).

    None: five, or as many as there are places.
    """
    if positions is None:
        positions = min(DEFAULT_POSITIONS, count)
    if isinstance(positions, int):
        if not 1 <= positions <= count:
            raise DataError(f"{positions} positions among {count} places: expected 1 to {count}")
        return tuple(int(place) for place in np.round(np.linspace(0, count - 1, positions)))
    chosen = tuple(positions)
    if not chosen or list(chosen) != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] >= count:
        raise DataError(
            f"positions {list(chosen)}: expected different ascending 0-based places from 0 to {count - 1} "
            f"(there are {count} places)"
        )
    return chosen
