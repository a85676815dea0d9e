"""Constraints against their formulas in float64; the scores they compare."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t as student

from ropewalk.constraints import Check, Measure, PositionFloor, Scores, ShortTextLimit, check_paired, noise_of_means
from ropewalk.errors import RopewalkError

RNG = np.random.default_rng(5)
LIKELIHOODS = arrays(np.float64, (4, 3), elements=st.integers(-20_000, 0).map(lambda n: n / 1000))  # no subnormals
VANILLA = Scores(RNG.random((6, 3)), -RNG.random((6, 3)), (0, 37, 74))


def likely(log_likelihoods: np.ndarray) -> Scores:
    return Scores(np.zeros(log_likelihoods.shape), log_likelihoods)


def by_hand(losses: np.ndarray) -> tuple[float, float]:
    """Mean of some losses [records] and its noise: t · standard deviation / √records."""
    values = losses.tolist()
    quantile = student.isf(0.05, len(values) - 1)
    return math.fsum(values) / len(values), quantile * statistics.stdev(values) / math.sqrt(len(values))


def violations(checks: list[Check]) -> float:
    return float(np.mean([not check.holds for check in checks]))


# Scores ------------------------------------------------------------------------------------------------------------


def test_rows_are_records() -> None:
    for rows in ([4, 1], np.array([4, 1])):
        some = VANILLA.rows(rows)
        np.testing.assert_array_equal(some.scores, VANILLA.scores[[4, 1]])
        np.testing.assert_array_equal(some.log_likelihoods, VANILLA.log_likelihoods[[4, 1]])
        assert some.positions == (0, 37, 74)
    np.testing.assert_array_equal(VANILLA.rows(slice(2)).scores, VANILLA.scores[:2])
    with pytest.raises(RopewalkError, match=r"scores \(0, 3\).*at least one of each"):
        VANILLA.rows([])


def test_finite_means_every_number() -> None:
    assert VANILLA.finite
    for value in (math.nan, math.inf, -math.inf):
        log_likelihoods = VANILLA.log_likelihoods.copy()
        log_likelihoods[5, 2] = value
        assert not Scores(VANILLA.scores, log_likelihoods).finite
    assert not Scores(np.array([[math.nan]]), np.zeros((1, 1))).finite


@pytest.mark.parametrize(
    ("scores", "log_likelihoods", "positions", "message"),
    [
        (np.zeros(3), np.zeros(3), (), r"scores \(3,\) and log-likelihoods \(3,\): expected the same \[records, pos"),
        (np.zeros((2, 3)), np.zeros((3, 2)), (), r"scores \(2, 3\) and log-likelihoods \(3, 2\): expected the same"),
        (np.zeros((2, 0)), np.zeros((2, 0)), (), "at least one of each"),
        (np.zeros((2, 3)), np.zeros((2, 3)), (0, 5), r"gold positions \[0, 5\]: expected 3, one a column, all diff"),
        (np.zeros((2, 2)), np.zeros((2, 2)), (5, 5), r"gold positions \[5, 5\]: expected 2"),
        (np.array([[50.0, math.nan]]), np.zeros((1, 2)), (), r"scores from 50 to 50: expected a metric in \[0, 1\]"),
        (np.array([[-0.5, 1.0]]), np.zeros((1, 2)), (), r"scores from -0.5 to 1: expected a metric"),
    ],
)
def test_scores_that_make_no_sense(
    scores: np.ndarray, log_likelihoods: np.ndarray, positions: tuple[int, ...], message: str
) -> None:
    with pytest.raises(RopewalkError, match=message):
        Scores(scores, log_likelihoods, positions)


def test_only_the_same_records_and_positions_are_compared() -> None:
    check_paired("kv", VANILLA, Scores(VANILLA.scores, VANILLA.log_likelihoods))
    with pytest.raises(ValueError, match=r"scores of kv \(6, 3\) and \(2, 3\): expected the same records"):
        check_paired("kv", VANILLA, VANILLA.rows([0, 1]))
    with pytest.raises(ValueError, match=r"scores of kv at \(0, 37, 74\) and \(0, 1, 2\): not paired"):
        check_paired("kv", VANILLA, Scores(VANILLA.scores, VANILLA.log_likelihoods, (0, 1, 2)))


# Positions ---------------------------------------------------------------------------------------------------------


@given(LIKELIHOODS, LIKELIHOODS, st.floats(0, 3), st.floats(0.1, 100), st.floats(0.1, 10))
def test_the_floor_is_its_formula(
    found: np.ndarray, vanilla: np.ndarray, epsilon: float, weight: float, scale: float
) -> None:
    checks = PositionFloor(epsilon, weight).checks(likely(found), likely(vanilla), "likelihood", scale=scale)
    for column, check in enumerate(checks):
        loss, noise = by_hand(vanilla[:, column] - found[:, column])
        assert (check.value, check.margin) == pytest.approx((loss, noise), rel=1e-9, abs=1e-9)
        assert check.penalty == pytest.approx(weight * max(0, loss - noise - epsilon) / scale, rel=1e-9, abs=1e-6)
        assert check.holds == (check.penalty == 0)
        assert check.limit == epsilon


@given(LIKELIHOODS)
def test_vanilla_is_on_its_own_floor(vanilla: np.ndarray) -> None:
    checks = PositionFloor().checks(likely(vanilla), likely(vanilla), "likelihood")
    assert [(check.value, check.holds, check.penalty) for check in checks] == [(0.0, True, 0.0)] * 3


def test_a_loss_of_epsilon_is_allowed_and_more_is_not() -> None:
    """Numbers that are exact in binary, so the border itself is tested."""
    found = likely(np.array([[-1.25, -1.5, 0.0]] * 2))
    checks = PositionFloor(0.25, 8).checks(found, likely(np.full((2, 3), -1.0)), "likelihood", "kv", 2)
    assert [check.name for check in checks] == ["position @0 of kv", "position @1 of kv", "position @2 of kv"]
    assert [check.value for check in checks] == [0.25, 0.5, -1.0]
    assert [check.margin for check in checks] == [0.0] * 3
    assert [check.holds for check in checks] == [True, False, True]
    assert [check.penalty for check in checks] == [0.0, 8 * 0.25 / 2, 0.0]


def test_the_floor_of_accuracy_names_gold_positions() -> None:
    lower = Scores(VANILLA.scores / 2, VANILLA.log_likelihoods)
    checks = PositionFloor().checks(lower, VANILLA, "accuracy")
    assert [check.name for check in checks] == ["position @0", "position @37", "position @74"]
    np.testing.assert_allclose([check.value for check in checks], VANILLA.scores.mean(axis=0) / 2)
    assert {check.unit for check in checks} == {"accuracy below vanilla"}


# Noise -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("records", [2, 4, 24])
def test_noise_alone_violates_the_floor_in_five_per_cent(records: int) -> None:
    """20,000 positions where both have the same mean; the records' own difficulty is common, thus paired away."""
    rng = np.random.default_rng(records)
    common = rng.normal(-40, 5, (records, 1))
    found, vanilla = (likely(common + rng.normal(0, spread, (records, 20_000))) for spread in (1.0, 0.3))
    checks = PositionFloor().checks(found, vanilla, "likelihood")
    assert violations(checks) == pytest.approx(0.05, abs=0.006)
    drowned = np.maximum([check.value for check in checks], 0).mean()
    assert np.mean([check.penalty for check in checks]) < 10 * drowned / 5  # of what it cost without a margin
    assert violations(PositionFloor(0.5).checks(found, vanilla, "likelihood")) < 0.05


