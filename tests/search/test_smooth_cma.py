"""Our search: smooth over the depth at first, on changing records, with the mean in the lead."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_landscapes import best_of_random, near, play

from ropewalk.errors import RopewalkError
from ropewalk.search.smooth_cma import SmoothCma
from ropewalk.search.space import Candidate, SearchSpace

SPACE = SearchSpace(12)
DEPTH = np.linspace(0, 1, 12)
CURVE = 1.0 + 0.15 * np.sin(2 * np.pi * DEPTH)
ROUGH = CURVE + np.where(np.arange(12) % 2 == 0, 0.05, -0.05)  # no Bézier curve of four points comes near
AIM = near(ROUGH)


def candidates(played: list[list[tuple[Candidate, float]]]) -> list[list[Candidate]]:
    return [[candidate for candidate, _ in generation] for generation in played]


def sampled(count: int = 1500, **options: float) -> np.ndarray:
    """The factors of the first samples, [samples, layers]."""
    method = SmoothCma(SPACE, 0, population=count, generations=1, sigma=0.02, **options)
    return np.array([SPACE.factors(candidate).to_array() for candidate in method.ask()[1:]])


@pytest.mark.parametrize("target", [CURVE, ROUGH])
def test_it_beats_random_curves_at_equal_count(target: np.ndarray) -> None:
    fitness = near(target)
    found, drawn = [], []
    for seed in range(3):
        method = SmoothCma(SPACE, seed, generations=20)
        play(method, fitness)
        found.append(fitness(SPACE.factors(method.finalists()[0])))
        drawn.append(best_of_random(SPACE, seed, method.candidates_in_all, fitness))
    assert np.mean(found) > 0.2 * np.mean(drawn)  # both negative: a fifth of the error


def test_it_comes_as_near_as_one_likes_to_any_factors() -> None:
    method = SmoothCma(SPACE, 0, generations=120)
    play(method, AIM)
    np.testing.assert_allclose(SPACE.factors(method.finalists()[0]).to_array(), ROUGH, atol=0.001)


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(0.01, 1000), shift=st.floats(-10, 10))
def test_a_shift_and_scale_of_the_fitness_change_nothing(scale: float, shift: float) -> None:
    expected = candidates(play(SmoothCma(SPACE, 1), AIM, 5))
    found = candidates(play(SmoothCma(SPACE, 1), lambda factors: scale * AIM(factors) + shift, 5))
    assert found == expected


def test_a_copy_goes_on_as_the_original() -> None:
    method = SmoothCma(SPACE, 0, generations=8)
    play(method, AIM, 4)
    assert play(copy.deepcopy(method), AIM) == play(method, AIM)


def test_what_a_member_is_worth_to_the_mean_alone_is_of_no_account() -> None:
    """The mean is not a sample: its fitness moves nothing."""
    one, other = SmoothCma(SPACE, 0), SmoothCma(SPACE, 0)
    asked = one.ask()
    assert other.ask() == asked
    scores = [AIM(SPACE.factors(candidate)) for candidate in asked]
    one.tell(asked, scores)
    other.tell(asked, [math.nan, *scores[1:]])
    assert one.ask() == other.ask()


# The first distribution ---------------------------------------------------------------------------------------------


def test_the_first_samples_have_the_covariance_of_the_formula() -> None:
    """A squared exponential over the depth plus each layer's own share, by a float64 oracle."""
    own, length = 0.3, 0.2
    gaps = DEPTH[:, None] - DEPTH
    expected = 0.02**2 * (0.7 * np.exp(-(gaps**2) / (2 * length**2)) + own * np.eye(12))
    factors = sampled(roughness=own, smoothness=length)
    np.testing.assert_allclose(factors.mean(axis=0), 1, atol=0.003)
    np.testing.assert_allclose(np.cov(factors.T), expected, atol=0.02**2 * 0.12)


def test_neighbours_move_together_and_distant_layers_apart() -> None:
    correlation = np.corrcoef(sampled().T)
    beside = [correlation[layer, layer + 1] for layer in range(11)]
    assert min(beside) > 0.65
    assert abs(correlation[0, 11]) < 0.1


@pytest.mark.parametrize(("roughness", "beside"), [(0.0, 0.936), (0.5, 0.468), (1.0, 0.0)])
def test_roughness_is_each_layers_own_share(roughness: float, beside: float) -> None:
    """Neighbours correlate by (1 - roughness) exp(-(gap / smoothness)² / 2), gap 1 / 11."""
    correlation = np.corrcoef(sampled(roughness=roughness).T)
    assert np.mean([correlation[layer, layer + 1] for layer in range(11)]) == pytest.approx(beside, abs=0.04)


