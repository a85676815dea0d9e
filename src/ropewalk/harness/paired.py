"""What differs between the arms: every metric of every task with a paired interval and p-value.

The arms answer the same records, so differences are taken record by record. A metric that says 0 or 1 of each record
gets McNemar's exact test; others, and perplexities, the exchange test; all get bootstrap intervals over records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api import metrics as library
from numpy.typing import NDArray

from ropewalk import stats
from ropewalk.errors import DataError
from ropewalk.harness.loading import Loaded

Array = NDArray[np.float64]
Row = dict[str, Any]
Arms = tuple[Mapping[str, Any], Mapping[str, Any]]  # lm-eval's results of vanilla and of the factors

MCNEMAR, BOOTSTRAP, NONE = "McNemar", "bootstrap", "none"
CORPUS_RESAMPLES = 1000  # of a metric that has to be computed anew for each: F1, BLEU, functions of the user's own
NOT_MEASURED = -1.0  # RULER's word for a record of another length


@dataclass(frozen=True)
class Scores:
    """A metric's values by record in both arms, and how they become one number.

    vanilla, factors: [records, parts], parts being the numbers a record contributes (a log-likelihood and a number of
    words, say). statistic: of the means of the parts [..., parts] -> [...].
    """

    vanilla: Array
    factors: Array
    statistic: stats.Statistic

    @property
    def is_verdict(self) -> bool:
        """Whether every record's value is 0 or 1."""
        both = np.concatenate([self.vanilla, self.factors])
        return self.vanilla.shape[1] == 1 and bool(np.isin(both, (0.0, 1.0)).all())


def compare(vanilla: Mapping[str, Any], factors: Mapping[str, Any], loaded: Loaded) -> list[Row]:
    """One row for each metric of each task and group, ready for JSON; differences are factors minus vanilla.

    vanilla, factors: the arms' results of lm-eval. Raises `DataError` if a task made other records for the second arm.
    """
    rows: list[Row] = []
    arms = (vanilla, factors)
    for name, task in loaded.tasks.items():
        _check_same(name, vanilla["samples"][name], factors["samples"][name])
        rows += [_task_row(name, key, task, arms) for key in _metric_keys(vanilla["results"][name])]
    for name, group in loaded.groups.items():
        rows += [_group_row(name, key, group, arms) for key in _metric_keys(vanilla["results"].get(name, {}))]
    rows = [row for row in rows if row["records"]]  # RULER lists every length it knows, asked for or not
    asked = [row for row in rows if row["task"] in loaded.roots or _has_no_aggregate(row, loaded, rows)]
    tested = [row for row in asked if row["difference"]["p"] is not None]
    adjusted = stats.holm([row["difference"]["p"] for row in tested]).tolist() if tested else []
    for row in rows:
        row["asked"] = any(row is one for one in asked)
        row["difference"]["p_holm"] = None
    for row, p in zip(tested, adjusted, strict=True):
        row["difference"]["p_holm"] = p
    return rows


def _has_no_aggregate(row: Row, loaded: Loaded, rows: Sequence[Row]) -> bool:
    """Whether a task or group stands for itself, being in no group that has one number for all of it."""
    summed = {one["task"] for one in rows if one["kind"] == "group"}
    return not any(
        row["task"] in [task.task_name for task in group.get_all_tasks()]
        or row["task"] in [inner.name for inner in group.get_all_groups()]
        for name, group in loaded.groups.items()
        if name in summed
    )


def _metric_keys(results: Mapping[str, Any]) -> Iterator[str]:
    for key in results:
        metric, comma, _ = key.rpartition(",")
        if comma and not metric.endswith("_stderr"):
            yield key


def _check_same(name: str, vanilla: Sequence[Mapping[str, Any]], factors: Sequence[Mapping[str, Any]]) -> None:
    asked = ("doc_id", "filter", "prompt_hash", "target_hash")
    if [[sample[key] for key in asked] for sample in vanilla] != [[sample[key] for key in asked] for sample in factors]:
        raise DataError(f"task {name}: asks other questions each time it is built, so the arms can't be compared")


