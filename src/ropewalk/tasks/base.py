"""What every task gives: examples with the evidence at a known place, and the words that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from ropewalk.errors import DataError
from ropewalk.splits import Split

Kind = Literal["instruction", "distractor", "gold", "query"]


@dataclass(frozen=True)
class Piece:
    """A stretch of the prompt and what it is."""

    text: str
    kind: Kind


@dataclass(frozen=True)
class Example:
    """One prompt with its evidence at one place. The same record at another position is another example.

    id: stable and unique, "<record>@<gold_index>". record: the cluster of statistics; the same at every position.
    gold_index: 0-based place of the evidence. answers: accepted answers, the first is teacher-forced. opening and
    closing: what stands around the answer in the model's turn, so that its format is given and only the content is
    scored.
    """

    id: str
    record: str
    gold_index: int
    pieces: tuple[Piece, ...]
    answers: tuple[str, ...]
    opening: str = ""
    closing: str = ""

    @property
    def prompt(self) -> str:
        """The user's turn, as text."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True)
class TaskOptions:
    """What the command line and the Python caller can say of a task; a task refuses what it has no use for.

    positions: a count n (round(linspace(0, last, n))) or the 0-based gold positions themselves. limit: records, each
    at every position. data: a file of records; without one they are generated from the seed.
    """

    positions: int | tuple[int, ...] = 5
    keys: int | None = None
    data: Path | None = None
    limit: int | None = None
    seed: int = 0


class Task(Protocol):
    """A source of examples. A module in `ropewalk.tasks` names its class `TASK`; the registry finds it by file name."""

    name: ClassVar[str]
    positions: tuple[int, ...]

    def __init__(self, options: TaskOptions) -> None: ...

    def examples(self, split: Split) -> list[Example]:
        """All examples of a split, record by record, each record at every position in ascending order."""
        ...

    def settings(self) -> dict[str, object]:
        """What determines the examples, as JSON; two tasks of equal settings give equal prompts."""
        ...


def gold_positions(positions: int | Sequence[int], count: int) -> tuple[int, ...]:
    """The 0-based gold positions among `count` places, ascending; a count n means round(linspace(0, last, n))."""
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
