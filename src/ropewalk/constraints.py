"""What a candidate scored, and what it must not lose while it gains: no position below vanilla, no short text worse.

A constraint that is missed costs fitness in proportion to how far it is missed. Such a penalty ranks two candidates
that both miss it, where a plain refusal would leave a search without a direction.

A loss counts only as far as it is beyond the noise of the records it was measured on. A penalty looks at the positive
part of a loss, at every position and times a weight, so of noise alone it would be large and drown every gain. What is
held against the limit is therefore the lower end of the loss's one-sided interval at `LEVEL` (Student's t over
records): a candidate that loses nothing is penalised at a position in about 5 % of all cases. One record says nothing
of noise and never violates a constraint; neither does a loss that only more records could tell from noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ropewalk.errors import DataError, RopewalkError

Array = NDArray[np.float64]
Measure = Literal["likelihood", "accuracy"]
UNITS: dict[Measure, str] = {"likelihood": "nats a token", "accuracy": "accuracy"}

LEVEL = 0.05  # one-sided: how often noise alone may violate a constraint

SHORT_TEXT = "short-text perplexity"
_LARGEST_LOG_RATIO = 20.0  # e^20 times vanilla's is ruin: beyond it a difference of two rises is lost in rounding


@dataclass(frozen=True)
class Scores:
    """What a candidate scored on one task, [records, positions]; records and positions are those of its rivals too.

    scores: the metric, in [0, 1]. log_likelihoods: mean nats per answer token; one that is not finite means that the
    candidate has failed. positions: the 0-based gold positions, to name them by; without them they are 0, 1, ….
    """

    scores: Array
    log_likelihoods: Array
    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        shape = np.shape(self.scores)
        if len(shape) != 2 or 0 in shape or np.shape(self.log_likelihoods) != shape:
            raise DataError(
                f"scores {shape} and log-likelihoods {np.shape(self.log_likelihoods)}: expected the same "
                "[records, positions], at least one of each"
            )
        if self.positions and len(set(self.positions)) != shape[1]:
            raise DataError(f"gold positions {list(self.positions)}: expected {shape[1]}, one a column, all different")
        if (self.scores < 0).any() or (self.scores > 1).any():
            raise DataError(
                f"scores from {np.nanmin(self.scores):g} to {np.nanmax(self.scores):g}: expected a metric in [0, 1]"
            )

    @property
    def finite(self) -> bool:
        """Whether every number is finite: else the candidate has failed, whatever is measured."""
        return bool(np.isfinite(self.log_likelihoods).all() and np.isfinite(self.scores).all())

    def measured(self, measure: Measure) -> Array:
        """What `measure` looks at, [records, positions]."""
        return self.log_likelihoods if measure == "likelihood" else self.scores

    def rows(self, rows: Sequence[int] | NDArray[np.int64] | slice) -> Self:
        """Some records, by index and in the order given."""
        index = rows if isinstance(rows, slice) else np.asarray(rows, dtype=np.int64)
        return type(self)(self.scores[index], self.log_likelihoods[index], self.positions)


def check_paired(what: str, *given: Scores) -> None:
    """Raise ValueError unless all are of as many records and of the same positions: what is compared is paired."""
    shapes = [scores.scores.shape for scores in given]
    if len(set(shapes)) > 1:
        raise ValueError(f"scores of {what} {' and '.join(map(str, shapes))}: expected the same records and positions")
    if len({scores.positions for scores in given if scores.positions}) > 1:
        raise ValueError(f"scores of {what} at {' and '.join(str(scores.positions) for scores in given)}: not paired")


@dataclass(frozen=True)
class Check:
    """How one candidate meets one constraint: `value` must not exceed `limit` by more than `margin`, all in `unit`.

    value: as measured. margin: how much of it may be noise, see `noise_of_means`; infinite where nothing can be said.
    cost: fitness lost for each unit beyond limit and margin.
    """

    name: str
    unit: str
    limit: float
    value: float
    cost: float
    margin: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the constraint is met; never for a value that is not finite, for then a likelihood wasn't."""
        return math.isfinite(self.value) and self.value - self.margin <= self.limit

    @property
    def penalty(self) -> float:
        """Fitness lost: 0 if the constraint holds, else > 0 or NaN."""
        return 0.0 if self.holds else self.cost * (self.value - self.margin - self.limit)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; value and margin are None where they are not finite numbers."""
        value, margin = (number if math.isfinite(number) else None for number in (self.value, self.margin))
        told = {"name": self.name, "unit": self.unit, "limit": self.limit, "value": value, "margin": margin}
        return {**told, "holds": self.holds}


def noise_of_means(losses: Array) -> Array:
    """How far means over records may exceed 0 by noise, for losses [records, columns] -> [columns].

    Student's t quantile (one-sided, `LEVEL`, records - 1 degrees of freedom) times the standard error over records;
    infinite for a single record, which has no standard error. 0 where all records lose the same: so 2 to 4 records of a
    0/1 metric can exceed the level, when all of them happen to change alike.
    """
    records, columns = losses.shape
    if records < 2:
        return np.full(columns, math.inf)
    from scipy.special import stdtrit  # here, for the objectives are read where scipy must not be loaded

    with np.errstate(invalid="ignore"):  # a failed candidate's likelihoods
        error = losses.std(axis=0, ddof=1) / math.sqrt(records)
    return np.asarray(float(stdtrit(records - 1, 1 - LEVEL)) * error)


@dataclass(frozen=True)
class PositionFloor:
    """No gold position falls below vanilla by more than epsilon and what may be noise.

    epsilon: in the unit of a task's measure, nats a token or accuracy; in a mix the same number for every task.
    weight: what a loss beyond both at one position costs, as a multiple of that loss, whatever a task's share of a
    mix. At the default of 10 it pays only where the weighted mean of all positions rises by ten times as much.
    """

    epsilon: float = 0.0
    weight: float = 10.0

    def __post_init__(self) -> None:
        _check_number("epsilon", self.epsilon, "what a position may lose, in nats a token or accuracy", zero=True)
        _check_number("the position floor's weight", self.weight, "what each unit below the floor costs")

    def checks(self, found: Scores, vanilla: Scores, measure: Measure, task: str = "", scale: float = 1) -> list[Check]:
        """One a position, named "position @4 of kv": its value is vanilla's mean over records minus the candidate's.

        Its margin is the noise of that mean of paired losses. scale: the unit of fitness, in that of the measure;
        limit, value and margin are not divided by it.
        """
        losses = vanilla.measured(measure) - found.measured(measure)
        positions = vanilla.positions or range(losses.shape[1])
        names = [f"position @{position} of {task}" if task else f"position @{position}" for position in positions]
        unit, cost = f"{UNITS[measure]} below vanilla", self.weight / scale
        return [
            Check(name, unit, self.epsilon, float(loss), cost, float(noise))
            for name, loss, noise in zip(names, losses.mean(axis=0), noise_of_means(losses), strict=True)
        ]


@dataclass(frozen=True)
class ShortTextLimit:
    """The perplexity of short texts rises by at most `percent` of vanilla's and what may be noise.

    weight: fitness lost as a multiple of the ratio of perplexities beyond both. At the default of 100 each per
    cent too much costs 1: a nat a token, the whole range of an accuracy or, in a mix, one spread of vanilla's.
    """

    percent: float = 1.0
    weight: float = 100.0

    def __post_init__(self) -> None:
        _check_number("percent", self.percent, "how much short-text perplexity may rise", zero=True)
        _check_number("the short-text limit's weight", self.weight, "what a perplexity ratio 1 too large costs")

    def check(self, found: Scores, vanilla: Scores) -> Check:
        """Of the same short texts, each of which counts the same, whatever its length; a record is one text.

        Its value is the rise in per cent, 100·(exp(mean NLL found − mean NLL vanilla) − 1), negative for a fall. Its
        margin is from there down to the rise at the lower end of the mean's one-sided interval over texts, so that the
        test is one of the log ratio, which unlike the ratio is a mean.
        """
        # NLL is minus the log-likelihood; where one text has several positions, they are not independent
        log_ratios = (vanilla.log_likelihoods - found.log_likelihoods).mean(axis=1, keepdims=True)
        mean, noise = float(log_ratios.mean()), float(noise_of_means(log_ratios)[0])
        margin = math.inf if math.isinf(noise) else _rise(mean) - _rise(mean - noise)
        return Check(SHORT_TEXT, "% above vanilla", self.percent, _rise(mean), self.weight / 100, margin)


def _rise(log_ratio: float) -> float:
    """Per cent by which a ratio is above 1, from its logarithm; NaN if that is not finite."""
    return 100 * math.expm1(min(log_ratio, _LARGEST_LOG_RATIO)) if math.isfinite(log_ratio) else math.nan


def _check_number(name: str, value: float, meaning: str, *, zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise RopewalkError(
            f"{name} {value}: expected a finite number {'>=' if zero else '>'} 0, {meaning}; "
            "to turn the constraint off, leave it out"
        )
