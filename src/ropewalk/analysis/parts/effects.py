"""What an arm changes against another one on the same records: in U and by position, with intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk import stats
from ropewalk.comparison import ALPHA
from ropewalk.objectives import DEFAULT_WEIGHTS, position_weights
from ropewalk.results import TaskResult, check_same_examples

Json = dict[str, Any]
Array = NDArray[np.float64]
NOTHING: Json = {"difference": None, "low": None, "high": None, "p": None}
MEASURES = ("likelihood", "accuracy")


def effect(reference: TaskResult, other: TaskResult, weights: Sequence[float] = DEFAULT_WEIGHTS) -> Json:
    """What `other` gains over `reference`, as JSON; differences are other minus reference.

    `likelihood` and `accuracy`: of U of the log-likelihood (nats a token) and of U of the metric, with the 95 %
    interval of a bootstrap over records and the p-value of exchanging whole records. `by_position`: of the
    log-likelihood at each gold position. Where a number is not finite all of it is null.
    """
    check_same_examples(reference, other)
    shares = position_weights(len(reference.positions), weights)
    gaps = other.log_likelihoods - reference.log_likelihoods
    return {
        "likelihood": difference(gaps @ shares),
        "accuracy": difference((other.scores - reference.scores) @ shares),
        "by_position": [difference(gaps[:, column]) for column in range(gaps.shape[1])],
    }


def difference(gaps: Array) -> Json:
    """Of paired differences [records] the mean, its interval, and the p-value of no difference."""
    if not np.isfinite(gaps).all():
        return dict(NOTHING)
    paired = stats.paired_bootstrap(np.zeros((len(gaps), 1)), gaps[:, None], lambda means: means[..., 0])
    return {"difference": paired.difference, "low": paired.low, "high": paired.high, "p": paired.p_value}


def pooled(gaps: Sequence[Array]) -> Json:
    """The mean over tasks of the mean over records, with its interval. gaps: of each task, whose records are its own,
    [records]; each is resampled by itself.
    """
    if not all(np.isfinite(own).all() for own in gaps):
        return dict(NOTHING)
    generator = np.random.default_rng(0)
    drawn = [
        generator.multinomial(len(own), np.full(len(own), 1 / len(own)), size=stats.RESAMPLES) @ own / len(own)
        for own in gaps
    ]
    low, high = stats.percentiles(np.mean(drawn, axis=0), min(map(len, gaps)))
    return {"difference": float(np.mean([own.mean() for own in gaps])), "low": low, "high": high, "p": None}


def with_holm(arms: Mapping[str, Json]) -> dict[str, Json]:
    """The same effects of several arms, with `p_holm` in `likelihood` and `accuracy`: corrected for their number."""
    corrected = {arm: {name: dict(found[name]) for name in MEASURES} for arm, found in arms.items()}
    for name in MEASURES:
        rows = [found[name] for found in corrected.values() if found[name]["p"] is not None]
        for row, p in zip(rows, stats.holm([row["p"] for row in rows]) if rows else [], strict=True):
            row["p_holm"] = float(p)
    return {arm: {**found, **corrected[arm]} for arm, found in arms.items()}


def too_few(records: int, tests: int) -> list[str]:
    """A warning where not even records that all agree could be told from noise: 2^(1 - records) is the smallest p."""
    smallest = min(1.0, tests * 2.0 ** (1 - records))
    if smallest < ALPHA:
        return []
    needed = math.floor(1 + math.log2(tests / ALPHA)) + 1
    given = f"{counted(records, 'record')} and {counted(tests, 'comparison')}"
    return [
        f"Warning: with {given} no p-value can be below {smallest:.2g}, so nothing can be outside the noise: give at "
        f"least {needed} records (--limit)."
    ]


def counted(number: int, what: str) -> str:
    """A number of things: "1 record", "2 records"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size(row: Json, scale: float = 1.0, unit: str = "nats a token") -> str:
    """A difference in words: "+0.0123 nats a token (95 % interval +0.0101 to +0.0145)"."""
    if row["difference"] is None:
        return "a number that is not finite"
    shown = [f"{scale * row[part]:+.3g}" for part in ("difference", "low", "high")]
    return f"{shown[0]} {unit} (95 % interval {shown[1]} to {shown[2]})"


def direction(row: Json) -> int:
    """1 or -1 for a difference outside the noise, after Holm's correction where there is one, else 0."""
    p = row.get("p_holm", row["p"])
    return 0 if p is None or p >= ALPHA else 1 if row["difference"] > 0 else -1


def cells(row: Json, scale: float = 1.0) -> list[str]:
    """Difference, interval and p-value as cells of a table."""
    if row["difference"] is None:
        return ["–", "–", "–"]
    digits = 4 if scale == 1 else 1
    shown = [f"{scale * row[part]:+.{digits}f}" for part in ("difference", "low", "high")]
    return [shown[0], f"{shown[1]} to {shown[2]}", f"{row.get('p_holm', row['p']):.2g}"]
