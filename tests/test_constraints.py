"""Constraints against their formulas in float64; the scores they compare."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ropewalk.constraints import Check, PositionFloor, Scores, ShortTextLimit, check_paired
from ropewalk.errors import RopewalkError

RNG = np.random.default_rng(5)
LIKELIHOODS = arrays(np.float64, (4, 3), elements=st.integers(-20_000, 0).map(lambda n: n / 1000))  # no subnormals
VANILLA = Scores(RNG.random((6, 3)), -RNG.random((6, 3)), (0, 37, 74))


def likely(log_likelihoods: np.ndarray) -> Scores:
    return Scores(np.zeros(log_likelihoods.shape), log_likelihoods)


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
        short_by = math.fsum(vanilla[:, column]) / 4 - math.fsum(found[:, column]) / 4 - epsilon
        assert check.penalty == pytest.approx(weight * max(0, short_by) / scale, rel=1e-9, abs=1e-9)
        assert check.holds == (check.penalty == 0)
        assert check.limit == epsilon


@given(LIKELIHOODS)
def test_vanilla_is_on_its_own_floor(vanilla: np.ndarray) -> None:
    checks = PositionFloor().checks(likely(vanilla), likely(vanilla), "likelihood")
    assert [(check.value, check.holds, check.penalty) for check in checks] == [(0.0, True, 0.0)] * 3


def test_a_loss_of_epsilon_is_allowed_and_more_is_not() -> None:
    """Numbers that are exact in binary, so the border itself is tested."""
    found = likely(np.array([[-1.25, -1.5, 0.0]]))
    checks = PositionFloor(0.25, 8).checks(found, likely(np.full((1, 3), -1.0)), "likelihood", "kv", 2)
    assert [check.name for check in checks] == ["position @0 of kv", "position @1 of kv", "position @2 of kv"]
    assert [check.value for check in checks] == [0.25, 0.5, -1.0]
    assert [check.holds for check in checks] == [True, False, True]
    assert [check.penalty for check in checks] == [0.0, 8 * 0.25 / 2, 0.0]


def test_the_floor_of_accuracy_names_gold_positions() -> None:
    lower = Scores(VANILLA.scores / 2, VANILLA.log_likelihoods)
    checks = PositionFloor().checks(lower, VANILLA, "accuracy")
    assert [check.name for check in checks] == ["position @0", "position @37", "position @74"]
    np.testing.assert_allclose([check.value for check in checks], VANILLA.scores.mean(axis=0) / 2)
    assert {check.unit for check in checks} == {"accuracy below vanilla"}


# Short texts -------------------------------------------------------------------------------------------------------


@given(LIKELIHOODS, LIKELIHOODS, st.floats(0, 50), st.floats(0.1, 1000))
def test_the_short_text_limit_is_its_formula(
    found: np.ndarray, vanilla: np.ndarray, percent: float, weight: float
) -> None:
    check = ShortTextLimit(percent, weight).check(likely(found), likely(vanilla))
    ratio = math.exp(-found.mean()) / math.exp(-vanilla.mean())
    assert check.value == pytest.approx(100 * (ratio - 1), rel=1e-6, abs=1e-6)
    assert check.penalty == pytest.approx(weight * max(0, ratio - 1 - percent / 100), rel=1e-6, abs=1e-6 * weight)
    assert check.holds == (check.penalty == 0)


def test_one_per_cent_too_much_costs_one() -> None:
    vanilla = likely(np.full((5, 1), -3.0))
    check = ShortTextLimit(2.0).check(likely(vanilla.log_likelihoods - math.log(1.03)), vanilla)
    assert check.penalty == pytest.approx(1.0)
    assert (check.name, check.unit) == ("short-text perplexity", "% above vanilla")
    assert ShortTextLimit(0.0).check(vanilla, vanilla).holds


def test_a_ruined_model_still_has_a_rank() -> None:
    vanilla = likely(np.zeros((1, 1)))
    assert math.isfinite(ShortTextLimit().check(likely(np.full((1, 1), -1e6)), vanilla).penalty)


# Checks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_holds_nothing(value: float) -> None:
    check = Check("position @0", "accuracy", 0.1, value, 10)
    assert not check.holds
    assert json.loads(json.dumps(check.to_dict(), allow_nan=False))["value"] is None
    broken, sound = likely(np.array([[value]])), likely(np.zeros((1, 1)))
    for pair in ((broken, sound), (sound, broken)):
        assert not ShortTextLimit().check(*pair).holds
        assert not PositionFloor().checks(*pair, "likelihood")[0].holds


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
