"""The search space: the identity is in it, exactly, and a candidate becomes factors in one way."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.bezier import curve_factors
from ropewalk.errors import RopewalkError
from ropewalk.search.space import Candidate, SearchSpace

bounds = st.tuples(st.floats(0.05, 1.0), st.floats(1.0, 4.0), st.floats(0.001, 0.7)).filter(
    lambda given: given[2] <= max(1 - given[0], given[1] - 1)
)


@given(bounds)
def test_the_grid_holds_one_exactly_and_keeps_the_bounds(given_bounds: tuple[float, float, float]) -> None:
    low, high, step = given_bounds
    grid = SearchSpace(4, low=low, high=high, step=step).grid()
    assert 1.0 in grid.tolist()
    assert (grid >= low - 1e-8).all()
    assert (grid <= high + 1e-8).all()
    assert grid[0] - step < low  # no step is left out at either end
    assert grid[-1] + step > high
    np.testing.assert_allclose(np.diff(grid), step, atol=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "count"),
    [(0.8, 1.3, 11), (1.0, 2.5, 31), (1.0, 1.0, 1), (0.9, 1.1, 5)],
)
def test_the_grid_of_decimal_bounds_reaches_both(low: float, high: float, count: int) -> None:
    """0.2 / 0.05 is a little below 4 in binary."""
    grid = SearchSpace(4, low=low, high=high).grid()
    assert grid.tolist() == [round(low + 0.05 * index, 2) for index in range(count)]
    assert grid[-1] == high


@given(layers=st.integers(1, 80), points=st.integers(2, 9), mode=st.sampled_from(["depth", "uniform"]))
def test_the_identity_is_factors_of_exactly_one(layers: int, points: int, mode: str) -> None:
    space = SearchSpace(layers, num_points=points, mode=mode)
    assert space.factors(space.identity()).values == (1.0,) * layers
    assert space.factors(space.identity()).is_identity


def test_layers_without_rotary_position_and_layers_left_alone() -> None:
    space = SearchSpace(8, rotary_layers=(0, 1, 2, 4, 5, 6), skip_first=2)
    candidate = Candidate(((0.0, 0.8), (0.25, 0.9), (0.75, 1.1), (1.0, 1.3)))
    curve = curve_factors(candidate.control_points, 4)
    expected = (1.0, 1.0, curve[0], None, curve[1], curve[2], curve[3], None)
    assert space.factors(candidate).values == expected
    assert space.factors(space.identity()).values == (1.0, 1.0, 1.0, None, 1.0, 1.0, 1.0, None)


def test_the_first_point_belongs_to_the_first_layer() -> None:
    for mode in ("depth", "uniform"):
        factors = SearchSpace(5, mode=mode).factors(Candidate(((0, 0.8), (0.3, 1), (0.6, 1), (1, 1.3)))).values
        assert (factors[0], factors[-1]) == (0.8, 1.3)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 10)), min_size=2, max_size=8))
def test_candidates_come_back_from_json_to_the_bit(points: list[tuple[float, float]]) -> None:
    candidate = Candidate(tuple(points))
    back = Candidate.from_json(json.loads(json.dumps(candidate.to_json())))
    assert back == candidate
    assert hash(back) == hash(candidate)


def test_settings_are_json_and_tell_spaces_apart() -> None:
    space = SearchSpace(
        8, rotary_layers=(0, 2), skip_first=1, num_points=5, low=0.7, high=1.4, step=0.1, mode="uniform"
    )
    settings = space.settings()
    assert json.loads(json.dumps(settings)) == settings
    assert SearchSpace(**{**settings, "rotary_layers": tuple(settings["rotary_layers"])}) == space


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1.1}, "factors from 1.1 to 1.3"),
        ({"high": 0.9}, "0.9 in steps"),
        ({"low": 0.0}, "0 < low"),
        ({"low": -1.0}, "0 < low"),
        ({"low": math.nan}, "0 < low"),
        ({"high": math.inf}, "high"),
        ({"step": 0.0}, "step > 0"),
        ({"step": -0.05}, "step > 0"),
        ({"step": math.nan}, "step > 0"),
        ({"step": 0.4}, "a step of 0.4 leaves no factor but 1 between 0.8 and 1.3: give a smaller --step"),
        ({"num_points": 1}, "at least 2"),
        ({"mode": "sideways"}, "sideways"),
        ({"num_layers": 0}, "num_layers"),
        ({"skip_first": 4}, "skip"),
        ({"skip_first": -1}, "skip"),
        ({"rotary_layers": (3, 1)}, "rotary_layers"),
        ({"rotary_layers": (7,)}, "rotary_layers"),
        ({"rotary_layers": ()}, "rotary_layers"),
    ],
)
def test_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(RopewalkError, match=message):
        SearchSpace(**{"num_layers": 4, **options})
