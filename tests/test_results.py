"""Results: figures by position, their intervals, groups, and what may be compared."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from ropewalk.errors import DataError
from ropewalk.results import TaskResult, check_same_examples
from ropewalk.stats import wilson


def result(records: int = 4, positions: int = 3, *, seed: int = 0, **more: Any) -> TaskResult:
    draw = np.random.default_rng(seed)
    shape = (records, positions)
    fields: dict[str, Any] = {
        "task": {"task": "kv", "keys": 10, "positions": list(range(positions)), "prompt": {"format": "plain"}},
        "positions": tuple(range(positions)),
        "records": tuple(f"kv-{index}" for index in range(records)),
        "scores": (draw.random(shape) < 0.5).astype(np.float64),
        "log_likelihoods": -draw.random(shape),
        "margins": draw.random(shape),
        "answer_tokens": draw.integers(20, 30, shape),
    }
    return TaskResult(**(fields | more))


def test_figures_by_position() -> None:
    scores = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    logs = np.array([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0], [-7.0, -8.0]])
    one = result(4, 2, scores=scores, log_likelihoods=logs)
    assert one.accuracy.tolist() == [0.75, 0.25]
    assert one.nll.tolist() == [4.0, 5.0]
    assert one.average == 0.5
    assert one.failures == 0
    # Wilson's interval of 3 of 4 (Newcombe 1998, equation of method 3).
    z, share, count = 1.959963984540054, 0.75, 4
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    assert one.intervals[0] == pytest.approx((middle - half, middle + half))


def test_the_summary_is_json_and_holds_the_figures() -> None:
    one = result(12, 3)
    summary = json.loads(json.dumps(one.summary(), allow_nan=False))
    assert summary["accuracy"] == one.accuracy.tolist()
    assert summary["nll"] == pytest.approx(one.nll.tolist())
    assert summary["average"] == pytest.approx(one.scores.mean())
    assert summary["average_nll"] == pytest.approx(-one.log_likelihoods.mean())
    assert summary["worst"] == min(summary["accuracy"])
    assert summary["average_interval"][0] <= summary["average"] <= summary["average_interval"][1]
    assert summary["utilisation_interval"][0] <= summary["utilisation"] <= summary["utilisation_interval"][1]
    assert (summary["records"], summary["failures"]) == (12, 0)


def test_a_failure_is_counted_and_shown() -> None:
    logs = -np.ones((4, 3))
    logs[1, 2] = math.nan
    summary = json.loads(json.dumps(result(log_likelihoods=logs).summary(), allow_nan=False))
    assert summary["failures"] == 1
    assert summary["nll"] == [1.0, 1.0, None]
    assert summary["average_nll"] is None


@pytest.mark.parametrize(
    "other",
    [
        {"records": ("a", "b", "c", "d")},
        {"positions": (0, 1, 4)},
        {"task": {"task": "kv", "keys": 11}},
        {"metric": "kv_match"},
        {"generated": True},
        {"graded": True},
        {"skipped": ("kv-9",)},
        {"task": {"task": "kv", "keys": 10, "positions": [0, 1, 2], "prompt": {"format": "chat"}}},
    ],
)
def test_results_of_different_examples_are_not_compared(other: dict[str, Any]) -> None:
    check_same_examples(result(), result(seed=1))
    with pytest.raises(DataError, match="over different examples"):
        check_same_examples(result(), dataclasses.replace(result(), **other))


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_where_all_verdicts_agree_the_average_is_no_certainty(verdict: float) -> None:
    few = TaskResult(
        task={},
        positions=(0, 1),
        records=("a", "b", "c"),
        scores=np.full((3, 2), verdict),
        log_likelihoods=np.zeros((3, 2)),
        margins=np.zeros((3, 2)),
        answer_tokens=np.ones((3, 2), dtype=np.int64),
    )
    low, high = few.summary()["average_interval"]
    assert high - low > 0.5
    assert few.summary()["utilisation_interval"] == [low, high]


# Graded metrics, groups, plain texts -------------------------------------------------------------------------------


def test_a_graded_metric_has_intervals_over_records() -> None:
    scores = np.random.default_rng(1).beta(2, 3, (40, 2))
    summary = result(40, 2, scores=scores, graded=True, metric="rouge_l").summary()
    assert (summary["metric"], summary["graded"]) == ("rouge_l", True)
    assert summary["accuracy"] == pytest.approx(scores.mean(axis=0).tolist())
    for column, (low, high) in enumerate(summary["interval"]):
        half = t.ppf(0.975, 39) * scores[:, column].std(ddof=1) / math.sqrt(40)
        mean = scores[:, column].mean()
        assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.01)


def test_equal_graded_scores_are_no_certainty() -> None:
    summary = result(3, 2, scores=np.full((3, 2), 0.5), graded=True).summary()
    low, high = summary["average_interval"]
    assert low < 0.2
    assert high > 0.8
    assert summary["interval"] == [[low, high]] * 2


@pytest.mark.parametrize("graded", [False, True])
def test_one_record_says_nothing_of_others(graded: bool) -> None:
    summary = result(1, 2, scores=np.array([[1.0, 0.0]]), graded=graded).summary()
    assert summary["average_interval"] == [0.0, 1.0]
    assert summary["interval"] == [list(wilson(1, 1)), list(wilson(0, 1))]


def test_figures_by_group() -> None:
    one = result(7, 2, groups=("4k", "8k", "4k", "4k", "8k", "4k", "8k"))
    by_group = one.summary()["by_group"]
    assert list(by_group) == ["4k", "8k"]
    assert [block["records"] for block in by_group.values()] == [4, 3]
    rows = [1, 4, 6]
    assert by_group["8k"]["accuracy"] == pytest.approx(one.scores[rows].mean(axis=0).tolist())
    assert by_group["8k"]["nll"] == pytest.approx((-one.log_likelihoods[rows].mean(axis=0)).tolist())
    assert "by_group" not in result(7, 2, groups=("4k",) * 7).summary()
    assert result(2, 2, groups=("", "")).groups == ()


def test_the_perplexity_of_plain_texts() -> None:
    logs = np.array([[-1.0, -2.0], [-3.0, -1.0]])
    summary = result(2, 2, log_likelihoods=logs, metric="next_token_accuracy", graded=True).summary()
    assert summary["perplexity"] == pytest.approx([math.exp(2.0), math.exp(1.5)])
    assert summary["average_perplexity"] == pytest.approx(math.exp(1.75))
    assert "perplexity" not in result().summary()
    logs[0] = math.nan, -1e6
    summary = result(2, 2, log_likelihoods=logs, metric="next_token_accuracy", graded=True).summary()
    assert summary["perplexity"] == [None, None]
    json.dumps(summary, allow_nan=False)


def test_skipped_records_are_counted() -> None:
    assert result(skipped=("kv-8", "kv-9")).summary()["skipped"] == 2
