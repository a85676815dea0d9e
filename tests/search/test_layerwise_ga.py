"""The genetic algorithm without a curve: every layer's factor is a gene of its own."""

from __future__ import annotations

import numpy as np
import pytest
from search_landscapes import best_of_random, near, play

from ropewalk.search.layerwise_ga import LayerwiseGA
from ropewalk.search.space import Candidate, SearchSpace

SPACE = SearchSpace(10)
ZIGZAG = np.where(np.arange(10) % 2 == 0, 0.9, 1.15)  # far from any curve of four points
AIM = near(ZIGZAG)
SMALL = {"population": 16, "parents": 8, "mutations": 8, "crossovers": 8}


def factors_of(candidate: Candidate, space: SearchSpace = SPACE) -> np.ndarray:
    return space.factors(candidate).to_array()


def test_it_finds_what_no_curve_can() -> None:
    for seed in range(3):
        method = LayerwiseGA(SPACE, seed, generations=12, **SMALL)
        found = max(score for generation in play(method, AIM) for _, score in generation)
        assert found > 0.3 * best_of_random(SPACE, seed, method.candidates_in_all, AIM)  # both negative


def test_it_beats_random_factors_at_equal_count() -> None:
    for seed in range(3):
        method = LayerwiseGA(SPACE, seed, generations=8, **SMALL)
        found = max(score for generation in play(method, AIM) for _, score in generation)
        drawn = np.random.default_rng(seed).choice(SPACE.grid(), size=(method.candidates_in_all, 10))
        assert found > max(-np.mean((one - ZIGZAG) ** 2) for one in drawn)


def test_factors_lie_on_the_grid_and_none_come_twice() -> None:
    played = play(LayerwiseGA(SPACE, 1, generations=5), AIM)
    everyone = [tuple(np.round(factors_of(one), 10)) for generation in played for one, _ in generation]
    assert len(everyone) == len(set(everyone)) == 5 * 32
    assert {factor for one in everyone for factor in one} <= set(SPACE.grid().tolist())


def test_a_mutant_differs_in_some_layers_by_the_radius_at_most() -> None:
    method = LayerwiseGA(SPACE, 2, mutations=40, crossovers=0, radius=0.1, generations=3)
    play(method, AIM, 1)
    share = []
    for child in method.ask():
        (parent,) = method.parents(child)
        gaps = np.abs(factors_of(child) - factors_of(parent))
        assert gaps.max() <= 0.1 + 1e-9
        share.append(np.mean(gaps > 1e-9))
    assert min(share) > 0
    assert np.mean(share) == pytest.approx(0.3 * 0.8, abs=0.1)  # one in five redraws gives the same factor again


def test_crossover_takes_every_layer_from_one_of_two_parents() -> None:
    method = LayerwiseGA(SPACE, 3, mutations=0, crossovers=40, generations=3)
    play(method, AIM, 1)
    mixed = 0
    for child in method.ask():
        parents = method.parents(child)
        if len(parents) == 2:
            mixed += 1
            own, one, other = (factors_of(candidate) for candidate in (child, *parents))
            assert np.all((np.abs(own - one) < 1e-9) | (np.abs(own - other) < 1e-9))
    assert mixed > 20


def test_layers_without_rotary_position_and_layers_left_alone_have_no_gene() -> None:
    space = SearchSpace(8, rotary_layers=(0, 1, 2, 4, 5, 6), skip_first=2)
    method = LayerwiseGA(space, 0, generations=3)
    for generation in play(method, lambda factors: -float(np.nansum(factors.to_array()))):
        for candidate, _ in generation:
            assert len(candidate.offsets) in (0, 4)  # the identity and the level are curves
            assert space.factors(candidate).values[:2] == (1.0, 1.0)
            assert np.isnan(factors_of(candidate, space)[[3, 7]]).all()