def _task_row(name: str, key: str, task: Any, arms: Arms) -> Row:
    first, second, aggregate = _values(key, task, arms)
    row = _row("task", name, key, arms, max(len(first), len(second)))
    row["higher_is_better"] = _direction([task], row["metric"])
    if len(first) != len(second):  # a record is left out of the metric in one arm: no pairs
        return row
    scores = scores_of(first, second, aggregate)
    return _tested(row, scores) if scores is not None else _corpus(row, first, second, aggregate)


def _group_row(name: str, key: str, group: Any, arms: Arms) -> Row:
    """A group's number is the mean of its tasks' means, weighted by their records or not."""
    row = _row("group", name, key, arms, 0)
    by_size = next((one.weight_by_size for one in group.aggregate_metric_list if one.metric == row["metric"]), True)
    members = [task for task in group.get_all_tasks() if key in arms[0]["results"][task.task_name]]
    row["higher_is_better"] = _direction(members, row["metric"])
    parts = [scores_of(*_values(key, task, arms)) for task in members]
    row["records"] = sum(len(_values(key, task, arms)[0]) for task in members)
    means = [part for part in parts if part is not None and part.statistic is _mean and len(part.vanilla)]
    if not means or len(means) != len(parts):
        return row
    weights = [1.0 if by_size else row["records"] / (len(means) * len(part.vanilla)) for part in means]
    first, second = (
        np.concatenate([getattr(part, arm) * weight for part, weight in zip(means, weights, strict=True)])
        for arm in ("vanilla", "factors")
    )
    is_that = row["vanilla"]["value"] is not None and math.isclose(first.mean(), row["vanilla"]["value"], rel_tol=1e-6)
    return _tested(row, Scores(first, second, _mean)) if is_that or not first.any() else row


def _values(key: str, task: Any, arms: Arms) -> tuple[list[Any], list[Any], Any]:
    """A metric's values by record in both arms, and what makes one number of them."""
    metric, _, kept = key.rpartition(",")
    aggregate = task.aggregation().get(metric, library.mean)
    first, second = (
        [sample[metric] for sample in arm["samples"][task.task_name] if sample["filter"] == kept and metric in sample]
        for arm in arms
    )
    if _is_rulers(aggregate) and len(first) == len(second):
        pairs = [(a, b) for a, b in zip(first, second, strict=True) if a != NOT_MEASURED]
        return [a for a, _ in pairs], [b for _, b in pairs], library.mean
    return first, second, aggregate


def _row(kind: str, name: str, key: str, arms: Arms, records: int) -> Row:
    metric, _, kept = key.rpartition(",")
    values = [_finite(arm["results"][name].get(key)) for arm in arms]
    difference = None if None in values else values[1] - values[0]  # type: ignore[operator]
    return {
        "kind": kind,
        "task": name,
        "metric": metric,
        "filter": kept,
        "records": records,
        "higher_is_better": None,
        "vanilla": {"value": values[0], "low": None, "high": None},
        "factors": {"value": values[1], "low": None, "high": None},
        "difference": {"value": difference, "low": None, "high": None, "p": None, "test": NONE},
    }


def scores_of(vanilla: Sequence[Any], factors: Sequence[Any], aggregate: Callable[..., Any]) -> Scores | None:
    """The values as arrays, where the aggregate is a function of means over records; else None."""
    statistic = _STATISTICS.get(aggregate)
    if statistic is None:
        return None
    try:
        first, second = (np.asarray(values, dtype=np.float64) for values in (vanilla, factors))
    except (TypeError, ValueError):  # no numbers
        return None
    if first.ndim == 1:
        first, second = first[:, None], second[:, None]
    return Scores(first, second, statistic) if first.ndim == 2 and first.shape == second.shape else None


