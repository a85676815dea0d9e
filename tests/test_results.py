"""Results: figures, JSON and back, and what may be compared."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import DataError
from ropewalk.results import TaskResult, check_same_examples


def result(records: int = 4, positions: int = 3, *, seed: int = 0, **more: Any) -> TaskResult:
    draw = np.random.default_rng(seed)
    shape = (records, positions)
    fields: dict[str, Any] = {
        "task": {"task": "kv", "keys": 10, "positions": list(range(positions)), "prompt": {"format": "plain"}},
        "positions": tuple(range(positions)),
        "records": tuple(f"kv-{index}" for index in range(records)),
        "verdicts": draw.random(shape) < 0.5,
        "log_likelihoods": -draw.random(shape),
        "margins": draw.random(shape),
        "answer_tokens": draw.integers(20, 30, shape),
    }
    return TaskResult(**(fields | more))


def assert_equal(one: TaskResult, other: TaskResult) -> None:
    assert (one.task, one.positions, one.records) == (other.task, other.positions, other.records)
    for name in ("verdicts", "log_likelihoods", "margins", "answer_tokens"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
def test_json_and_back_is_exact(records: int, positions: int, seed: int) -> None:
    one = result(records, positions, seed=seed)
    assert_equal(TaskResult.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False))), one)


def test_nan_is_null_in_json_and_nan_again() -> None:
    one = result(log_likelihoods=np.full((4, 3), math.nan), margins=np.full((4, 3), math.nan))
    text = json.dumps(one.to_dict(), allow_nan=False)
    again = TaskResult.from_dict(json.loads(text))
    assert_equal(again, one)
    assert again.failures == 12


def test_figures_by_position() -> None:
    verdicts = np.array([[True, False], [True, True], [False, False], [True, False]])
    logs = np.array([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0], [-7.0, -8.0]])
    one = result(4, 2, verdicts=verdicts, log_likelihoods=logs)
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
    assert summary["average"] == pytest.approx(one.verdicts.mean())
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
        {"task": {"task": "kv", "keys": 10, "positions": [0, 1, 2], "prompt": {"format": "chat"}}},
    ],
)
def test_results_of_different_examples_are_not_compared(other: dict[str, Any]) -> None:
    check_same_examples(result(), result(seed=1))
    with pytest.raises(DataError, match="over different examples"):
        check_same_examples(result(), dataclasses.replace(result(), **other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdicts": [[True]]}, r'field "verdicts" .* shape \(1, 1\), expected \(4, 3\)'),
        ({"margins": "none"}, 'field "margins" of a task result: expected numbers'),
        ({"log_likelihoods": [[0.0], [0.0, 1.0]]}, 'field "log_likelihoods"'),
    ],
)
def test_a_malformed_document_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TaskResult.from_dict({**result().to_dict(), **change})


def test_a_missing_field_is_named() -> None:
    document = result().to_dict()
    del document["margins"]
    with pytest.raises(DataError, match="no field 'margins'"):
        TaskResult.from_dict(document)


@pytest.mark.parametrize("verdict", [False, True])
def test_where_all_verdicts_agree_the_average_is_no_certainty(verdict: bool) -> None:
    few = TaskResult(
        task={},
        positions=(0, 1),
        records=("a", "b", "c"),
        verdicts=np.full((3, 2), verdict),
        log_likelihoods=np.zeros((3, 2)),
        margins=np.zeros((3, 2)),
        answer_tokens=np.ones((3, 2), dtype=np.int64),
    )
    low, high = few.summary()["average_interval"]
    assert high - low > 0.5
    assert few.summary()["utilisation_interval"] == [low, high]
