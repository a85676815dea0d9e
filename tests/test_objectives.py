"""U against the formula, written out; the fitness of what failed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import RopewalkError
from ropewalk.objectives import DEFAULT_WEIGHTS, Utilisation, position_weights, utilisation

share = st.floats(0, 1)


def formula(accuracy: list[float], first: float, middle: float, last: float) -> float:
    """U = (λ_f·A_first + λ_m·A_middle + λ_l·A_last) / (λ_f + λ_m + λ_l), A_middle the mean of the inner positions."""
    inner = accuracy[1:-1]
    return (first * accuracy[0] + middle * sum(inner) / len(inner) + last * accuracy[-1]) / (first + middle + last)


@given(st.lists(share, min_size=3, max_size=9), st.tuples(*[st.floats(0.01, 5)] * 3))
def test_u_is_the_papers(accuracy: list[float], weights: tuple[float, float, float]) -> None:
    assert float(utilisation(accuracy, weights)) == pytest.approx(formula(accuracy, *weights), abs=1e-12)


@given(st.lists(share, min_size=3, max_size=9))
def test_the_default_weights(accuracy: list[float]) -> None:
    assert DEFAULT_WEIGHTS == (0.8, 1.0, 1.2)
    assert float(utilisation(accuracy)) == pytest.approx(formula(accuracy, 0.8, 1.0, 1.2), abs=1e-12)


def test_u_by_hand() -> None:
    assert float(utilisation([0.5, 0.2, 0.9])) == pytest.approx((0.4 + 0.2 + 1.08) / 3)
    assert float(utilisation([0.79, 0.42, 0.17, 0.07, 0.69])) == pytest.approx((0.632 + 0.22 + 0.828) / 3)


def test_one_and_two_positions_have_no_middle() -> None:
    assert float(utilisation([0.3])) == 0.3
    assert float(utilisation([0.3, 0.8])) == pytest.approx((0.8 * 0.3 + 1.2 * 0.8) / 2.0)
    assert position_weights(1).tolist() == [1.0]
    np.testing.assert_allclose(position_weights(2), [0.4, 0.6])


def test_one_weight_a_position() -> None:
    np.testing.assert_allclose(position_weights(5, [1, 0, 2, 0, 1]), [0.25, 0, 0.5, 0, 0.25])
    np.testing.assert_allclose(position_weights(2, [1, 3]), [0.25, 0.75])
    assert float(utilisation([0.1, 0.9], [0, 1])) == pytest.approx(0.9)


@given(st.integers(1, 12))
def test_weights_sum_to_one(positions: int) -> None:
    assert position_weights(positions).sum() == pytest.approx(1, abs=1e-12)


def test_u_works_along_the_last_axis() -> None:
    accuracy = np.random.default_rng(0).random((4, 3, 5))
    got = utilisation(accuracy)
    assert got.shape == (4, 3)
    assert float(got[2, 1]) == pytest.approx(formula(accuracy[2, 1].tolist(), 0.8, 1.0, 1.2))


@pytest.mark.parametrize(
    ("positions", "weights", "message"),
    [
        (4, (1.0, 1.0), "2 weights for 4 positions: give 3 .* or 4"),
        (3, (), "0 weights for 3 positions"),
        (3, (0.0, 0.0, 0.0), "at least one must be > 0"),
        (2, (0.0, 1.0, 0.0), "at least one must be > 0"),
        (3, (1.0, -1.0, 1.0), "numbers >= 0"),
        (3, (1.0, math.nan, 1.0), "numbers >= 0"),
        (3, (1.0, math.inf, 1.0), "numbers >= 0"),
    ],
)
def test_weights_that_make_no_sense(positions: int, weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(RopewalkError, match=message):
        position_weights(positions, weights)


def test_objectives_that_make_no_sense() -> None:
    with pytest.raises(RopewalkError, match="no measure 'loss', expected one of: likelihood, accuracy"):
        Utilisation("loss")  # type: ignore[arg-type]
    for weights in ((), (0.0, 0.0), (1.0, -1.0, 1.0)):
        with pytest.raises(RopewalkError, match="weights"):
            Utilisation("accuracy", weights)


# Fitness -----------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(3)
LIKELIHOODS, VANILLA = -RNG.random((6, 4)), -RNG.random((6, 4))
SCORES = (RNG.random((6, 4)) > 0.4).astype(np.float64)


def test_fitness_of_likelihoods_is_what_is_gained_over_vanilla() -> None:
    gains = [float(np.mean(LIKELIHOODS[:, column] - VANILLA[:, column])) for column in range(4)]
    fitness = Utilisation("likelihood").fitness(SCORES, LIKELIHOODS, VANILLA)
    assert fitness == pytest.approx(formula(gains, 0.8, 1.0, 1.2), abs=1e-12)
    assert Utilisation("likelihood").fitness(SCORES, VANILLA, VANILLA) == 0.0
    assert Utilisation("likelihood").fitness(SCORES, VANILLA + 0.1, VANILLA) > 0  # higher is better


def test_fitness_of_accuracy() -> None:
    shares = [float(np.mean(SCORES[:, column])) for column in range(4)]
    objective = Utilisation("accuracy", (0.5, 1.0, 1.5))
    assert objective.fitness(SCORES, LIKELIHOODS, VANILLA) == pytest.approx(formula(shares, 0.5, 1.0, 1.5))


@pytest.mark.parametrize("measure", ["likelihood", "accuracy"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_one_likelihood_that_is_not_finite_fails_the_candidate(measure: str, value: float) -> None:
    broken = LIKELIHOODS.copy()
    broken[2, 1] = value
    assert math.isnan(Utilisation(measure).fitness(SCORES, broken, VANILLA))  # type: ignore[arg-type]


def test_a_vanilla_that_is_not_finite_makes_no_winner() -> None:
    """Minus an infinite loss would be an infinite gain."""
    broken = VANILLA.copy()
    broken[0, 0] = -math.inf
    assert math.isnan(Utilisation("likelihood").fitness(SCORES, LIKELIHOODS, broken))
    assert math.isfinite(Utilisation("accuracy").fitness(SCORES, LIKELIHOODS, broken))
