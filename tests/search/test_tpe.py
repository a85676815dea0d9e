"""Optuna's sampler behind our contract: what it is told, how it is seeded, and that it keeps quiet."""

from __future__ import annotations

import copy
import logging
import math

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_landscapes import best, best_of_random, near, play

from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.search import make_method
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.search.tpe import Tpe, _quiet

SPACE = SearchSpace(10)
TARGET = SPACE.factors(Candidate(((0.0, 0.85), (0.2, 1.2), (0.6, 1.25), (1.0, 0.9)))).to_array()
AIM = near(TARGET)


def test_it_beats_random_search_at_equal_count() -> None:
    found = [best(make_method("tpe", SPACE, seed, generations=8), AIM) for seed in range(3)]
    drawn = [best_of_random(SPACE, seed, 8 * 16, AIM) for seed in range(3)]
    assert np.mean(found) > 0.6 * np.mean(drawn)  # both negative: six tenths of the error


def test_the_study_holds_what_was_told_and_failures_as_such() -> None:
    def fitness(factors: ScalingFactors) -> float:
        return math.nan if factors.to_array()[0] > 1.1 else AIM(factors)

    method = Tpe(SPACE, 0, population=12, generations=5)
    played = play(method, fitness, 2)
    trials = method._study().trials
    assert len(trials) == 24
    for trial, (candidate, score) in zip(trials, [one for generation in played for one in generation], strict=True):
        assert [trial.params[f"y{index}"] for index in range(4)] == [y for _, y in candidate.control_points]
        assert [trial.params["x1"], trial.params["x2"]] == [x for x, _ in candidate.control_points[1:-1]]
        if math.isnan(score):
            assert trial.state == optuna.trial.TrialState.FAIL
        else:
            assert (trial.state, trial.value) == (optuna.trial.TrialState.COMPLETE, score)
    assert {trial.state.name for trial in trials} == {"FAIL", "COMPLETE"}


def test_the_identity_comes_first_and_seeds_differ() -> None:
    one, other = make_method("tpe", SPACE, 0).ask(), make_method("tpe", SPACE, 1).ask()
    assert one[0] == other[0] == SPACE.identity()
    assert not set(one[1:]) & set(other[1:])


def test_no_factors_come_twice_and_a_small_space_ends_the_run() -> None:
    space = SearchSpace(1, low=0.999, high=1.001, step=0.0005)
    played = play(make_method("tpe", space, 0), near(np.ones(1)))
    factors = [space.factors(candidate).values for generation in played for candidate, _ in generation]
    assert 10 <= len(factors) == len(set(factors)) <= 21  # four decimals


def test_depths_are_searched_only_where_they_count() -> None:
    uniform = Tpe(SearchSpace(10, mode="uniform"), 0)
    assert set(uniform._distributions()) == {"y0", "y1", "y2", "y3"}
    assert {tuple(x for x, _ in one.control_points) for one in uniform.ask()} == {(0.0, 1 / 3, 2 / 3, 1.0)}
    assert set(Tpe(SPACE, 0)._distributions()) == {"y0", "y1", "y2", "y3", "x1", "x2"}
    assert set(Tpe(SearchSpace(10, num_points=2), 0)._distributions()) == {"y0", "y1"}


@settings(max_examples=8, deadline=None)
@given(scale=st.floats(0.01, 1000), shift=st.floats(-10, 10))
def test_a_shift_and_scale_of_the_fitness_change_nothing(scale: float, shift: float) -> None:
    options = {"population": 6, "generations": 4}
    expected = play(make_method("tpe", SPACE, 2, **options), AIM)
    found = play(make_method("tpe", SPACE, 2, **options), lambda factors: scale * AIM(factors) + shift)
    assert [[one for one, _ in own] for own in found] == [[one for one, _ in own] for own in expected]


def test_a_copy_goes_on_as_the_original() -> None:
    method = make_method("tpe", SPACE, 0, generations=5)
    play(method, AIM, 3)
    assert play(copy.deepcopy(method), AIM) == play(method, AIM)


@pytest.mark.parametrize("verbosity", [optuna.logging.DEBUG, optuna.logging.INFO, optuna.logging.CRITICAL])
def test_it_keeps_optuna_quiet_and_leaves_its_logging_alone(verbosity: int) -> None:
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(verbosity)
    logging.getLogger("optuna").addHandler(handler)
    try:
        play(make_method("tpe", SPACE, 0, population=4, generations=4), AIM)
        assert said == []
        with _quiet():
            assert optuna.logging.get_verbosity() == max(verbosity, optuna.logging.WARNING)
        assert optuna.logging.get_verbosity() == verbosity
    finally:
        logging.getLogger("optuna").removeHandler(handler)
        optuna.logging.set_verbosity(before)


@pytest.mark.parametrize("options", [{"population": 0}, {"generations": 0}])
def test_errors(options: dict[str, int]) -> None:
    with pytest.raises(RopewalkError, match="is 0, expected at least 1"):
        make_method("tpe", SPACE, 0, **options)
