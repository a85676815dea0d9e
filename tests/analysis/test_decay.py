"""Decay: the bound in theory against a sum written out, slopes of known curves, and a model whose scores must fall."""

from __future__ import annotations

import cmath
import math
from itertools import pairwise

import numpy as np
import pytest

from ropewalk.analysis.decay import Decay, height, slope
from ropewalk.analysis.parts.attention_statistics import distance_starts
from ropewalk.analysis.parts.readings import roformer_bound


def test_distances_are_half_octaves() -> None:
    assert distance_starts(100).tolist() == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91]
    assert distance_starts(2).tolist() == distance_starts(1).tolist() == [0, 1]
    for tokens in range(2, 300):
        shorter, longer = distance_starts(tokens).tolist(), distance_starts(300).tolist()
        assert shorter == [start for start in longer if start < tokens]


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_the_bound_is_roformers(factor: float) -> None:
    """Mean over i of |sum of the first i rotations|, averaged over each class of distance, over its value at 0."""
    pairs, tokens = 8, 40
    theta = [10000 ** (-2 * pair / (2 * pairs)) for pair in range(pairs)]

    def bound(distance: float) -> float:
        sums = [abs(sum(cmath.exp(1j * distance * angle) for angle in theta[: i + 1])) for i in range(pairs)]
        return sum(sums) / pairs

    rotations = np.exp(1j * np.outer(np.arange(tokens) / factor, theta))
    starts = [*distance_starts(tokens).tolist(), tokens]
    expected = [np.mean([bound(m / factor) for m in range(low, high)]) / bound(0) for low, high in pairwise(starts)]
    found = roformer_bound(rotations)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(roformer_bound(1.7 * rotations), found, rtol=1e-12)  # a scheme's attention scaling


def test_the_slope_is_that_of_a_line_and_passes_over_gaps() -> None:
    starts = distance_starts(500).tolist()
    line = np.array([100.0, *(3 - 0.25 * np.log2(starts[1:]))])  # what is at distance 0 is of another kind
    gaps = np.where(np.arange(len(starts)) % 3 == 0, math.nan, line)
    both = slope(np.stack([line, gaps]), starts)
    np.testing.assert_allclose(both, [-0.25, -0.25], rtol=1e-12)
    noisy = line + np.random.default_rng(0).normal(size=len(starts))
    assert slope(noisy, starts) == pytest.approx(np.polyfit(np.log2(starts[1:]), noisy[1:], 1)[0])
    assert np.isnan(slope(np.full(len(starts), math.nan), starts))


def test_a_factor_lifts_the_bound_as_much_as_it_is_above_1() -> None:
    """The slope over log distance hardly tells: a factor moves the curve along it. Distance 0 is 1 in any case."""
    theta = 10000 ** (-np.arange(16) / 16)
    bounds = np.stack(
        [roformer_bound(np.exp(1j * np.outer(np.arange(600) / s, theta))) for s in (0.7, 0.9, 1, 1.1, 1.3)]
    )
    assert (bounds[:, 0] == 1).all()
    assert (np.diff(height(bounds)) > 0).all()
    assert height(np.array([[1.0, 0.5, math.nan, 0.1]]))[0] == pytest.approx(-0.7)


@pytest.mark.parametrize(
    ("rho", "p", "said"), [(0.5, 0.01, "predicts"), (-0.5, 0.01, "goes against"), (0.5, 0.2, "is not found to predict")]
)
def test_the_answer_claims_what_the_test_over_layers_bears(rho: float, p: float, said: str) -> None:
    row = {"rho": rho, "low": rho - 0.1, "high": rho + 0.1, "p": p}
    mean = {"estimate": 0.7, "low": 0.6, "high": 0.8}
    assert f"in a layer {said} the" in Decay().answer({"predicts": {"measured": row}, "decay": {"vanilla": mean}})
