"""Choices under constraints, against trying all of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.constrained_choice import constrained_choice


def problem(seed: int, layers: int, nodes: int, constraints: int) -> tuple[np.ndarray, ...]:
    """The first node gains and loses nothing; the limits leave room for about half of what the best choice loses."""
    rng = np.random.default_rng(seed)
    gains, losses = rng.standard_normal((layers, nodes)), rng.standard_normal((constraints, layers, nodes))
    gains[:, 0], losses[:, :, 0] = 0, 0
    greedy = losses[:, np.arange(layers), gains.argmax(axis=1)].sum(axis=1)
    return gains, losses, np.maximum(0.0, greedy / 2), np.zeros(layers, dtype=np.int64)


def brute_force(gains: np.ndarray, losses: np.ndarray, limits: np.ndarray) -> float:
    layers = np.arange(len(gains))
    best = -np.inf
    for choice in product(range(gains.shape[1]), repeat=len(gains)):
        if (losses[:, layers, list(choice)].sum(axis=1) <= limits + 1e-12).all():
            best = max(best, float(gains[layers, list(choice)].sum()))
    return best


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 5), st.integers(1, 3))
def test_limits_are_kept_and_no_choice_is_better_than_the_best(
    seed: int, layers: int, nodes: int, constraints: int
) -> None:
    gains, losses, limits, still = problem(seed, layers, nodes, constraints)
    choice, multipliers = constrained_choice(gains, losses, limits, still)
    rows = np.arange(layers)
    assert (losses[:, rows, choice].sum(axis=1) <= limits + 1e-5).all()
    assert (multipliers >= 0).all()
    assert 0 <= gains[rows, choice].sum() <= brute_force(gains, losses, limits) + 1e-6


def test_it_comes_near_the_best_choice() -> None:
    """Of small problems, all choices of which are tried, hardly anything is lost."""
    reached, best = 0.0, 0.0
    for seed in range(60):
        gains, losses, limits, still = problem(seed, 6, 5, 2)
        choice, _ = constrained_choice(gains, losses, limits, still)
        reached += float(gains[np.arange(6), choice].sum())
        best += brute_force(gains, losses, limits)
    assert reached > 0.98 * best


def test_many_layers_leave_hardly_a_gap() -> None:
    """The dual's value bounds every choice from above."""
    gains, losses, limits, still = problem(3, 40, 14, 5)
    choice, multipliers = constrained_choice(gains, losses, limits, still)
    bound = (gains - np.tensordot(multipliers, losses, axes=1)).max(axis=1).sum() + multipliers @ limits
    assert gains[np.arange(40), choice].sum() > 0.97 * bound


def test_without_constraints_or_where_none_binds_every_choice_is_the_best() -> None:
    gains, losses, limits, still = problem(1, 6, 5, 2)
    for own, room in ((losses[:0], limits[:0]), (losses, limits + 100)):
        choice, multipliers = constrained_choice(gains, own, room, still)
        assert choice.tolist() == gains.argmax(axis=1).tolist()
        assert multipliers.tolist() == [0.0] * len(room)


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_nothing_changes_where_every_change_loses_too_much(limit: float) -> None:
    gains, losses = np.array([[0.0, 1.0]] * 3), np.array([[[0.0, 1.0]] * 3])
    choice, multipliers = constrained_choice(gains, losses, np.array([limit]), np.zeros(3, dtype=np.int64))
    assert choice.tolist() == [0, 0, 0]
    assert multipliers[0] > 0
