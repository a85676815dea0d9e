"""Paired comparisons against SciPy's tests and values worked out by hand; the sentence that reports them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from ropewalk.comparison import compare, verdict_sentence
from ropewalk.errors import DataError
from ropewalk.results import TaskResult

RNG = np.random.default_rng(8)
WEIGHTS = (0.8, 1.0, 1.2)


def result(scores: Any, likelihoods: Any, **changes: Any) -> TaskResult:
    scores, likelihoods = np.asarray(scores, dtype=np.float64), np.asarray(likelihoods, dtype=np.float64)
    fields = {
        "task": {"task": "kv", "seed": 0},
        "positions": tuple(range(0, 2 * scores.shape[1], 2)),
        "records": tuple(f"r{index}" for index in range(len(scores))),
        "margins": np.ones(scores.shape),
        "answer_tokens": np.full(scores.shape, 3),
    }
    return TaskResult(scores=scores, log_likelihoods=likelihoods, **{**fields, **changes})


def pair(records: int = 10, gain: float = 0.0, positions: int = 3) -> tuple[TaskResult, TaskResult]:
    before = -RNG.random((records, positions)) - 1
    after = before + gain + 0.2 * RNG.normal(size=before.shape)
    return result(before > -1.5, before), result(after > -1.5, after)


def exchange_p(before: np.ndarray, after: np.ndarray, statistic: Any) -> float:
    """SciPy's paired permutation test: all exchanges of the two arms of whole records."""

    def difference(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return statistic(b, axis) - statistic(a, axis)

    test = permutation_test((before, after), difference, permutation_type="samples", n_resamples=10_000, axis=0)
    return float(test.pvalue)


def test_by_position() -> None:
    before, after = pair(records=10)
    got = compare(before, after)
    assert got["positions"] == [0, 2, 4]
    for column in range(3):
        one, other = before.verdicts[:, column], after.verdicts[:, column]
        assert got["accuracy"][column] == pytest.approx(other.mean() - one.mean())
        gained, lost = int((~one & other).sum()), int((one & ~other).sum())
        oracle = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert got["accuracy_p"][column] == pytest.approx(oracle)
        row = got["log_likelihood"][column]
        one, other = before.log_likelihoods[:, column], after.log_likelihoods[:, column]
        assert row["difference"] == pytest.approx(np.mean(other - one))
        assert row["low"] < row["difference"] < row["high"]
        assert row["p"] == pytest.approx(exchange_p(one, other, lambda values, axis: values.mean(axis=axis)))


def test_holm_over_positions_by_hand() -> None:
    """Ten records: the first position gains 8 and loses 0, the second gains 2, the third stays."""
    before = np.zeros((10, 3), dtype=np.bool_)
    after = before.copy()
    after[:8, 0] = True
    after[:2, 1] = True
    got = compare(result(before, np.zeros((10, 3))), result(after, np.zeros((10, 3))))
    assert got["accuracy_p"] == pytest.approx([2 / 2**8, 2 / 2**2, 1.0])
    assert got["accuracy_p_holm"] == pytest.approx([3 * 2 / 2**8, 2 * 2 / 2**2, 1.0])
    assert got["log_likelihood_p_holm"] == [1.0, 1.0, 1.0]
    assert got["average"]["difference"] == pytest.approx(10 / 30)
    assert got["utilisation"]["difference"] == pytest.approx((0.8 * 0.8 + 1.0 * 0.2) / 3)
    assert got["worst"]["difference"] == 0.0


def test_a_graded_metric_is_tested_by_exchanging_scores() -> None:
    draw = np.random.default_rng(3)
    before, after = (result(draw.random((9, 2)), np.zeros((9, 2)), graded=True) for _ in range(2))
    got = compare(before, after)
    for column in range(2):
        one, other = before.scores[:, column], after.scores[:, column]
        assert got["accuracy"][column] == pytest.approx(np.mean(other - one))
        oracle = exchange_p(one, other, lambda values, axis: values.mean(axis=axis))
        assert got["accuracy_p"][column] == pytest.approx(oracle)


def test_averages_over_whole_records() -> None:
    """Exact tests with one value a record: exchanging whole records keeps what hangs together together."""
    before, after = pair(records=10)
    got = compare(before, after, WEIGHTS)
    weights = np.array(WEIGHTS) / 3
    for name, one, other in (
        ("average", before.scores, after.scores),
        ("average_log_likelihood", before.log_likelihoods, after.log_likelihoods),
    ):
        assert got[name]["difference"] == pytest.approx((other - one).mean())
        oracle = exchange_p(one.mean(axis=1), other.mean(axis=1), lambda values, axis: values.mean(axis=axis))
        assert got[name]["p"] == pytest.approx(oracle)
    for name, one, other in (
        ("utilisation", before.scores, after.scores),
        ("utilisation_log_likelihood", before.log_likelihoods, after.log_likelihoods),
    ):
        assert got[name]["difference"] == pytest.approx(((other - one) @ weights).mean())
        oracle = exchange_p(one @ weights, other @ weights, lambda values, axis: values.mean(axis=axis))
        assert got[name]["p"] == pytest.approx(oracle)


def test_the_worst_position_may_be_another_one_afterwards() -> None:
    before = np.array([[1, 0, 0]] * 4 + [[1, 1, 0]] * 4, dtype=np.bool_)
    after = np.array([[0, 1, 1]] * 6 + [[1, 1, 1]] * 2, dtype=np.bool_)
    got = compare(result(before, np.zeros((8, 3))), result(after, np.zeros((8, 3))))
    assert got["worst"]["difference"] == pytest.approx(2 / 8)


def test_weights_are_used() -> None:
    before, after = pair()
    all_on_the_last = compare(before, after, (0.0, 0.0, 1.0))["utilisation_log_likelihood"]["difference"]
    assert all_on_the_last == pytest.approx((after.log_likelihoods - before.log_likelihoods)[:, 2].mean())


def test_equal_results_differ_in_nothing() -> None:
    before, _ = pair()
    got = compare(before, before)
    for name in ("average", "utilisation", "worst", "average_log_likelihood", "utilisation_log_likelihood"):
        assert got[name] == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert got["accuracy_p"] == [1.0, 1.0, 1.0]


def test_exchanging_the_arms_changes_the_sign() -> None:
    before, after = pair()
    there, back = compare(before, after), compare(after, before)
    assert there["average_log_likelihood"]["difference"] == -back["average_log_likelihood"]["difference"]
    assert there["average_log_likelihood"]["p"] == back["average_log_likelihood"]["p"]


def test_many_records_use_random_exchanges_with_a_fixed_seed() -> None:
    before, after = pair(records=60, gain=0.05)
    assert compare(before, after) == compare(before, after)
    oracle = exchange_p(
        before.log_likelihoods.mean(axis=1), after.log_likelihoods.mean(axis=1), lambda values, axis: values.mean(axis)
    )
    assert compare(before, after)["average_log_likelihood"]["p"] == pytest.approx(oracle, abs=0.02)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_likelihoods_that_are_not_finite(value: float) -> None:
    before, after = pair()
    after.log_likelihoods[1, 2] = value
    got = compare(before, after)
    nothing = {"difference": None, "low": None, "high": None, "p": None}
    assert got["log_likelihood"][2] == got["average_log_likelihood"] == got["utilisation_log_likelihood"] == nothing
    assert got["log_likelihood"][0]["p"] is not None
    assert got["log_likelihood_p_holm"] is None
    assert got["average"]["p"] is not None
    json.dumps(got, allow_nan=False)
    assert verdict_sentence(got) == (
        "With the found factors some log-likelihoods are not finite, so nothing can be said of a gain."
    )


def test_it_is_plain_json() -> None:
    got = compare(*pair())
    assert json.loads(json.dumps(got, allow_nan=False)) == got


@pytest.mark.parametrize(
    "changes",
    [
        {"records": tuple("abcdefghij")},
        {"positions": (0, 1, 2)},
        {"task": {"task": "kv", "seed": 1}},
        {"metric": "kv_match"},
        {"generated": True},
        {"skipped": ("r11",)},
    ],
)
def test_other_examples_are_refused(changes: dict[str, Any]) -> None:
    before, after = pair()
    other = result(after.scores, after.log_likelihoods, **changes)
    with pytest.raises(DataError, match="different examples"):
        compare(before, other)


# The sentence ------------------------------------------------------------------------------------------------------


def shifted(accuracy: int, likelihood: float, records: int = 40) -> dict[str, Any]:
    """A comparison in which so many records of the 40 change their verdicts, and every likelihood by so much."""
    before, after = np.full((records, 2), accuracy < 0), np.full((records, 2), accuracy < 0)
    after[: abs(accuracy)] = accuracy > 0
    values = -np.ones((records, 2))
    return compare(result(before, values), result(after, values + likelihood))


def test_sentence_of_a_gain() -> None:
    assert verdict_sentence(shifted(20, 0.125)) == (
        "On held-out records the found factors raise the answer log-likelihood outside the noise "
        "(+0.125 nats a token, p = 0.0001), and raise accuracy outside the noise (+50 points, p = 0.0001)."
    )


def test_sentence_of_a_loss() -> None:
    assert verdict_sentence(shifted(-20, -0.125)) == (
        "On held-out records the found factors LOWER the answer log-likelihood outside the noise "
        "(-0.125 nats a token, p = 0.0001), and LOWER accuracy outside the noise (-50 points, p = 0.0001)."
    )


def test_sentence_of_noise() -> None:
    assert verdict_sentence(shifted(1, 0.0), "uniform factors") == (
        "On held-out records uniform factors change the answer log-likelihood within the noise only "
        "(+0 nats a token, p = 1), and change accuracy within the noise only (+2.5 points, p = 1)."
    )


def test_a_gain_in_one_is_not_a_gain_in_the_other() -> None:
    sentence = verdict_sentence(shifted(1, 0.125))
    assert "raise the answer log-likelihood outside the noise" in sentence
    assert "change accuracy within the noise only" in sentence


def test_a_text_has_no_answer() -> None:
    names = {"metric": "next_token_accuracy", "graded": True}
    before = result(np.full((9, 2), 0.5), -np.ones((9, 2)), **names)
    after = result(np.full((9, 2), 0.75), -np.ones((9, 2)) / 2, **names)
    sentence = verdict_sentence(compare(before, after))
    assert "raise the text log-likelihood outside the noise (+0.5 nats a token" in sentence
    assert "raise next token accuracy outside the noise (+25 points" in sentence
