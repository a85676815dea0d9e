"""`TaskResult`: what one candidate scored on one task, example by example, with its intervals, as JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ropewalk import results_json, stats
from ropewalk.errors import DataError
from ropewalk.objectives import DEFAULT_WEIGHTS, utilisation

OWN_LOOP = "own layer loop"  # of the engine; anything else names model.forward and the reason
PERPLEXITY_METRIC = "next_token_accuracy"  # of plain texts: their likelihood is that of a text, not of an answer

_ARRAYS = ("scores", "log_likelihoods", "margins", "answer_tokens")


@dataclass(frozen=True)
class TaskResult:
    """Scores of every record at every gold position; all arrays are [records, positions].

    task: the settings that determine the examples. positions: 0-based gold positions. records: their ids.
    scores: the metric, in [0, 1]. log_likelihoods: mean nats per answer token (NaN where the model gave NaN).
    margins: smallest top-1/top-2 gap over the answer. answer_tokens: scored tokens.
    metric: its name. generated: scores are those of really generated answers, else teacher-forced. graded: scores lie
    between 0 and 1 too. texts: the generated answers, by record and position. groups: one label a record, or none.
    skipped: records that were left out at every position, for a prompt of theirs is over the model's limit.
    """

    task: Mapping[str, Any]
    positions: tuple[int, ...]
    records: tuple[str, ...]
    scores: NDArray[np.float64]
    log_likelihoods: NDArray[np.float64]
    margins: NDArray[np.float64]
    answer_tokens: NDArray[np.int64]
    metric: str = "exact_match"
    generated: bool = False
    graded: bool = False
    texts: tuple[tuple[str, ...], ...] | None = None
    groups: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not any(self.groups):
            object.__setattr__(self, "groups", ())

    @property
    def verdicts(self) -> NDArray[np.bool_]:
        """Which examples are right, [records, positions]. Raises `DataError` for graded scores, which are neither."""
        if self.graded:
            raise DataError(f"the metric {self.metric} is graded: its scores are no verdicts")
        return np.asarray(self.scores > 0.5)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Mean score at each position, [positions]: the share of right verdicts unless the metric is graded."""
        return np.asarray(self.scores.mean(axis=0))

    @property
    def nll(self) -> NDArray[np.float64]:
        """Mean negative log-likelihood at each position in nats per answer token, [positions]."""
        return np.asarray(-self.log_likelihoods.mean(axis=0))

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """95 % interval of the accuracy at each position, whose records are independent: Wilson's, for graded scores
        that of the bootstrap over records.
        """
        if self.graded:
            return [_interval(self.scores[:, [column]], _mean) for column in range(len(self.positions))]
        return [stats.wilson(int(column.sum()), len(column)) for column in self.verdicts.T]

    @property
    def average(self) -> float:
        """Mean accuracy over positions."""
        return float(self.accuracy.mean())

    @property
    def failures(self) -> int:
        """Examples whose likelihood is not a number: counted as wrong, never hidden."""
        return int((~np.isfinite(self.log_likelihoods)).sum())

    def summary(self, weights: Sequence[float] = DEFAULT_WEIGHTS) -> dict[str, Any]:
        """The figures of `--json`: by position `accuracy`, `nll` and `interval`, then averages with their intervals.

        `accuracy` is the mean of `metric`. Intervals of averages are bootstrapped over whole records, for one record
        serves every position. For plain texts there is `perplexity` too, exp(nll). `by_group`: the same figures for
        each label where there is more than one.
        """
        figures = self._figures(weights)
        groups = list(dict.fromkeys(self.groups))
        if len(groups) > 1:
            figures["by_group"] = {group: self._of_group(group)._figures(weights) for group in groups}
        return figures

    def _figures(self, weights: Sequence[float]) -> dict[str, Any]:
        nll = [_finite(value) for value in self.nll.tolist()]
        average_nll = _finite(float(self.nll.mean()))
        figures = {
            "metric": self.metric,
            "generated": self.generated,
            "graded": self.graded,
            "accuracy": self.accuracy.tolist(),
            "nll": nll,
            "interval": [list(interval) for interval in self.intervals],
            "average": self.average,
            "average_interval": list(_interval(self.scores, _mean)),
            "average_nll": average_nll,
            "utilisation": float(utilisation(self.accuracy, weights)),
            "utilisation_interval": list(_interval(self.scores, lambda accuracy: utilisation(accuracy, weights))),
            "worst": float(self.accuracy.min()),
            "records": len(self.records),
            "failures": self.failures,
            "skipped": len(self.skipped),
        }
        if self.metric == PERPLEXITY_METRIC:
            figures["perplexity"] = [_perplexity(value) for value in nll]
            figures["average_perplexity"] = _perplexity(average_nll)
        return figures

    def _of_group(self, group: str) -> TaskResult:
        rows = [row for row, label in enumerate(self.groups) if label == group]
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, records=tuple(self.records[row] for row in rows), texts=None, groups=(), **arrays)

    def to_dict(self) -> dict[str, Any]:
        """Everything, example by example, as JSON; the inverse is `from_dict`."""
        return results_json.encode(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild a result from `to_dict`. Raises `DataError` that names field and example for anything else."""
        return cls(**results_json.decode(document))


def check_same_examples(one: TaskResult, other: TaskResult) -> None:
    """Raise `DataError` unless both results are over the same examples: only these may be compared in pairs."""
    for name in ("task", "positions", "records", "metric", "generated", "graded", "skipped"):
        if getattr(one, name) != getattr(other, name):
            raise DataError(
                f"these results are over different examples, or scored differently ({name} differs): compare only "
                "results of the same task, records, positions and metric"
            )


def _mean(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(accuracy.mean(axis=-1))


def _interval(scores: NDArray[np.float64], statistic: stats.Statistic) -> tuple[float, float]:
    """95 % interval of a weighted mean over positions.

    Where all scores are equal the bootstrap sees no spread and would claim certainty: Wilson's interval over the
    records says what so many of them can tell. One record says nothing of others.
    """
    if scores.min() == scores.max():
        return stats.wilson(float(scores[0, 0]) * len(scores), len(scores))
    if len(scores) < 2:
        return 0.0, 1.0
    drawn = stats.cluster_bootstrap(scores, statistic)
    return drawn.low, drawn.high


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _perplexity(nll: float | None) -> float | None:
    """exp(nll); null where that is no number, or one too large to be written."""
    return None if nll is None or nll > 700 else math.exp(nll)
