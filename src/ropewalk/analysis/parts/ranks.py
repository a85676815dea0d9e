"""Rank correlation over layers, with an interval over records and a permutation test over layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk import stats

Array = NDArray[np.float64]
Json = dict[str, Any]

PERMUTATIONS = 10_000


def spearman(x: Array, y: Array) -> Array:
    """Spearman's correlation along the last axis, [...]; ties share their mean rank. NaN where a side is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(side, axis=-1) for side in (x, y)]
    x, y = (side - side.mean(axis=-1, keepdims=True) for side in ranks)
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(axis=-1) / np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1)))


def permutation_p(x: Array, y: Array, seed: int = 0) -> float:
    """Two-sided p-value of no association of x and y, [layers]: layers of y are exchanged at random.

    The observed order counts as one of the draws (B. Phipson and G. Smyth, SAGMB 9 (2010) 39).
    """
    generator = np.random.default_rng([seed, 2])
    drawn = spearman(x, generator.permuted(np.tile(y, (PERMUTATIONS, 1)), axis=1))
    return float((1 + (np.abs(drawn) >= abs(float(spearman(x, y))) - 1e-12).sum()) / (1 + PERMUTATIONS))


def correlation(x: Array, y: Array) -> Json:
    """Spearman's correlation of the means over records of x and y, both [records, layers], as JSON.

    `low`, `high`: 95 % interval of a bootstrap over records, the layers being fixed; a resample in which a side is
    constant counts as 0. `p`: `permutation_p` of the means. All null where a side is constant or not finite.
    """
    layers = x.shape[1]
    both = np.concatenate([x, y], axis=1)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    if not np.isfinite(both).all() or np.ptp(mean_x) == 0 or np.ptp(mean_y) == 0:
        return {"rho": None, "low": None, "high": None, "p": None}

    def statistic(means: Array) -> Array:
        return np.nan_to_num(spearman(means[..., :layers], means[..., layers:]))

    found = stats.cluster_bootstrap(both, statistic)
    return {"rho": found.estimate, "low": found.low, "high": found.high, "p": permutation_p(mean_x, mean_y)}


def in_words(row: Json) -> str:
    """As a clause: "rank correlation +0.1 (95 % interval over records −0.1 to +0.3, permutation p over layers 0.4)"."""
    if row["rho"] is None:
        return "no rank correlation, for one side is constant or not finite"
    shown = [f"{row[part]:+.2f}" for part in ("rho", "low", "high")]
    interval = f"95 % interval over records {shown[1]} to {shown[2]}"
    return f"rank correlation {shown[0]} ({interval}, permutation p over layers {row['p']:.2g})"
