"""Intervals and paired tests for scores of the same records at several positions and under several arms.

One record (question) serves every position and every arm, so its scores hang together. Whole records are therefore
what is resampled and exchanged, never single prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ropewalk.errors import DataError

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # means by position [..., positions] -> [...]

CONFIDENCE = 0.95
RESAMPLES = 10_000
BLOCK = 2_000_000  # numbers drawn at a time, which bounds the memory; the result doesn't depend on it


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """A paired difference with its confidence interval and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p_value: float


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion, for n independent trials of which `successes` succeeded.

    Source: E. B. Wilson, JASA 22 (1927) 209-212. Use it at one position; the positions together aren't independent.
    A sum of scores in [0, 1] may stand for the successes: of all such scores verdicts vary the most, so the interval is
    then too wide rather than too narrow.
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"{successes} successes of {n}: expected 0 <= successes <= n and n >= 1")
    z = float(special.ndtri(0.5 + confidence / 2))
    share, weight = successes / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z * np.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    low = 0.0 if successes == 0 else float(middle - half)  # exactly, not up to rounding
    high = 1.0 if successes == n else float(middle + half)
    return low, high


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact two-sided McNemar test: p-value of "a and b succeed equally often" for paired booleans [records].

    The pairs that differ are, under the null, fair coin tosses; 1 if none differs. Source: Q. McNemar, Psychometrika
    12 (1947) 153-157, with the binomial distribution in place of chi-squared.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.dtype != np.bool_ or second.dtype != np.bool_:
        raise DataError(f"McNemar's test needs booleans, got {first.dtype} and {second.dtype}")
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise DataError(f"McNemar's test needs two arrays [records], got {list(first.shape)} and {list(second.shape)}")
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    if gained == lost:
        return 1.0
    return min(1.0, 2.0 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))


def holm(p_values: ArrayLike) -> Array:
    """Holm's step-down adjusted p-values [tests]: each below α is significant at family-wise error α.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise DataError(f"p-values must be a list of numbers in [0, 1], got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return adjusted


def cluster_bootstrap(
    values: ArrayLike,
    statistic: Statistic,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of `statistic` of the means by position, by resampling whole records.

    values: [records, positions], finite, at least 2 records. statistic: means [..., positions] -> [...].

    Expanded percentile interval (T. Hesterberg, The American Statistician 69 (2015) 371-386): the percentiles are
    taken as far out as Student's t with records - 1 degrees of freedom asks for, because the plain ones are too narrow
    for few records. Where all records agree the interval has no width: the bootstrap can't know better.
    """
    scores = _check_scores("values", values)
    _check_settings(confidence, resamples)
    drawn = _resampled(scores, statistic, resamples, seed)
    return Interval(_at(statistic, scores.mean(axis=0)), *percentiles(drawn, len(scores), confidence))


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    statistic: Statistic,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """statistic(b) - statistic(a) with its interval and p-value, for two arms over the same records.

    a, b: [records, positions], finite, at least 2 records. statistic: means [..., positions] -> [...].

    Interval: as in `cluster_bootstrap`, both arms resampled with the same records. p-value: two-sided permutation test
    that exchanges the arms of whole records; all 2^m exchanges (m records that differ) if these are no more than
    `resamples`, else `resamples` random ones with the observed one counted in (B. Phipson and G. Smyth, SAGMB 9 (2010)
    39). It is exact for any statistic under the null that the arms can be exchanged within a record. For a linear
    statistic it also tests the weaker null of equal means, nearly so for asymmetric differences; for others (a minimum,
    say) a small p only says that the arms differ somehow, and the interval is the answer to "by how much".
    """
    first, second = _check_scores("a", a), _check_scores("b", b)
    if first.shape != second.shape:
        raise DataError(f"paired arms need one shape, got {list(first.shape)} and {list(second.shape)}")
    _check_settings(confidence, resamples)
    positions = first.shape[1]

    def difference(means: Array) -> Array:
        return np.asarray(statistic(means[..., positions:]) - statistic(means[..., :positions]))

    both = np.concatenate([first, second], axis=1)
    drawn = _resampled(both, difference, resamples, seed)
    observed = _at(difference, both.mean(axis=0))
    low, high = percentiles(drawn, len(both), confidence)
    return PairedDifference(observed, low, high, _exchange_p(first, second, statistic, observed, resamples, seed))


