"""Pieces of work: what is asked of a worker at a time, and the job whose answers they make together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ropewalk.answers import Answers, Block
from ropewalk.factors import ScalingFactors
from ropewalk.workers.errors import ScoringError
from ropewalk.workers.worker import Done, Failed

if TYPE_CHECKING:
    from ropewalk.workers.crew import Member


@dataclass(eq=False)
class PoolJob:
    """Candidates on all blocks of some questions; its answers are put together by the number of the block.

    key: of the questions. seconds: of the run's time, those of all jobs add up to it. found: by block.
    """

    key: int
    blocks: Sequence[Block]
    candidates: Sequence[ScalingFactors | None]
    any_model: bool
    report: Callable[[int], None]
    seconds: float = 0.0
    found: dict[int, Done | Failed] = field(default_factory=dict)
    is_cancelled: bool = False

    @property
    def is_done(self) -> bool:
        """Whether all blocks are answered, or it was cancelled."""
        return len(self.found) == len(self.blocks)

    def units(self) -> list[Unit]:
        """The work that it takes."""
        return [Unit(self, number) for number in range(len(self.blocks))]

    def answers(self) -> list[Answers]:
        """One a candidate. Raises what the first block that failed raised."""
        parts: list[list[Answers]] = []
        for number in range(len(self.blocks)):
            found = self.found[number]
            if isinstance(found, Failed):
                raise _raised(found)
            parts.append(found.answers)
        return [Answers.joined(own) for own in zip(*parts, strict=True)]

    def cancel(self) -> None:
        """Nobody waits for it any more: what has not begun is not done."""
        self.is_cancelled = True


@dataclass(eq=False)
class Unit:
    """One block of a job. lost: workers that it was lost with. failed_on: who raised an error on it, if one did."""

    job: PoolJob
    number: int
    lost: int = 0
    failed_on: Member | None = None

    @property
    def block(self) -> Block:
        """The examples."""
        return self.job.blocks[self.number]


def _raised(failed: Failed) -> Exception:
    if failed.error is None:
        return ScoringError(failed.text)
    vars(failed.error)["found_elsewhere"] = failed.text
    return failed.error
