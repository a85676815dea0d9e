"""What the search maximises. Higher is better, always.

Context utilisation (arXiv 2503.04355, equation 6), for accuracies A at the gold positions:
U = (λ_f·A_first + λ_m·A_middle + λ_l·A_last) / (λ_f + λ_m + λ_l), A_middle the mean over the inner positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ropewalk.errors import RopewalkError

Measure = Literal["likelihood", "accuracy"]
DEFAULT_WEIGHTS = (0.8, 1.0, 1.2)


def position_weights(positions: int, weights: Sequence[float] = DEFAULT_WEIGHTS) -> NDArray[np.float64]:
    """Weight of each of `positions` gold positions, [positions], summing to 1.

    weights: (first, middle, last), the middle one shared by the inner positions, or one weight a position. With two
    positions there is no middle, with one there is nothing to weigh.
    """
    given = np.asarray(weights, dtype=np.float64)
    if given.ndim != 1 or not np.isfinite(given).all() or (given < 0).any():
        raise RopewalkError(f"weights {list(weights)}: expected numbers >= 0")
    if len(given) == positions:
        spread = given
    elif len(given) != 3:
        raise RopewalkError(
            f"{len(given)} weights for {positions} positions: give 3 (first, middle, last) or {positions}"
        )
    elif positions == 1:
        spread = np.ones(1)
    else:
        first, middle, last = given
        inner = positions - 2
        spread = np.array([first, *([middle / inner] * inner if inner else []), last])
    if spread.sum() == 0:
        raise RopewalkError(f"weights {list(weights)}: at least one must be > 0")
    return np.asarray(spread / spread.sum())


def utilisation(accuracy: ArrayLike, weights: Sequence[float] = DEFAULT_WEIGHTS) -> NDArray[np.float64]:
    """U of accuracies [..., positions] -> [...]. Linear, so it may be given likelihoods as well."""
    values = np.asarray(accuracy, dtype=np.float64)
    return np.asarray(values @ position_weights(values.shape[-1], weights))


@dataclass(frozen=True)
class Utilisation:
    """The objective U over one of two measures.

    measure "likelihood": mean log-probability per answer token minus vanilla's on the same prompt, so vanilla scores
    0 and the unit is nats a token. measure "accuracy": the mean of the task's metric, in [0, 1].
    """

    measure: Measure = "likelihood"
    weights: tuple[float, ...] = DEFAULT_WEIGHTS

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise RopewalkError(f"no measure {self.measure!r}, expected one of: {', '.join(get_args(Measure))}")
        position_weights(len(self.weights), self.weights)

    def fitness(
        self, scores: NDArray[np.float64], log_likelihoods: NDArray[np.float64], vanilla: NDArray[np.float64]
    ) -> float:
        """Fitness of one candidate from arrays [records, positions]; `vanilla` holds vanilla's log-likelihoods.

        NaN if a log-likelihood is not finite, whatever the measure: such a candidate has failed, and failed ones rank
        last. Vanilla's must be finite too where they are subtracted.
        """
        if not np.isfinite(log_likelihoods).all() or (self.measure == "likelihood" and not np.isfinite(vanilla).all()):
            return float("nan")
        measured = log_likelihoods - vanilla if self.measure == "likelihood" else scores
        return float(utilisation(measured.mean(axis=0), self.weights))
