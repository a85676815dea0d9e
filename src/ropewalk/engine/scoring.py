"""Teacher forcing: verdict and log-likelihood of an answer from the statistics of its places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropewalk.engine.head import TokenStats
from ropewalk.prompts import RenderedPrompt


@dataclass(frozen=True)
class AnswerScore:
    """Teacher-forced score of one answer.

    verdict: greedy decoding would give exactly these tokens and then the terminator. log_likelihood: mean natural
    log-probability per answer token (NaN if the model gave NaN). margin: smallest gap between the best two logits over
    the scored steps: how near the verdict was to turning. tokens: answer tokens. matches: those that are the most
    likely ones.
    """

    verdict: bool
    log_likelihood: float
    margin: float
    tokens: int
    matches: int


@dataclass(frozen=True)
class HostStats:
    """`TokenStats` on the host, float64 where they are real."""

    greedy: NDArray[np.int64]
    margin: NDArray[np.float64]
    log_probability: NDArray[np.float64]

    @classmethod
    def of(cls, stats: TokenStats) -> HostStats:
        """One transfer a tensor."""
        return cls(
            stats.greedy.cpu().numpy(),
            stats.margin.double().cpu().numpy(),
            stats.log_probability.double().cpu().numpy(),
        )

    def split(self, size: int) -> list[HostStats]:
        """Parts of `size` places each."""
        starts = range(0, len(self.greedy), size)
        parts = [slice(start, start + size) for start in starts]
        return [HostStats(self.greedy[part], self.margin[part], self.log_probability[part]) for part in parts]


def targets(prompt: RenderedPrompt) -> tuple[int, ...]:
    """The token asked for at each scored place; at the one behind the answer, if it is looked at, any will do."""
    return (*prompt.ids[prompt.first :], *((0,) if prompt.terminator else ()))


def answer_score(prompt: RenderedPrompt, stats: HostStats, places: slice, terminators: Sequence[int]) -> AnswerScore:
    """The score of one prompt whose scored places are `places` of `stats`."""
    count = prompt.num_scored
    greedy, chosen = stats.greedy[places], stats.log_probability[places][:count]
    matches = int((greedy[:count] == np.asarray(prompt.ids[prompt.first :])).sum())
    ends = int(greedy[count]) in terminators if prompt.terminator else True
    return AnswerScore(
        verdict=matches == count and ends and bool(np.isfinite(chosen).all()),
        log_likelihood=float(chosen.mean()),
        margin=float(stats.margin[places].min()),
        tokens=count,
        matches=matches,
    )
