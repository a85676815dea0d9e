"""What the search maximises. Higher is better, always.

Context utilisation (arXiv 2503.04355, equation 6), for accuracies A at the gold positions:
U = (λ_f·A_first + λ_m·A_middle + λ_l·A_last) / (λ_f + λ_m + λ_l), A_middle the mean over the inner positions.

An `Objective` is U, the plain mean or the worst position of one task, or a mix of several tasks, less the penalties of
constraints that don't hold:

    objective = Objective((Part(name="kv"), Part("accuracy", "worst", name="mdqa")), floor=PositionFloor(0.05))
    scales = objective.scales(vanilla)  # once, from all of vanilla's scores
    fitness = objective.fitness(found, vanilla, scales)  # .value = .gain - sum(.penalties.values())
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ropewalk.constraints import Array, Check, Measure, PositionFloor, Scores, ShortTextLimit, check_paired
from ropewalk.errors import RopewalkError

__all__ = [
    "DEFAULT_WEIGHTS",
    "Fitness",
    "Kind",
    "Measure",
    "Objective",
    "Part",
    "PositionFloor",
    "Scores",
    "ShortTextLimit",
    "position_weights",
    "utilisation",
]

Kind = Literal["utilisation", "mean", "worst"]
DEFAULT_WEIGHTS = (0.8, 1.0, 1.2)


def _check_choice(what: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise RopewalkError(f"no {what} {given!r}, expected one of: {', '.join(choices)}")


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
class Part:
    """What one task contributes.

    measure "likelihood": mean log-likelihood per answer token minus vanilla's on the same prompts, so vanilla's value
    is 0 and the unit is nats a token. measure "accuracy": the task's metric as it is, in [0, 1].
    kind "utilisation": U with `weights`, see `position_weights`. "mean": every position alike. "worst": the lowest mean
    over records of any position; by likelihood that of the candidate minus that of vanilla, which may be at different
    positions. share: its weight in a mix of tasks. name: the task, as messages and penalties call it.
    """

    measure: Measure = "likelihood"
    kind: Kind = "utilisation"
    weights: tuple[float, ...] = DEFAULT_WEIGHTS
    share: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        _check_choice("measure", self.measure, get_args(Measure))
        _check_choice("kind", self.kind, get_args(Kind))
        position_weights(len(self.weights), self.weights)
        if self.kind != "utilisation" and self.weights != DEFAULT_WEIGHTS:
            raise RopewalkError(
                f"weights {list(self.weights)} for kind {self.kind!r}, which weighs no positions: "
                "give none, or use kind 'utilisation'"
            )
        if not math.isfinite(self.share) or self.share <= 0:
            raise RopewalkError(
                f"share {self.share}: expected a finite number > 0; leave a task out rather than give it no share"
            )

    def value(self, found: Scores, vanilla: Scores) -> float:
        """Of one candidate, higher is better; NaN if a number of either is not finite, for then one has failed."""
        if not (found.finite and vanilla.finite):
            return math.nan
        if self.kind != "worst":
            gained = self._gained(found, vanilla).mean(axis=0)
            return float(gained @ self._weights(len(gained)))
        worst = found.measured(self.measure).mean(axis=0).min()
        base = vanilla.measured(self.measure).mean(axis=0).min() if self.measure == "likelihood" else 0.0
        return float(worst - base)

    def per_record(self, found: Scores, vanilla: Scores) -> Array | None:
        """What each record contributes, [records]: their mean is `value`, and they are NaN where it is. None for kind
        "worst", which is no mean over records.
        """
        if self.kind == "worst":
            return None
        if not (found.finite and vanilla.finite):
            return np.full(len(found.scores), math.nan)
        gained = self._gained(found, vanilla)
        return np.asarray(gained @ self._weights(gained.shape[1]))

    def spread(self, vanilla: Scores) -> float:
        """Standard deviation over all prompts of what is measured, the divisor in a mix of tasks; may be 0 or NaN."""
        measured = vanilla.measured(self.measure)
        if not vanilla.finite:
            return math.nan
        return 0.0 if measured.min() == measured.max() else float(measured.std())  # rounding makes a tiny number of 0

    def _gained(self, found: Scores, vanilla: Scores) -> Array:
        if self.measure == "accuracy":
            return found.scores
        return np.asarray(found.log_likelihoods - vanilla.log_likelihoods)

    def _weights(self, positions: int) -> Array:
        return position_weights(positions, self.weights if self.kind == "utilisation" else np.ones(positions).tolist())


@dataclass(frozen=True)
class Fitness:
    """What a search maximises: value = gain - sum of penalties; NaN if any number was not finite.

    gain: nats a token or accuracy for one task, spreads of vanilla's over prompts for a mix. penalties: by the name of
    each constraint that doesn't hold, each > 0 and in the gain's unit.
    """

    value: float
    gain: float
    penalties: dict[str, float]


@dataclass(frozen=True)
class Objective:
    """One task's `Part`, or a mix of several, and what must not get worse.

    One part keeps its unit. In a mix each part's value, vanilla's own subtracted, is divided by its scale, vanilla's
    spread over prompts, or one task would drown the other; then the mean weighted by share is taken.
    Scores are given as one `Scores` a part, in their order; `scales` once for a search, from all of vanilla's records.
    """

    parts: tuple[Part, ...] = (Part(),)
    floor: PositionFloor | None = None
    short: ShortTextLimit | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise RopewalkError("an objective of no parts: give at least one, one a task")
        if len(set(self.names)) < len(self.parts):
            raise RopewalkError(f"parts named {', '.join(self.names)}: give each part of a mix a name of its own")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts; those of a mix that have none are called task 1, task 2, …."""
        return tuple(
            part.name or (f"task {number}" if len(self.parts) > 1 else "") for number, part in enumerate(self.parts, 1)
        )

    def scales(self, vanilla: Sequence[Scores]) -> tuple[float, ...]:
        """Unit of each part: 1 if it is the only one, else vanilla's spread. Raises `RopewalkError` where it has none.

        Source: the standard deviation over all prompts of vanilla's log-likelihoods or, by accuracy, of its scores.
        """
        self._check_parts(vanilla=vanilla)
        if len(self.parts) == 1:
            return (1.0,)
        spreads = tuple(part.spread(scores) for part, scores in zip(self.parts, vanilla, strict=True))
        for part, name, scores, spread in zip(self.parts, self.names, vanilla, spreads, strict=True):
            if not math.isfinite(spread) or spread <= 0:
                raise RopewalkError(
                    f"{name} can't be normalised: vanilla's {part.measure} has a standard deviation of {spread:g} over "
                    f"{scores.scores.size} prompts, expected one > 0; give {name} more or other records, use another "
                    "measure, or search it alone"
                )
        return spreads

    def fitness(
        self,
        found: Sequence[Scores],
        vanilla: Sequence[Scores],
        scales: Sequence[float],
        short: tuple[Scores, Scores] | None = None,
    ) -> Fitness:
        """Of one candidate. short: its scores of short texts and vanilla's, needed if there is a `ShortTextLimit`.

        NaN without penalties if any number given is not finite. Raises ValueError where arguments don't fit.
        """
        checks = self._checks(found, vanilla, scales, short)
        if not all(scores.finite for scores in (*found, *vanilla, *(short or ()))):
            return Fitness(math.nan, math.nan, {})
        gain = 0.0
        for part, factor, mine, base in zip(self.parts, self._factors(scales), found, vanilla, strict=True):
            level = part.value(base, base) if len(self.parts) > 1 else 0.0  # by likelihood it is 0 anyway
            gain += factor * (part.value(mine, base) - level)
        penalties = {check.name: check.penalty for check in checks if not check.holds}
        return Fitness(gain - sum(penalties.values()), gain, penalties)

    def difference(
        self, found: Sequence[Scores], rival: Sequence[Scores], scales: Sequence[float]
    ) -> tuple[float, float] | None:
        """Mean and standard error, over records, of how much more `found` gains than `rival` on the same prompts.

        Of gains alone: a penalty is no mean over records. The tasks' records are independent, so the parts' variances
        add up. None if a part is of kind "worst" or has fewer than 2 records; NaN, NaN if a number is not finite.
        """
        self._check_parts(found=found, rival=rival)
        self._check_scales(scales)
        mean = variance = 0.0
        for part, factor, mine, other in zip(self.parts, self._factors(scales), found, rival, strict=True):
            ahead, level = part.per_record(mine, other), part.per_record(other, other)  # any common vanilla cancels
            if ahead is None or level is None or len(ahead) < 2:
                return None
            mean += factor * float((ahead - level).mean())
            variance += factor**2 * float((ahead - level).var(ddof=1)) / len(ahead)
        return mean, math.sqrt(variance)

    def losses(
        self, found: Sequence[Scores], vanilla: Sequence[Scores], short: tuple[Scores, Scores] | None = None
    ) -> list[tuple[float, float]]:
        """(loss, limit) of every constraint, as measured; always the same constraints in the same order."""
        return [(check.value, check.limit) for check in self._checks(found, vanilla, [1.0] * len(self.parts), short)]

    def constraint_report(
        self, found: Sequence[Scores], vanilla: Sequence[Scores], short: tuple[Scores, Scores] | None = None
    ) -> list[dict[str, Any]]:
        """Every constraint, met or not, on the scores given, as JSON: name, unit, limit, value, margin, holds.

        One holds where its value is beyond the limit by no more than the margin, which may be noise: None for a single
        record, of which nothing can be said.
        """
        return [check.to_dict() for check in self._checks(found, vanilla, [1.0] * len(self.parts), short)]

    def settings(self) -> dict[str, Any]:
        """All that determines the fitness, as JSON."""
        return {
            "parts": [{**asdict(part), "weights": list(part.weights)} for part in self.parts],
            "floor": self.floor and asdict(self.floor),
            "short": self.short and asdict(self.short),
        }

    def _factors(self, scales: Sequence[float]) -> list[float]:
        """What a part's value is multiplied by: its share of all shares, over its scale."""
        if len(self.parts) == 1:
            return [1.0 / scales[0]]  # share / share can be off by rounding
        total = sum(part.share for part in self.parts)
        return [part.share / total / scale for part, scale in zip(self.parts, scales, strict=True)]

    def _checks(
        self,
        found: Sequence[Scores],
        vanilla: Sequence[Scores],
        scales: Sequence[float],
        short: tuple[Scores, Scores] | None,
    ) -> list[Check]:
        """Every constraint on the scores given, once it is sure that they fit together."""
        self._check_parts(found=found, vanilla=vanilla)
        self._check_scales(scales)
        checks: list[Check] = []
        with np.errstate(invalid="ignore"):  # a failed candidate's likelihoods; its checks don't hold
            if self.floor:
                for part, name, mine, base, scale in zip(self.parts, self.names, found, vanilla, scales, strict=True):
                    checks += self.floor.checks(mine, base, part.measure, name, scale)
            if self.short:
                if short is None:
                    raise ValueError("there is a short-text limit: give `short`, the candidate's scores and vanilla's")
                check_paired("short texts", *short)
                checks.append(self.short.check(*short))
        return checks

    def _check_parts(self, **given: Sequence[Scores]) -> None:
        """One `Scores` a part, of the same records: what is compared is paired."""
        for what, scores in given.items():
            if len(scores) != len(self.parts):
                raise ValueError(f"{what}: scores of {len(scores)} tasks, expected {len(self.parts)}, one a part")
        for name, *paired in zip(self.names, *given.values(), strict=True):
            check_paired(name or "the task", *paired)

    def _check_scales(self, scales: Sequence[float]) -> None:
        if len(scales) != len(self.parts) or not all(math.isfinite(scale) and scale > 0 for scale in scales):
            raise ValueError(f"scales {list(scales)}: expected {len(self.parts)} numbers > 0, as `scales` returns them")