def test_noise_of_accuracy_too() -> None:
    """24 records of a 0/1 metric that changes rarely, or often."""
    rng = np.random.default_rng(0)
    for chance in (0.02, 0.2, 0.5):
        found, vanilla = (
            Scores((rng.random((24, 5000)) < chance).astype(np.float64), np.zeros((24, 5000))) for _ in range(2)
        )
        assert violations(PositionFloor().checks(found, vanilla, "accuracy")) < 0.065


@given(arrays(np.float64, (1, 3), elements=st.integers(-20_000, 0)), st.sampled_from(["likelihood", "accuracy"]))
def test_one_record_violates_nothing(found: np.ndarray, measure: Measure) -> None:
    pair = Scores(np.zeros((1, 3)), found), Scores(np.ones((1, 3)), np.zeros((1, 3)))
    for check in [*PositionFloor().checks(*pair, measure), ShortTextLimit(0.0).check(*pair)]:
        assert (check.margin, check.holds, check.penalty) == (math.inf, True, 0.0)
        told = json.loads(json.dumps(check.to_dict(), allow_nan=False))
        assert (told["margin"], told["holds"]) == (None, True)
        assert told["value"] == check.value


def test_a_clear_loss_is_penalised_and_a_doubtful_one_is_not() -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, (24, 1))
    vanilla = likely(np.full((24, 3), -1.0))
    found = likely(-1.0 + noise - noise.mean() - np.array([0.5, 0.04, -0.5]))
    clear, doubtful, gain = PositionFloor(0.0, 10).checks(found, vanilla, "likelihood")
    margin = student.isf(0.05, 23) * noise.std(ddof=1) / math.sqrt(24)
    assert clear.penalty == pytest.approx(10 * (0.5 - margin))
    assert 0.04 < margin < 0.1
    assert (doubtful.value, doubtful.penalty, gain.penalty) == (pytest.approx(0.04), 0.0, 0.0)
    accuracy = np.zeros((24, 1)), np.repeat([1.0, 0.0], [8, 16])[:, None]  # 8 of 24 records lost, none won
    assert not PositionFloor().checks(*(Scores(one, one - 1) for one in accuracy), "accuracy")[0].holds


@pytest.mark.parametrize("records", [2, 16])
def test_the_noise_is_of_means_over_records(records: int) -> None:
    losses = np.random.default_rng(2).normal(3, 7, (records, 4))
    expected = [by_hand(column)[1] for column in losses.T]
    np.testing.assert_allclose(noise_of_means(losses), expected, rtol=1e-12)
    np.testing.assert_allclose(noise_of_means(-2 * losses + 1), 2 * np.array(expected), rtol=1e-12)
    assert noise_of_means(np.ones((records, 2))).tolist() == [0, 0]
    assert noise_of_means(losses[:1]).tolist() == [math.inf] * 4


