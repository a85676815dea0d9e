"""The random control: curves from anywhere on the grid, whatever was told before."""

from __future__ import annotations

import numpy as np
import pytest
from search_landscapes import near, play

from ropewalk.errors import RopewalkError
from ropewalk.search import make_method
from ropewalk.search.bezier_ga import BezierGA
from ropewalk.search.space import SearchSpace

SPACE = SearchSpace(10)
AIM = near(np.full(10, 0.9))


def test_the_identity_comes_first_and_once() -> None:
    generations = play(make_method("random", SPACE, 0, population=8, generations=3), AIM)
    candidates = [candidate for generation in generations for candidate, _ in generation]
    assert [len(generation) for generation in generations] == [8, 8, 8]
    assert candidates.index(SPACE.identity()) == 0
    assert candidates.count(SPACE.identity()) == 1


def test_every_factor_and_every_depth_of_the_grid_is_as_likely() -> None:
    method = make_method("random", SPACE, 0, population=1500, generations=1)
    points = np.array([candidate.control_points for candidate in method.ask()[1:]])  # [candidates, points, 2]
    for index in range(SPACE.num_points):
        drawn, counts = np.unique(points[:, index, 1], return_counts=True)
        assert drawn.tolist() == SPACE.grid().tolist()
        assert counts.min() > 0.6 * 1500 / 11
    inner = points[:, 1:-1, 0]
    assert set(np.unique(inner)) == {round(0.05 * step, 10) for step in range(21)}
    assert np.mean(inner) == pytest.approx(0.5, abs=0.02)
    assert (np.diff(points[:, :, 0]) >= 0).all()
    assert (points[:, 0, 0] == 0).all()
    assert (points[:, -1, 0] == 1).all()


def test_it_draws_what_the_genetic_algorithm_draws_from_anywhere() -> None:
    ga, rng = BezierGA(SPACE, 0), np.random.default_rng(0)
    theirs = np.array([ga._anywhere(rng)[0].control_points for _ in range(1500)])
    method = make_method("random", SPACE, 0, population=1500, generations=1)
    ours = np.array([candidate.control_points for candidate in method.ask()])
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), atol=0.03)


def test_it_learns_nothing() -> None:
    one = play(make_method("random", SPACE, 3, generations=3), AIM)
    other = play(make_method("random", SPACE, 3, generations=3), near(np.full(10, 1.2)))
    assert [[candidate for candidate, _ in generation] for generation in one] == [
        [candidate for candidate, _ in generation] for generation in other
    ]


def test_seeds_differ_in_all_but_the_identity() -> None:
    one, other = make_method("random", SPACE, 0).ask(), make_method("random", SPACE, 1).ask()
    assert one[0] == other[0] == SPACE.identity()
    assert not set(one[1:]) & set(other[1:])


@pytest.mark.parametrize("mode", ["depth", "uniform"])
def test_no_factors_come_twice_and_a_small_space_is_used_up(mode: str) -> None:
    space = SearchSpace(6, num_points=2, low=0.9, high=1.0, mode=mode)
    played = play(make_method("random", space, 0, population=4), near(np.full(6, 0.9)))
    factors = [space.factors(candidate).values for generation in played for candidate, _ in generation]
    assert len(factors) == len(set(factors)) == 9  # three factors at each of two points


@pytest.mark.parametrize("options", [{"population": 0}, {"generations": 0}])
def test_errors(options: dict[str, int]) -> None:
    with pytest.raises(RopewalkError, match="is 0, expected at least 1"):
        make_method("random", SPACE, 0, **options)
