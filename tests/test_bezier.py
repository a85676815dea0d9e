"""Bézier curves against exact arithmetic, and the properties that the search relies on."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BPoly

from ropewalk import bezier
from ropewalk.errors import FactorsError

EPS = np.finfo(np.float64).eps
Y = st.floats(0.3, 4.0)
UNIT = st.floats(0.0, 1.0)
LAYERS = st.integers(2, 48)


def exact_curve(coordinates: list[float], t: float) -> Fraction:
    """De Casteljau in rational arithmetic: no rounding anywhere."""
    level, parameter = [Fraction(c) for c in coordinates], Fraction(t)
    while len(level) > 1:
        level = [a * (1 - parameter) + b * parameter for a, b in pairwise(level)]
    return level[0]


@st.composite
def control_points(draw: st.DrawFn, most: int = 8) -> list[tuple[float, float]]:
    """Points of mode "depth": any inner order up to four, sorted from five on."""
    count = draw(st.integers(2, most))
    inner = draw(st.lists(UNIT, min_size=count - 2, max_size=count - 2))
    x = [0.0, *(sorted(inner) if count > 4 else inner), 1.0]
    return list(zip(x, draw(st.lists(Y, min_size=count, max_size=count)), strict=True))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9), UNIT)
def test_curve_equals_exact_de_casteljau(coordinates: list[float], t: float) -> None:
    exact = exact_curve(coordinates, t)
    largest = max(abs(c) for c in coordinates)
    assert abs(Fraction(bezier.curve(coordinates, [t])[0]) - exact) <= 4 * len(coordinates) * EPS * largest


@given(st.lists(Y, min_size=2, max_size=8), LAYERS, st.data())
def test_mode_uniform_is_the_bernstein_polynomial_and_ignores_x(y: list[float], n: int, data: st.DataObject) -> None:
    x = data.draw(st.lists(st.floats(-5, 5), min_size=len(y), max_size=len(y)))
    factors = bezier.curve_factors(list(zip(x, y, strict=True)), n, "uniform")
    oracle = BPoly(np.array(y)[:, None], [0, 1])(np.arange(n) / (n - 1))
    np.testing.assert_allclose(factors, oracle, rtol=1e-13)
    even = bezier.curve_factors(list(zip(np.linspace(0, 1, len(y)), y, strict=True)), n, "uniform")
    np.testing.assert_array_equal(factors, even)


@given(control_points(), LAYERS)
def test_mode_depth_solves_x_of_t_to_rounding_and_takes_y_there(points: list[tuple[float, float]], n: int) -> None:
    x, y = (list(column) for column in zip(*points, strict=True))
    depth = bezier.depths(n)
    t = bezier.solve_depth(x, depth)
    for parameter, wanted, factor in zip(t, depth, bezier.curve_factors(points, n), strict=True):
        assert abs(exact_curve(x, parameter) - Fraction(wanted)) <= 16 * len(x) * EPS
        assert abs(exact_curve(y, parameter) - Fraction(factor)) <= 16 * len(y) * EPS * max(y)


def test_mode_depth_against_the_roots_of_the_cubic() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        x, y = np.array([0.0, *np.sort(rng.random(2)), 1.0]), rng.uniform(0.7, 1.4, 4)
        power = np.polynomial.Polynomial([0])
        t = np.polynomial.Polynomial([0, 1])
        for k in range(4):
            power = power + x[k] * math.comb(3, k) * t**k * (1 - t) ** (3 - k)
        for layer, factor in enumerate(bezier.curve_factors(np.stack([x, y], axis=1), 12)):
            roots = (power - layer / 11).roots()
            (root,) = {round(r.real, 9) for r in roots if abs(r.imag) < 1e-9 and -1e-9 <= r.real <= 1 + 1e-9}
            assert factor == pytest.approx(float(exact_curve(list(y), root)), abs=1e-7)


@given(control_points(), LAYERS, st.sampled_from(["depth", "uniform"]))
def test_ends_are_exact_and_run_from_the_first_layer_to_the_last(points: list, n: int, mode: bezier.Mode) -> None:
    factors = bezier.curve_factors(points, n, mode)
    assert factors.dtype == np.float64
    assert factors.shape == (n,)
    assert factors[0] == points[0][1]  # P0 is the first scaled layer: the curve isn't reversed
    assert factors[-1] == points[-1][1]


@given(control_points(), LAYERS, st.sampled_from(["depth", "uniform"]))
def test_factors_stay_within_the_control_points(points: list, n: int, mode: bezier.Mode) -> None:
    y = [point[1] for point in points]
    factors = bezier.curve_factors(points, n, mode)
    assert min(y) <= factors.min()
    assert factors.max() <= max(y)


@given(control_points(), LAYERS)
def test_x_of_t_is_monotone(points: list[tuple[float, float]], n: int) -> None:
    x = [point[0] for point in points]
    along = bezier.curve(x, np.linspace(0, 1, 201))
    assert (np.diff(along) >= -8 * EPS).all()
    assert (np.diff(bezier.solve_depth(x, bezier.depths(n))) >= 0).all()


@given(Y, st.integers(2, 8), st.integers(1, 48), st.data())
def test_equal_y_gives_exactly_that_factor(y: float, count: int, n: int, data: st.DataObject) -> None:
    inner = sorted(data.draw(st.lists(UNIT, min_size=count - 2, max_size=count - 2)))
    points = [(x, y) for x in [0.0, *inner, 1.0]]
    for mode in ("depth", "uniform"):
        assert bezier.curve_factors(points, n, mode).tolist() == [y] * n


@given(control_points(), st.sampled_from(["depth", "uniform"]))
def test_one_layer_gets_the_first_point(points: list, mode: bezier.Mode) -> None:
    assert bezier.curve_factors(points, 1, mode).tolist() == [points[0][1]]


def test_triple_root_agrees_with_the_closed_form() -> None:
    """x = (0, 1, 0, 1) is x(t) = 1/2 + 4 (t - 1/2)^3, so t = 1/2 + cbrt((depth - 1/2) / 4)."""
    depth = bezier.depths(31)
    t = bezier.solve_depth([0, 1, 0, 1], depth)
    np.testing.assert_allclose(t, 0.5 + np.cbrt((depth - 0.5) / 4), atol=1e-5)  # the cube root of the rounding error
    away = np.abs(depth - 0.5) > 0.01
    np.testing.assert_allclose(t[away], 0.5 + np.cbrt((depth[away] - 0.5) / 4), atol=1e-13)


def test_two_points_are_a_straight_line() -> None:
    expected = 1.15 + (1.0 - 1.15) * np.arange(24) / 23
    for mode in ("depth", "uniform"):
        np.testing.assert_allclose(bezier.curve_factors([(0, 1.15), (1, 1.0)], 24, mode), expected, rtol=4 * EPS)


@pytest.mark.parametrize(
    ("points", "mode", "says"),
    [
        ([(0, 1)], "depth", "P >= 2"),
        ([], "depth", "P >= 2"),
        ([(0, 1, 2), (1, 1, 2)], "depth", "[P, 2]"),
        ([(0, 1), (1,)], "depth", "list of (x, y) pairs"),
        (None, "depth", "expected numbers"),
        ([("0", "1"), ("1", "1")], "depth", "expected numbers"),
        ([(False, True), (True, True)], "depth", "expected numbers"),
        ([(0, 1), (1, math.nan)], "depth", "finite"),
        ([(0, 1), (1, math.inf)], "uniform", "finite"),
        ([(0, 1), (1, 0)], "depth", "y > 0"),
        ([(0, 1), (1, -1)], "uniform", "y > 0"),
        ([(0.1, 1), (1, 1)], "depth", "from 0 to 1"),
        ([(0, 1), (0.9, 1)], "depth", "from 0 to 1"),
        ([(0, 1), (1.2, 1), (1, 1)], "depth", "inner ones in [0, 1]"),
        ([(0, 1), (-0.2, 1), (1, 1)], "depth", "inner ones in [0, 1]"),
        ([(0, 1), (0.6, 1), (0.5, 1), (0.7, 1), (1, 1)], "depth", "sorted"),
        ([(0, 1), (1, 1)], "along", "expected one of depth, uniform"),
    ],
)
def test_bad_control_points_are_refused(points: object, mode: bezier.Mode, says: str) -> None:
    with pytest.raises(FactorsError) as caught:
        bezier.curve_factors(points, 8, mode)  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_no_layers_are_refused() -> None:
    with pytest.raises(FactorsError, match="at least 1"):
        bezier.curve_factors([(0, 1), (1, 1)], 0)


def residual_of(fit: bezier.CurveFit, factors: np.ndarray, mode: bezier.Mode) -> float:
    again = bezier.curve_factors(fit.control_points, len(factors), mode)
    errors = [float(a) - float(b) for a, b in zip(again, factors, strict=True)]
    return math.sqrt(math.fsum(e * e for e in errors) / len(errors))


@settings(max_examples=6, deadline=None)
@given(control_points(most=4), st.integers(6, 32))
def test_inverse_recovers_a_curve_of_mode_depth(points: list[tuple[float, float]], n: int) -> None:
    factors = bezier.curve_factors(points, n)
    fit = bezier.fit_curve(factors, len(points))
    assert fit.residual < 1e-6


@settings(max_examples=50, deadline=None)
@given(st.lists(Y, min_size=2, max_size=6), st.integers(8, 40))
def test_inverse_recovers_the_very_points_of_mode_uniform(y: list[float], n: int) -> None:
    points = np.stack([np.linspace(0, 1, len(y)), y], axis=1)
    fit = bezier.fit_curve(bezier.curve_factors(points, n, "uniform"), len(y), "uniform")
    np.testing.assert_allclose(fit.control_points, points, rtol=1e-9)
    assert fit.residual < 1e-13


@pytest.mark.parametrize("mode", ["depth", "uniform"])
def test_residual_is_the_root_mean_square_error_and_no_worse_than_a_grid(mode: bezier.Mode) -> None:
    rng = np.random.default_rng(3)
    depth, grid = bezier.depths(20), np.linspace(0, 1, 13)
    for _ in range(2):
        factors = np.exp(rng.normal(0, 0.2, 20))
        fit = bezier.fit_curve(factors, 4, mode)
        assert fit.residual == pytest.approx(residual_of(fit, factors, mode), rel=1e-12)
        for first, second in ((a, b) for a in grid for b in grid):
            x = np.array([0.0, first, second, 1.0])
            t = bezier.solve_depth(x, depth) if mode == "depth" else depth
            bernstein = np.stack([math.comb(3, k) * t**k * (1 - t) ** (3 - k) for k in range(4)], axis=1)
            y = np.linalg.lstsq(bernstein, factors, rcond=None)[0]
            if (y > 0).all():  # others can't be used as control points
                error = math.sqrt(np.mean((bernstein @ y - factors) ** 2))
                assert fit.residual <= error + 1e-12


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.05, 5.0), min_size=1, max_size=16), st.integers(2, 5))
def test_a_fit_can_always_be_used_again(factors: list[float], count: int) -> None:
    fit = bezier.fit_curve(factors, count)
    assert (fit.control_points[:, 1] > 0).all()
    assert fit.residual == pytest.approx(residual_of(fit, np.array(factors), "depth"), rel=1e-9, abs=1e-15)
    spread = float(np.std(factors))
    assert fit.residual <= spread * (1 + 1e-9) + 1e-15  # a constant is among the curves


@pytest.mark.parametrize("mode", ["depth", "uniform"])
def test_equal_factors_fit_exactly(mode: bezier.Mode) -> None:
    fit = bezier.fit_curve([1.1] * 24, 4, mode)
    assert fit.residual == 0
    assert fit.control_points[:, 1].tolist() == [1.1] * 4


def test_fewer_factors_than_points_give_the_flattest_curve() -> None:
    assert bezier.fit_curve([1.3], 4).control_points[:, 1].tolist() == [1.3] * 4
    np.testing.assert_allclose(bezier.fit_curve([1.1, 1.2], 4).control_points[:, 1], [1.1, 1.15, 1.15, 1.2])


@pytest.mark.parametrize(
    ("factors", "count", "mode", "says"),
    [
        ([], 4, "depth", "non-empty"),
        ([1.0, math.nan], 4, "depth", "finite numbers > 0"),
        ([1.0, None], 4, "depth", "finite numbers > 0"),
        ([1.0, 0.0], 4, "depth", "finite numbers > 0"),
        ([1.0, "high"], 4, "depth", "list of numbers"),
        ([[1.0, 1.0]], 4, "depth", "non-empty list"),
        ([1.0, 1.0], 1, "depth", "at least 2"),
        ([1.0, 1.0], 4, "line", "expected one of depth, uniform"),
    ],
)
def test_what_cannot_be_fitted_is_refused(factors: object, count: int, mode: bezier.Mode, says: str) -> None:
    with pytest.raises(FactorsError) as caught:
        bezier.fit_curve(factors, count, mode)  # type: ignore[arg-type]
    assert says in str(caught.value)