# Short texts -------------------------------------------------------------------------------------------------------


@given(LIKELIHOODS, LIKELIHOODS, st.floats(0, 50), st.floats(0.1, 1000))
def test_the_short_text_limit_is_its_formula(
    found: np.ndarray, vanilla: np.ndarray, percent: float, weight: float
) -> None:
    check = ShortTextLimit(percent, weight).check(likely(found), likely(vanilla))
    mean, noise = by_hand((vanilla - found).mean(axis=1))  # a record is a text
    ratio, least = math.exp(mean), math.exp(mean - noise)
    assert check.value == pytest.approx(100 * (ratio - 1), rel=1e-6, abs=1e-6)
    assert check.value - check.margin == pytest.approx(100 * (least - 1), rel=1e-6, abs=1e-6)
    assert check.penalty == pytest.approx(weight * max(0, least - 1 - percent / 100), rel=1e-6, abs=1e-6 * weight)
    assert check.holds == (check.penalty == 0)


def test_one_per_cent_too_much_costs_one() -> None:
    vanilla = likely(np.full((5, 1), -3.0))
    check = ShortTextLimit(2.0).check(likely(vanilla.log_likelihoods - math.log(1.03)), vanilla)
    assert check.penalty == pytest.approx(1.0)
    assert (check.name, check.unit) == ("short-text perplexity", "% above vanilla")
    assert ShortTextLimit(0.0).check(vanilla, vanilla).holds


def test_noise_alone_exceeds_the_short_text_limit_in_five_per_cent() -> None:
    """Texts that differ much from each other, and candidates that differ from vanilla by noise on each."""
    rng, vanilla = np.random.default_rng(3), likely(RNG.normal(-30, 5, (16, 1)))
    found = [likely(vanilla.log_likelihoods + rng.normal(0, 0.05, (16, 1))) for _ in range(5000)]
    assert violations([ShortTextLimit(0.0).check(one, vanilla) for one in found]) == pytest.approx(0.05, abs=0.012)
    worse = [likely(one.log_likelihoods - 0.1) for one in found[:100]]
    assert violations([ShortTextLimit(1.0).check(one, vanilla) for one in worse]) == 1


def test_a_ruined_model_still_has_a_rank() -> None:
    vanilla = likely(np.zeros((2, 1)))
    for lost in ([1e6, 1e6], [10.0, 18.0], [1e6 + 1, 1e6]):
        check = ShortTextLimit().check(likely(-np.array(lost)[:, None]), vanilla)
        assert math.isfinite(check.penalty)
        assert check.holds == (lost == [10.0, 18.0])  # 14 ± 4, which with one degree of freedom may be noise
        assert check.holds == (check.penalty == 0)


# Checks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_holds_nothing(value: float) -> None:
    check = Check("position @0", "accuracy", 0.1, value, 10)
    assert not check.holds
    assert json.loads(json.dumps(check.to_dict(), allow_nan=False))["value"] is None
    for records in (1, 3):
        broken, sound = likely(np.array([[value], [-1.0], [-2.0]])[:records]), likely(np.zeros((records, 1)))
        for pair in ((broken, sound), (sound, broken)):
            for failed in (ShortTextLimit().check(*pair), *PositionFloor().checks(*pair, "likelihood")):
                assert not failed.holds
                told = json.loads(json.dumps(failed.to_dict(), allow_nan=False))
                assert told["value"] is told["margin"] is None


def test_a_check_holds_up_to_limit_and_margin() -> None:
    for value, holds, penalty in ((0.75, True, 0.0), (0.875, False, 10 * 0.125)):
        check = Check("position @0", "accuracy", 0.25, value, 10, 0.5)
        assert (check.holds, check.penalty) == (holds, penalty)
        assert check.to_dict() == {
            "name": "position @0", "unit": "accuracy", "limit": 0.25, "value": value, "margin": 0.5, "holds": holds
        }  # fmt: skip
    assert Check("position @0", "accuracy", 0.25, 0.26, 10).margin == 0
    assert not Check("position @0", "accuracy", 0.25, 0.26, 10).holds


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_constraints_that_make_no_sense(value: float) -> None:
    with pytest.raises(RopewalkError, match=rf"^epsilon {value}: expected a finite number >= 0, .* leave it out"):
        PositionFloor(value)
    with pytest.raises(RopewalkError, match=rf"^percent {value}: expected a finite number >= 0, how much short-text"):
        ShortTextLimit(value)
    for weight in (value, 0.0):
        with pytest.raises(RopewalkError, match=rf"floor's weight {weight}: expected a finite number > 0"):
            PositionFloor(0.1, weight)
        with pytest.raises(RopewalkError, match=rf"limit's weight {weight}: expected a finite number > 0"):
            ShortTextLimit(1.0, weight)
