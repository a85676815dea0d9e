"""The quadratic surface: it finds a known one, and what it says of directions is what the surface does there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.analysis.parts.surface import Surface, design


@pytest.mark.parametrize("dimensions", [2, 3, 4, 6])
def test_the_design_has_each_alone_and_each_two_together(dimensions: int) -> None:
    steps = design(dimensions)
    assert len(steps) == 1 + 2 * dimensions * dimensions
    assert len({tuple(step) for step in steps}) == len(steps)
    assert set(np.abs(steps).sum(axis=1)) == {0, 1, 2}


@given(seed=st.integers(0, 1000), dimensions=st.integers(2, 5))
def test_a_quadratic_surface_is_found_exactly(seed: int, dimensions: int) -> None:
    draw = np.random.default_rng(seed)
    slope, half = draw.normal(size=dimensions), draw.normal(size=(dimensions, dimensions))
    hessian = half + half.T

    def value(step: np.ndarray) -> float:
        return float(slope @ step + step @ hessian @ step / 2)

    steps = design(dimensions)
    responses = np.array([[value(step) for step in steps], [2 * value(step) for step in steps]])
    surface = Surface.fit(steps, responses)
    np.testing.assert_allclose(surface.slopes, [slope, 2 * slope], atol=1e-9)
    np.testing.assert_allclose(surface.hessians, [hessian, 2 * hessian], atol=1e-9)
    assert surface.explained == pytest.approx(1.0)
    assert surface.misfit == pytest.approx(0.0, abs=1e-9)
    for vector in surface.eigenvectors():
        slopes, curvatures = surface.along(vector)
        assert slopes[0] == pytest.approx((value(vector) - value(-vector)) / 2, abs=1e-9)
        assert curvatures[0] == pytest.approx((value(vector) + value(-vector)) / 2, abs=1e-9)
        assert surface.mean_at(vector) == pytest.approx(1.5 * value(vector), abs=1e-9)


def test_directions_come_by_falling_curvature() -> None:
    steps = design(3)
    responses = (steps * steps) @ np.array([1.0, -5.0, 0.1])
    vectors = Surface.fit(steps, responses[None]).eigenvectors()
    np.testing.assert_allclose(vectors, np.eye(3)[[1, 0, 2]], atol=1e-9)


def test_what_no_surface_explains_is_said() -> None:
    draw = np.random.default_rng(0)
    surface = Surface.fit(design(4), draw.normal(size=(3, 33)))
    assert 0 <= surface.explained < 1
    assert 0.1 < surface.misfit < 1
    again = Surface.from_json(surface.to_json())
    assert again.mean_at(np.ones(4)) == pytest.approx(surface.mean_at(np.ones(4)))
