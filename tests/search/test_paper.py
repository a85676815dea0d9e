"""The preset of the paper: its space and numbers, each of which can still be given."""

from __future__ import annotations

import numpy as np
import pytest
from search_landscapes import best, best_of_random, near, play, space_of

from ropewalk.errors import RopewalkError
from ropewalk.search import make_method
from ropewalk.search.bezier_ga import BezierGA
from ropewalk.search.paper import Paper
from ropewalk.search.space import Candidate, SearchSpace

SPACE = space_of("paper", 32)
TARGET = SPACE.factors(Candidate(((0, 1.5), (0.3, 1.75), (0.6, 1.35), (1, 1.2)))).to_array()  # found for Vicuna-7B
AIM = near(TARGET)


def test_its_setting_is_the_papers() -> None:
    """arXiv 2503.04355, section 3.3 and its code."""
    settings = make_method("paper", SPACE, 0).settings()
    space = settings.pop("space")
    assert (space["low"], space["high"], space["step"], space["num_points"]) == (1.0, 2.5, 0.05, 4)
    assert (space["mode"], space["skip_first"]) == ("uniform", 2)
    assert settings == {
        "method": "paper",
        "seed": 0,
        "population": 32,
        "parents": 16,
        "mutations": 16,
        "crossovers": 16,
        "generations": 20,
        "mutation_probability": 0.3,
        "initial_probability": 1.0,
        "radius": 0.2,
        "initial_factor": 1.5,
    }
    assert Paper.MEASURE == "accuracy"
    assert not Paper.RACING


def test_it_starts_around_its_level_with_the_identity_among_them() -> None:
    born = make_method("paper", SPACE, 0).ask()
    assert born[:2] == [SPACE.identity(), SPACE.level(1.5)]
    assert all(abs(y - 1.5) <= 0.2 + 1e-9 for candidate in born[1:] for _, y in candidate.control_points)
    assert all(SPACE.factors(candidate).values[:2] == (1.0, 1.0) for candidate in born)


def test_it_is_the_genetic_algorithm_with_that_setting() -> None:
    one, other = Paper(SPACE, 3), BezierGA(SPACE, 3, initial_factor=1.5)
    assert play(one, AIM, 4) == play(other, AIM, 4)


def test_options_can_still_be_given() -> None:
    method = make_method("paper", SPACE, 0, population=7, initial_factor=1.2)
    assert len(method.ask()) == 7
    with pytest.raises(RopewalkError, match=r"initial factor 1.5 is outside the bounds 0.8 to 1.3"):
        make_method("paper", SearchSpace(32), 0)


def test_it_beats_random_search_in_its_own_space() -> None:
    found = [best(make_method("paper", SPACE, seed, generations=8), AIM) for seed in range(3)]
    drawn = [best_of_random(SPACE, seed, 8 * 32, AIM) for seed in range(3)]
    assert np.mean(found) > 0.5 * np.mean(drawn)  # both negative: half the error
