"""CMA-ES over the control points: it sees the order of the fitness alone, and finds what lies in its space."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_landscapes import best, best_of_random, near, play

from ropewalk.errors import RopewalkError
from ropewalk.search import make_method
from ropewalk.search.cma_es import CmaEs
from ropewalk.search.space import Candidate, SearchSpace

SPACE = SearchSpace(10)
TARGET = SPACE.factors(Candidate(((0.0, 0.9), (1 / 3, 1.15), (2 / 3, 1.1), (1.0, 0.85)))).to_array()
AIM = near(TARGET)


def proposals(method: CmaEs, scale: float = 1.0, shift: float = 0.0, generations: int = 6) -> list[list[Candidate]]:
    played = play(method, lambda factors: scale * AIM(factors) + shift, generations)
    return [[candidate for candidate, _ in generation] for generation in played]


def test_it_beats_random_search_at_equal_count_and_comes_near_the_optimum() -> None:
    found = [best(make_method("cma-es", SPACE, seed, generations=15), AIM) for seed in range(3)]
    drawn = [best_of_random(SPACE, seed, 12 * 15, AIM) for seed in range(3)]
    assert np.mean(found) > 0.1 * np.mean(drawn)  # both negative: a tenth of the error
    assert min(found) > -1e-4  # 0.01 in each factor


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.01, 1000), shift=st.floats(-10, 10))
def test_a_shift_and_scale_of_the_fitness_change_nothing(scale: float, shift: float) -> None:
    assert proposals(CmaEs(SPACE, 1), scale, shift) == proposals(CmaEs(SPACE, 1))


def test_a_copy_goes_on_as_the_original() -> None:
    method = CmaEs(SPACE, 0, generations=8)
    proposals(method, generations=4)
    assert proposals(copy.deepcopy(method)) == proposals(method)


def test_a_failed_candidate_is_as_the_worst_one() -> None:
    failing, bad = CmaEs(SPACE, 0), CmaEs(SPACE, 0)
    asked = failing.ask()
    assert bad.ask() == asked
    scores = [AIM(SPACE.factors(candidate)) for candidate in asked]
    scores[3] = math.nan
    failing.tell(asked, scores)
    scores[3] = -1e9
    bad.tell(asked, scores)
    assert failing.ask() == bad.ask()


def test_samples_lie_around_the_identity_at_first() -> None:
    method = CmaEs(SPACE, 0, population=600, generations=1, sigma=0.03)
    y = np.array([[factor for _, factor in candidate.control_points] for candidate in method.ask()])
    np.testing.assert_allclose(y.mean(axis=0), 1, atol=0.005)
    np.testing.assert_allclose(np.cov(y.T), 0.03**2 * np.eye(4), atol=0.03**2 / 5)
    assert (y == np.round(y, 4)).all()


def test_every_generation_is_full_in_an_ordinary_space_and_seeds_differ() -> None:
    one, other = proposals(CmaEs(SPACE, 0)), proposals(CmaEs(SPACE, 1))
    assert [len(generation) for generation in one] == [12] * 6
    assert not set(one[0]) & set(other[0])


@pytest.mark.parametrize("population", [4, 5, 13])
@pytest.mark.parametrize("space", [SPACE, SearchSpace(1), SearchSpace(5, low=0.999, high=1.001, step=0.0005)])
def test_no_number_is_out_of_range(population: int, space: SearchSpace) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        played = play(CmaEs(space, 0, population=population, generations=8), near(np.ones(space.num_layers)))
    assert len(played) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 3}, "population is 3, expected at least 4"),
        ({"generations": 0}, "generations is 0"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"sigma": math.nan}, "sigma is nan"),
        ({"sigma": math.inf}, "sigma is inf"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_errors(options: dict[str, float], message: str) -> None:
    with pytest.raises(RopewalkError, match=message):
        CmaEs(SPACE, **options)
