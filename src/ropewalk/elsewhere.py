"""A model whose weights are in other processes: here it has its config and its modules, and knows who holds the rest.

What would have to be computed with the weights is asked of its holders: who the model is, which layers are rotary, on
what it runs, and every score.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ropewalk.answers import Answers, Block, Questions
    from ropewalk.factors import ScalingFactors
    from ropewalk.verify import LayerReport

_ATTRIBUTE = "_ropewalk_elsewhere"


@dataclass(frozen=True)
class Facts:
    """What a holder says of the model it has. digest: of samples of all weights, and of the tokenizer."""

    identity: Mapping[str, Any]
    base: Mapping[str, Any]
    layers: tuple[LayerReport, ...]
    provenance: Mapping[str, Any]
    digest: str


class Job(Protocol):
    """Scores that were asked for and may not be there yet. seconds: of the run's time, once they are."""

    seconds: float

    def answers(self) -> list[Answers]:
        """One a candidate, as `LocalAnswers.answers` gives them; raises what scoring them raised."""
        ...


class Holders(Protocol):
    """The processes that hold the model."""

    facts: Facts

    def start(
        self,
        questions: Questions,
        blocks: Sequence[Block],
        candidates: Sequence[ScalingFactors | None],
        any_model: bool,
        report: Callable[[int], None],
    ) -> Job:
        """Ask for scores; `report` is told how many examples of a candidate were just done."""
        ...

    def wait(self, jobs: Collection[Job]) -> Job:
        """One of the jobs, as soon as it is done."""
        ...

    def reason(self, questions: Questions) -> str | None:
        """Why they use `model.forward` for these; None for the own layer loop. Final after the first answers."""
        ...


def hand_over(model: Any, holders: Holders) -> None:
    """Let a model without weights be one that the holders have."""
    vars(model)[_ATTRIBUTE] = holders


def holders_of(model: Any) -> Holders | None:
    """Who has the model's weights; None for a model that has them itself."""
    holders: Holders | None = vars(model).get(_ATTRIBUTE)
    return holders


class RemoteAnswers:
    """`LocalAnswers` of a model that is elsewhere."""

    def __init__(self, holders: Holders, questions: Questions) -> None:
        self.holders, self.questions = holders, questions

    @property
    def reason(self) -> str | None:
        """As of `LocalAnswers`."""
        return self.holders.reason(self.questions)

    def start(
        self,
        blocks: Sequence[Block],
        candidates: Sequence[ScalingFactors | None],
        any_model: bool,
        report: Callable[[int], None],
    ) -> Job:
        """Ask, without waiting for it."""
        return self.holders.start(self.questions, blocks, candidates, any_model, report)

    def answers(
        self,
        blocks: Sequence[Block],
        candidates: Sequence[ScalingFactors | None],
        any_model: bool,
        report: Callable[[int], None],
    ) -> list[Answers]:
        """As of `LocalAnswers`."""
        job = self.start(blocks, candidates, any_model, report)
        return self.holders.wait([job]).answers()
