"""The best uniform scaling: a grid that gets finer around the best so far, and finds the optimum of one number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from search_landscapes import best, best_of_random, near, play, space_of

from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.search import make_method
from ropewalk.search.space import Candidate, SearchSpace

SPACE = SearchSpace(10)


def level_of(candidate: Candidate, space: SearchSpace = SPACE) -> float:
    """The factor of all layers."""
    (factor,) = set(space.factors(candidate).values[space.skip_first :])
    assert factor is not None
    return factor


def test_the_first_generation_is_the_grid_with_the_identity_first() -> None:
    first = make_method("uniform", SPACE, 0).ask()
    assert first[0] == SPACE.identity()
    assert sorted(level_of(candidate) for candidate in first) == SPACE.grid().tolist()


@example(population=3, bounds=(0.85, 3.0))
@given(
    population=st.integers(1, 60),
    bounds=st.tuples(st.floats(0.1, 1.0), st.floats(1.0, 3.0)),
)
def test_or_so_many_even_factors_among_them_the_identity(population: int, bounds: tuple[float, float]) -> None:
    space = SearchSpace(3, low=round(bounds[0], 2), high=round(bounds[1], 2), step=0.01)
    levels = [level_of(one, space) for one in make_method("uniform", space, 0, population=population).ask()]
    assert levels[0] == 1.0
    assert len(levels) <= population
    if space.high - space.low >= 0.01 * population:
        assert len(levels) == population
    if population >= 3:
        assert (min(levels), max(levels)) == (space.low, space.high)
    if population >= 3 and space.low < space.high:
        assert max(np.diff(sorted(levels))) <= 2 * (space.high - space.low) / (population - 1) + 1e-3


@settings(max_examples=40)
@given(optimum=st.floats(0.8, 1.3), generations=st.integers(1, 6))
def test_each_generation_halves_the_distance_from_the_optimum(optimum: float, generations: int) -> None:
    method = make_method("uniform", SPACE, 0, generations=generations)
    play(method, near(np.full(10, optimum)))
    found = level_of(method.finalists()[0])
    assert abs(found - optimum) <= 0.05 / 2**generations + 1e-4 * generations


def test_more_neighbours_are_finer() -> None:
    method = make_method("uniform", SPACE, 0, neighbours=4, generations=2)
    _, second = play(method, near(np.full(10, 0.93)))
    assert [level_of(candidate) for candidate, _ in second] == pytest.approx(
        [0.91, 0.92, 0.93, 0.94, 0.96, 0.97, 0.98, 0.99]
    )
    assert {method.parents(candidate) for candidate, _ in second} == {(SPACE.level(0.95),)}


def test_it_stays_within_the_bounds() -> None:
    space = space_of("paper", 6)
    method = make_method("uniform", space, 0, generations=5)
    levels = [level_of(one, space) for generation in play(method, near(np.full(6, 0.5))) for one, _ in generation]
    assert min(levels) == 1.0
    assert max(levels) == 2.5


def test_it_ends_when_no_finer_factor_is_left() -> None:
    method = make_method("uniform", SPACE, 0, generations=1000)
    played = play(method, near(np.full(10, 0.9123)))
    assert len(played) < 20
    assert level_of(method.finalists()[0]) == pytest.approx(0.9123, abs=2e-4)


def test_failed_ones_are_not_refined() -> None:
    def fitness(factors: ScalingFactors) -> float:
        mean = float(factors.to_array().mean())
        return math.nan if mean > 1.01 else -abs(mean - 1.2)

    _, second, third = play(make_method("uniform", SPACE, 0), fitness)
    assert [level_of(candidate) for candidate, _ in second] == [0.975, 1.025]
    assert [level_of(candidate) for candidate, _ in third] == [0.9875, 1.0125]
    assert len(play(make_method("uniform", SPACE, 0), lambda factors: math.nan)) == 1


def test_it_finds_a_uniform_optimum_better_than_random_curves() -> None:
    fitness = near(np.full(10, 0.87))
    method = make_method("uniform", SPACE, 0)
    count, found = method.candidates_in_all, best(method, fitness)
    drawn = [best_of_random(SPACE, seed, count, fitness) for seed in range(5)]
    assert found > 0.1 * max(drawn)  # both negative: a tenth of the error


@pytest.mark.parametrize("options", [{"population": 0}, {"neighbours": 0}, {"generations": 0}])
def test_errors(options: dict[str, int]) -> None:
    with pytest.raises(RopewalkError, match="is 0, expected at least 1"):
        make_method("uniform", SPACE, 0, **options)