def test_the_space_of_a_single_layer_and_layers_left_alone() -> None:
    for space in (SearchSpace(1), SearchSpace(9, rotary_layers=(0, 1, 2, 4, 5, 6), skip_first=2)):
        method = SmoothCma(space, 0, generations=3)
        for generation in candidates(play(method, lambda factors: -float(np.nansum(factors.to_array())))):
            assert all(len(one.offsets) == len(space.scaled_layers) for one in generation)


# Mean, rival, finalists ---------------------------------------------------------------------------------------------


def test_the_mean_comes_first_and_is_whom_the_others_race_against() -> None:
    method = SmoothCma(SPACE, 0, generations=4)
    for generation in range(4):
        asked = method.ask()
        assert len(asked) == 15
        assert asked[0] == method.mean() == method.rival()
        expected = np.round(np.clip(method.optimizer.mean, 0.8, 1.3), 4)
        np.testing.assert_allclose(SPACE.factors(asked[0]).to_array(), expected, atol=1e-12)
        assert SPACE.factors(asked[0]).is_identity == (generation == 0)
        method.tell(asked, [AIM(SPACE.factors(candidate)) for candidate in asked])
    assert method.ask() == [method.mean()]  # the result, and nobody races against it
    assert method.rival() is None


@pytest.mark.parametrize(
    ("space", "generations"),
    [(SPACE, 12), (SearchSpace(1, low=0.999, high=1.001, step=0.0005), 12), (SPACE, 1), (SPACE, 2)],
)
def test_finalists_are_the_last_mean_and_earlier_ones(space: SearchSpace, generations: int) -> None:
    """Also where generations are not full, as in a space of a few distinct factors."""
    method = SmoothCma(space, 0, generations=generations)
    aim = near(np.full(space.num_layers, 0.9))
    means = [generation[0] for generation in candidates(play(method, aim))]
    finalists = method.finalists()
    assert len(means) == generations + 1
    assert finalists[0] == means[-1]
    assert set(finalists) <= set(means)
    order = [len(means) - means[::-1].index(one) for one in finalists]
    assert order == sorted(order, reverse=True)
    assert len(finalists) == len(set(finalists)) <= 3
    if space is SPACE:
        assert len(finalists) == min(3, generations + 1)


def test_a_mean_that_failed_is_no_finalist() -> None:
    method = SmoothCma(SPACE, 0, generations=3)
    means = []
    while asked := method.ask():
        means.append(asked[0])
        scores = [AIM(SPACE.factors(candidate)) for candidate in asked]
        method.tell(asked, [math.nan if len(means) == 4 else scores[0], *scores[1:]])
    assert method.finalists() == means[2::-1]


# Records ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("available", [30, 100, 333])
def test_windows_grow_and_cover_all_records_evenly(available: int) -> None:
    method = SmoothCma(SPACE, 0, first_records=4, last_records=16, generations=60)
    windows = [list(rows[0]) for _, rows in method.sizes([available])]
    sizes = [len(window) for window in windows]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (4, 16)
    ratios = np.log(sizes[20] / sizes[0]), np.log(sizes[59] / sizes[39])
    assert ratios[0] == pytest.approx(ratios[1], abs=0.15)  # geometrically
    times = np.bincount(np.concatenate(windows), minlength=available)
    assert times.max() - times.min() <= 1
    assert times.min() >= 1


def test_windows_are_whole_where_there_are_few_records() -> None:
    method = SmoothCma(SPACE, 0, generations=10)
    assert all(rows == (tuple(range(6)),) for _, rows in method.sizes([6]))


def test_the_window_is_that_of_the_open_generation() -> None:
    method = SmoothCma(SPACE, 0, generations=3, first_records=2, last_records=4)
    seen = []
    while asked := method.ask():
        seen.append(method.records(0, 10))
        method.tell(asked, [0.0] * len(asked))
    assert seen == [[0, 1], [2, 3, 4], [5, 6, 7, 8], [0, 1, 2, 9]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_records": 0}, "first records is 0"),
        ({"last_records": 0}, "last records is 0"),
        ({"smoothness": 0.0}, "smoothness 0.0"),
        ({"smoothness": math.nan}, "smoothness nan"),
        ({"roughness": -0.1}, "roughness -0.1"),
        ({"roughness": 1.1}, "roughness 1.1"),
        ({"roughness": math.nan}, "roughness nan"),
        ({"population": 3}, "population is 3"),
        ({"sigma": -1.0}, "sigma is -1.0"),
    ],
)
def test_errors(options: dict[str, float], message: str) -> None:
    with pytest.raises(RopewalkError, match=message):
        SmoothCma(SPACE, **options)