def _exchange_p(a: Array, b: Array, statistic: Statistic, observed: float, resamples: int, seed: int) -> float:
    gaps = b - a
    gaps = gaps[(gaps != 0).any(axis=1)]  # exchanging equal arms changes nothing
    if not len(gaps):
        return 1.0
    exact = 2 ** len(gaps) <= resamples
    blocks = _all_signs(len(gaps)) if exact else _random_signs(len(gaps), resamples, seed)
    middle, records = (a + b).mean(axis=0) / 2, len(a)
    slack = 1e-10 * max(float(np.abs(gaps).max()), abs(observed))  # equal exchanges must not differ by rounding
    extreme = 0
    for signs in blocks:
        half = signs @ gaps / (2 * records)
        extreme += int(
            (np.abs(_batch(statistic, middle + half) - statistic(middle - half)) >= abs(observed) - slack).sum()
        )
    return extreme / 2 ** len(gaps) if exact else (1 + extreme) / (1 + resamples)


def _all_signs(count: int) -> Iterator[Array]:
    bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    yield np.asarray(1 - 2 * bits, dtype=np.float64)


def _random_signs(count: int, resamples: int, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng([seed, 1])
    for size in _blocks(resamples, count):
        yield np.asarray(1 - 2 * generator.integers(0, 2, size=(size, count)), dtype=np.float64)


def _resampled(scores: Array, statistic: Statistic, resamples: int, seed: int) -> Array:
    """The statistic of `resamples` bootstrap samples of the records, [resamples]."""
    generator = np.random.default_rng([seed, 0])
    records = len(scores)
    parts = []
    for size in _blocks(resamples, records):
        times_drawn = generator.multinomial(records, np.full(records, 1 / records), size=size)
        parts.append(_batch(statistic, times_drawn @ scores / records))
    return np.concatenate(parts)


def _blocks(rows: int, width: int) -> Iterator[int]:
    block = max(1, BLOCK // width)
    for start in range(0, rows, block):
        yield min(block, rows - start)


def percentiles(drawn: Array, records: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Expanded percentile interval (see `cluster_bootstrap`) of a statistic's values in resamples of the records."""
    wider = np.sqrt(records / (records - 1)) * special.stdtrit(records - 1, 0.5 + confidence / 2)
    tail = float(special.ndtr(-wider))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _at(statistic: Statistic, means: Array) -> float:
    return float(_batch(statistic, means[None])[0])


def _batch(statistic: Statistic, means: Array) -> Array:
    result = np.asarray(statistic(means), dtype=np.float64)
    if result.shape != means.shape[:1]:
        raise DataError(
            f"the statistic made {list(result.shape)} of means {list(means.shape)}, expected {list(means.shape[:1])}: "
            "it must work along the last axis"
        )
    return result


def _check_scores(name: str, values: ArrayLike) -> Array:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] < 1:
        raise DataError(f"{name} has shape {list(scores.shape)}, expected [records, positions]")
    if len(scores) < 2:
        raise DataError(f"{name} holds {len(scores)} records: an interval over records needs at least 2")
    if not np.isfinite(scores).all():
        raise DataError(f"{name} holds {int((~np.isfinite(scores)).sum())} values that are not finite")
    return scores


def _check_settings(confidence: float, resamples: int) -> None:
    _check_confidence(confidence)
    if resamples < 1:
        raise DataError(f"resamples is {resamples}, expected at least 1")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence}, expected a number between 0 and 1")
