"""Paired comparison of two results over the same examples: per position, average, U and worst position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk import stats
from ropewalk.objectives import DEFAULT_WEIGHTS, utilisation
from ropewalk.results import PERPLEXITY_METRIC, TaskResult, check_same_examples

ALPHA = 0.05


def compare(
    reference: TaskResult, other: TaskResult, weights: Sequence[float] = DEFAULT_WEIGHTS, *, seed: int = 0
) -> dict[str, Any]:
    """What `other` gains over `reference`, as JSON; every difference is other minus reference.

    By position: exact McNemar on verdicts (for a graded metric the paired exchange test on scores) and the exchange
    test on log-likelihoods, both with Holm's correction over the positions. Averages, U and the worst position:
    bootstrap clustered by record, p-values by exchanging whole records.
    Raises `DataError` if the results are over different examples.
    """
    check_same_examples(reference, other)
    before, after = reference.scores, other.scores
    likelihood = (reference.log_likelihoods, other.log_likelihoods)
    columns = range(len(reference.positions))
    by_score = [_score_p(reference, other, column, seed) for column in columns]
    by_likelihood = [
        _difference(likelihood[0][:, [column]], likelihood[1][:, [column]], _mean, seed) for column in columns
    ]
    likelihood_p = [row["p"] for row in by_likelihood]
    return {
        "metric": reference.metric,
        "positions": list(reference.positions),
        "accuracy": (after.mean(axis=0) - before.mean(axis=0)).tolist(),
        "accuracy_p": by_score,
        "accuracy_p_holm": [float(p) for p in stats.holm(by_score)],
        "log_likelihood": by_likelihood,
        "log_likelihood_p_holm": None if None in likelihood_p else [float(p) for p in stats.holm(likelihood_p)],
        "average": _difference(before, after, _mean, seed),
        "utilisation": _difference(before, after, lambda accuracy: utilisation(accuracy, weights), seed),
        "worst": _difference(before, after, lambda accuracy: accuracy.min(axis=-1), seed),
        "average_log_likelihood": _difference(*likelihood, _mean, seed),
        "utilisation_log_likelihood": _difference(*likelihood, lambda mean: utilisation(mean, weights), seed),
    }


def verdict_sentence(comparison: dict[str, Any], arm: str = "the found factors") -> str:
    """One sentence: is the gain on held-out records outside the noise, in likelihood and in accuracy?"""
    likelihood, accuracy = comparison["average_log_likelihood"], comparison["average"]
    if likelihood["p"] is None:
        return f"With {arm} some log-likelihoods are not finite, so nothing can be said of a gain."
    score = metric_words(comparison["metric"])
    what = f"the {'text' if comparison['metric'] == PERPLEXITY_METRIC else 'answer'} log-likelihood"
    return (
        f"On held-out records {arm} {_clause(likelihood, what, 'nats a token', 1)}, "
        f"and {_clause(accuracy, score, 'points', 100)}."
    )


def metric_words(metric: str) -> str:
    """How a metric is called in tables and sentences: the share of exact matches is the accuracy."""
    return "accuracy" if metric == "exact_match" else metric.replace("_", " ")


def _clause(row: dict[str, Any], what: str, unit: str, scale: float) -> str:
    size = f"{row['difference'] * scale:+.3g} {unit}, p = {row['p']:.2g}"
    if row["p"] >= ALPHA:
        return f"change {what} within the noise only ({size})"
    return f"{'raise' if row['difference'] > 0 else 'LOWER'} {what} outside the noise ({size})"


def _score_p(reference: TaskResult, other: TaskResult, column: int, seed: int) -> float:
    if reference.graded:
        before, after = reference.scores[:, [column]], other.scores[:, [column]]
        return stats.paired_bootstrap(before, after, _mean, seed=seed).p_value
    return stats.mcnemar(reference.verdicts[:, column], other.verdicts[:, column])


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values.mean(axis=-1))


def _difference(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
) -> dict[str, Any]:
    """Difference with its 95 % interval and p-value; all null where a value is not finite."""
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return {"difference": None, "low": None, "high": None, "p": None}
    paired = stats.paired_bootstrap(before, after, statistic, seed=seed)
    return {"difference": paired.difference, "low": paired.low, "high": paired.high, "p": paired.p_value}
