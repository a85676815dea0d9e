"""The straight line: exactly straight, and its two ends are found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_landscapes import best, best_of_random, near, play

from ropewalk.search import make_method
from ropewalk.search.line import Line
from ropewalk.search.space import Candidate, SearchSpace

SPACE = SearchSpace(10)
ends = st.floats(0.8, 1.3)


def ends_of(candidate: Candidate) -> tuple[float, float]:
    return candidate.control_points[0][1], candidate.control_points[-1][1]


@given(
    first=ends,
    last=ends,
    layers=st.integers(1, 60),
    points=st.integers(2, 9),
    mode=st.sampled_from(["depth", "uniform"]),
    skip_first=st.integers(0, 3),
)
def test_the_curve_is_the_line(first: float, last: float, layers: int, points: int, mode: str, skip_first: int) -> None:
    space = SearchSpace(layers + skip_first, num_points=points, mode=mode, skip_first=skip_first)
    line = Line(space, 0, population=1, generations=1).place((first, last))
    factors = space.factors(line).to_array()
    expected = np.linspace(first, last, layers, dtype=np.float64)
    np.testing.assert_allclose(factors[skip_first:], expected, rtol=0, atol=1e-12)
    assert (factors[:skip_first] == 1).all()


def test_the_first_generation_is_all_pairs_of_even_ends_with_the_identity_first() -> None:
    first = make_method("line", SPACE, 0).ask()
    assert first[0] == SPACE.identity()
    axis = [0.8, 0.925, 1.0, 1.175, 1.3]  # 1 in the place of 1.05, the value nearest to it
    assert sorted(ends_of(candidate) for candidate in first) == [(one, other) for one in axis for other in axis]
    assert len(make_method("line", SPACE, 0, population=24).ask()) == 16
    assert make_method("line", SPACE, 0, population=1).ask() == [SPACE.identity()]


def test_later_ones_surround_the_best_so_far() -> None:
    method = make_method("line", SPACE, 0, generations=2)
    _, second = play(method, near(np.linspace(0.93, 1.16, 10)))
    around = [(0.925 + a, 1.175 + b) for a in (-0.0625, 0, 0.0625) for b in (-0.0625, 0, 0.0625) if (a, b) != (0, 0)]
    np.testing.assert_allclose(sorted(ends_of(candidate) for candidate, _ in second), sorted(around), atol=1e-4)
    assert all(ends_of(parent) == (0.925, 1.175) for one, _ in second for parent in method.parents(one))


@settings(max_examples=25)
@given(first=ends, last=ends)
def test_it_finds_a_lines_ends(first: float, last: float) -> None:
    method = make_method("line", SPACE, 0, population=121, generations=6)
    play(method, near(np.linspace(first, last, 10)))
    assert ends_of(method.finalists()[0]) == pytest.approx((first, last), abs=0.01)


def test_one_layer_has_one_end() -> None:
    space = SearchSpace(1)
    first = make_method("line", space, 0).ask()
    assert len(first) == 5
    assert len({space.factors(candidate).values for candidate in first}) == 5


def test_it_beats_uniform_and_random_on_a_line() -> None:
    fitness = near(np.linspace(1.22, 0.86, 10))
    method = make_method("line", SPACE, 0)
    count, found = method.candidates_in_all, best(method, fitness)
    drawn = [best_of_random(SPACE, seed, count, fitness) for seed in range(5)]
    assert found > 0.5 * max(drawn)  # both negative: half the error
    assert found > 0.1 * best(make_method("uniform", SPACE, 0, generations=6), fitness)
