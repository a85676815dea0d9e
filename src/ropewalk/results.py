"""`TaskResult`: what one candidate scored on one task, example by example, with its intervals, as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ropewalk import stats
from ropewalk.errors import DataError
from ropewalk.objectives import DEFAULT_WEIGHTS, utilisation

_ARRAYS = {"verdicts": np.bool_, "log_likelihoods": np.float64, "margins": np.float64, "answer_tokens": np.int64}


@dataclass(frozen=True)
class TaskResult:
    """Scores of every record at every gold position; all arrays are [records, positions].

    task: the settings that determine the examples. positions: 0-based gold positions. records: their ids.
    verdicts: teacher-forced exact match. log_likelihoods: mean nats per answer token (NaN where the model gave NaN).
    margins: smallest top-1/top-2 gap over the answer. answer_tokens: scored tokens.
    """

    task: Mapping[str, Any]
    positions: tuple[int, ...]
    records: tuple[str, ...]
    verdicts: NDArray[np.bool_]
    log_likelihoods: NDArray[np.float64]
    margins: NDArray[np.float64]
    answer_tokens: NDArray[np.int64]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Share of right verdicts at each position, [positions]."""
        return np.asarray(self.verdicts.mean(axis=0))

    @property
    def nll(self) -> NDArray[np.float64]:
        """Mean negative log-likelihood at each position in nats per answer token, [positions]."""
        return np.asarray(-self.log_likelihoods.mean(axis=0))

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """95 % Wilson interval of the accuracy at each position; the records of one position are independent."""
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

        Intervals of averages are bootstrapped over whole records, for one record serves every position.
        """
        verdicts = self.verdicts.astype(np.float64)
        finite = self.failures == 0
        return {
            "accuracy": self.accuracy.tolist(),
            "nll": [value if np.isfinite(value) else None for value in self.nll.tolist()],
            "interval": [list(interval) for interval in self.intervals],
            "average": self.average,
            "average_interval": _interval(verdicts, lambda accuracy: accuracy.mean(axis=-1)),
            "average_nll": float(self.nll.mean()) if finite else None,
            "utilisation": float(utilisation(self.accuracy, weights)),
            "utilisation_interval": _interval(verdicts, lambda accuracy: utilisation(accuracy, weights)),
            "worst": float(self.accuracy.min()),
            "records": len(self.records),
            "failures": self.failures,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, example by example, as JSON; the inverse is `from_dict`."""
        return {
            "task": dict(self.task),
            "positions": list(self.positions),
            "records": list(self.records),
            "verdicts": self.verdicts.tolist(),
            "log_likelihoods": _finite_or_null(self.log_likelihoods),
            "margins": _finite_or_null(self.margins),
            "answer_tokens": self.answer_tokens.tolist(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild a result from `to_dict`. Raises `DataError` that names the field for anything else."""
        missing = [name for name in cls.__dataclass_fields__ if name not in document]
        if missing:
            raise DataError(f"not a task result: no field {missing[0]!r}")
        shape = (len(document["records"]), len(document["positions"]))
        arrays = {name: _array(document, name, kind, shape) for name, kind in _ARRAYS.items()}
        return cls(
            task=document["task"],
            positions=tuple(document["positions"]),
            records=tuple(document["records"]),
            **arrays,
        )


def check_same_examples(one: TaskResult, other: TaskResult) -> None:
    """Raise `DataError` unless both results are over the same examples: only these may be compared in pairs."""
    if (one.records, one.positions, one.task) != (other.records, other.positions, other.task):
        raise DataError(
            "these results are over different examples: compare only results of the same task, records and positions"
        )


def _interval(verdicts: NDArray[np.float64], statistic: stats.Statistic) -> list[float]:
    """95 % interval of an average over positions, [low, high].

    Where all verdicts agree the bootstrap sees no spread and would claim certainty: Wilson's interval over the records
    says what so many of them can tell.
    """
    if (verdicts == verdicts[0, 0]).all():
        return list(stats.wilson(int(verdicts[:, 0].sum()), len(verdicts)))
    drawn = stats.cluster_bootstrap(verdicts, statistic)
    return [drawn.low, drawn.high]


def _finite_or_null(values: NDArray[np.float64]) -> list[list[float | None]]:
    return [[value if np.isfinite(value) else None for value in row] for row in values.tolist()]


def _array(document: Mapping[str, Any], name: str, kind: Any, shape: tuple[int, int]) -> NDArray[Any]:
    try:
        array = np.array(document[name], dtype=kind)
    except (TypeError, ValueError):
        raise DataError(f'field "{name}" of a task result: expected numbers, records × positions') from None
    if array.shape != shape:
        raise DataError(f'field "{name}" of a task result has the shape {array.shape}, expected {shape}')
    return array
