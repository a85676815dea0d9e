"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ropewalk.constraints import Scores
from ropewalk.study import CandidateRecord


@dataclass(frozen=True)
class Stage:
    """A stage begins: its name and the prompts it will score."""

    name: str
    prompts: int


@dataclass(frozen=True)
class Scored:
    """That many prompts were scored."""

    prompts: int


@dataclass(frozen=True)
class Spared:
    """That many prompts of the stage will not be scored: a candidate is known already, or was stopped early."""

    prompts: int


@dataclass(frozen=True)
class Baseline:
    """What vanilla scores on each task's search records is known; `found` has one entry a task."""

    found: tuple[Scores, ...]


@dataclass(frozen=True)
class Evaluated:
    """A candidate of the search was evaluated; `best` is the best fitness so far."""

    record: CandidateRecord
    best: float


Event = Stage | Scored | Spared | Baseline | Evaluated
OnEvent = Callable[[Event], None]
