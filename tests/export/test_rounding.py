"""Factors on a grid, and the tables that they take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ropewalk
from ropewalk.errors import RopewalkError
from ropewalk.export.parts.rounding import rounded, tables
from ropewalk.factors import ScalingFactors
from tiny import tiny_model


@given(
    st.lists(st.floats(0.3, 3.0) | st.none(), min_size=1, max_size=40).filter(any), st.sampled_from([0.01, 0.05, 0.1])
)
def test_each_factor_is_at_the_nearest_step(values: list[float | None], grid: float) -> None:
    factors = ScalingFactors(values)
    near = rounded(factors, grid)
    for before, after in zip(factors.values, near.values, strict=True):
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert abs(after - before) <= grid / 2 + 1e-9
            assert after == pytest.approx(round(after / grid) * grid, abs=1e-11)
    assert rounded(near, grid) is near


def test_what_a_test_found_is_left_behind_and_the_origin_is_kept() -> None:
    found = {"method": "default", "test": [{"task": "kv"}]}
    factors = ScalingFactors([1.004, 0.996, 1.31], model={"name": "m"}, base={"rope_type": "default"}, found=found)
    near = rounded(factors, 0.01)
    assert near.values == (1.0, 1.0, 1.31)
    assert near.found == {"method": "default", "rounded": {"to": 0.01, "of": factors.digest}}
    assert (near.model, near.base) == (factors.model, factors.base)


def test_without_a_grid_or_on_it_they_are_the_same() -> None:
    factors = ScalingFactors([1.1, 0.95, None], found={"test": [1]})
    assert rounded(factors, None) is factors
    assert rounded(factors, 0.05) is factors


def test_no_factor_becomes_0() -> None:
    assert rounded(ScalingFactors([0.01, 1.0]), 0.5).values == (0.5, 1.0)


@pytest.mark.parametrize("grid", [0.0, -0.1, float("nan"), float("inf")])
def test_a_grid_that_is_none(grid: float) -> None:
    with pytest.raises(RopewalkError, match="expected a number above 0"):
        rounded(ScalingFactors([1.1]), grid)


def test_the_tables_of_a_model() -> None:
    model = tiny_model()  # 16 numbers a head, 256 positions
    factors = ScalingFactors([1.1, 0.9, 1.1, 1.0])
    assert tables(model, factors) == (2, 2 * 16 * 256 * 2)
    ropewalk.apply(model, factors)
    assert tables(model, factors) == (2, 2 * 16 * 256 * 2)