def _tested(row: Row, scores: Scores) -> Row:
    """The row with intervals and p-value; without them for fewer than two records, or where a value is no number."""
    both = np.concatenate([scores.vanilla, scores.factors])
    if len(scores.vanilla) < 2 or not np.isfinite(both).all():
        return row
    for arm in ("vanilla", "factors"):
        values = getattr(scores, arm)
        if scores.is_verdict:
            low, high = stats.wilson(float(values.sum()), len(values))
        else:
            interval = stats.cluster_bootstrap(values, scores.statistic)
            low, high = interval.low, interval.high
        row[arm] |= {"low": low, "high": high}
    paired = stats.paired_bootstrap(scores.vanilla, scores.factors, scores.statistic)
    row["difference"] |= {"low": paired.low, "high": paired.high, "p": paired.p_value, "test": BOOTSTRAP}
    if scores.is_verdict:
        p = stats.mcnemar(scores.vanilla[:, 0] == 1, scores.factors[:, 0] == 1)
        row["difference"] |= {"p": p, "test": MCNEMAR}
    return row


def _corpus(row: Row, vanilla: Sequence[Any], factors: Sequence[Any], aggregate: Callable[..., Any]) -> Row:
    """The same for a metric that is no function of means: it is computed anew for every resample and every exchange."""
    records, generator = len(vanilla), np.random.default_rng([0, 2])
    if records < 2 or row["difference"]["value"] is None:
        return row
    arms: dict[str, list[float]] = {"vanilla": [], "factors": []}
    exchanged = []
    try:
        for _ in range(CORPUS_RESAMPLES):
            drawn = generator.integers(0, records, size=records)
            arms["vanilla"].append(float(aggregate([vanilla[place] for place in drawn])))
            arms["factors"].append(float(aggregate([factors[place] for place in drawn])))
            swap = generator.integers(0, 2, size=records).astype(bool)
            mixed = [(b, a) if swapped else (a, b) for a, b, swapped in zip(vanilla, factors, swap, strict=True)]
            exchanged.append(float(aggregate([b for _, b in mixed])) - float(aggregate([a for a, _ in mixed])))
    except (ArithmeticError, ValueError, TypeError, IndexError):  # a resample that the metric can't take
        return row
    observed = abs(row["difference"]["value"])
    extreme = sum(abs(one) >= observed - 1e-10 * max(1.0, observed) for one in exchanged)
    gaps = np.subtract(arms["factors"], arms["vanilla"])
    if not np.isfinite(gaps).all() or not np.isfinite(exchanged).all():
        return row
    for arm, values in arms.items():
        low, high = stats.percentiles(np.asarray(values), records)
        row[arm] |= {"low": low, "high": high}
    low, high = stats.percentiles(gaps, records)
    p = (1 + extreme) / (1 + CORPUS_RESAMPLES)
    row["difference"] |= {"low": low, "high": high, "p": p, "test": BOOTSTRAP}
    return row


def _direction(tasks: Sequence[Any], metric: str) -> bool | None:
    """Whether higher is better; of a metric that a task does not list, as it is with all that it lists."""
    listed = [task.higher_is_better() for task in tasks]
    known = {one for names in listed for one in ([names[metric]] if metric in names else names.values())}
    return known.pop() if len(known) == 1 else None


def _is_rulers(aggregate: Any) -> bool:
    """Whether it is RULER's mean of the records that have the length; lm-eval imports its file in a way of its own."""
    return getattr(aggregate, "__name__", "") == "aggregate_metrics" and "ruler" in getattr(aggregate, "__module__", "")


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _mean(means: Array) -> Array:
    return means[..., 0]


def _perplexity(means: Array) -> Array:
    return np.asarray(np.exp(-means[..., 0]))


def _weighted_perplexity(means: Array) -> Array:
    return np.asarray(np.exp(-means[..., 0] / means[..., 1]))


def _bits_per_byte(means: Array) -> Array:
    return np.asarray(-means[..., 0] / means[..., 1] / math.log(2))


_STATISTICS: dict[Any, stats.Statistic] = {
    library.mean: _mean,
    library.perplexity: _perplexity,
    library.weighted_perplexity: _weighted_perplexity,
    library.bits_per_byte: _bits_per_byte,
}
