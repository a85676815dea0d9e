"""What every search method promises; a new file in `ropewalk.search` is tested here as it is."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.search import make_method, method_names
from ropewalk.search.base import SearchMethod
from ropewalk.search.space import Candidate, SearchSpace

SPACE = SearchSpace(10)
GENERATIONS = 3  # a method may have more of them, or fewer
every_method = pytest.mark.parametrize("name", method_names())

Fitness = Callable[[ScalingFactors], float]


def bump(factors: ScalingFactors) -> float:
    """Smooth, the best where the factors rise from 0.85 to 1.1."""
    return -float(np.sum((factors.to_array() - np.linspace(0.85, 1.1, len(factors))) ** 2))


def run(
    method: SearchMethod, fitness: Fitness = bump, space: SearchSpace = SPACE, *, batch: int | None = None
) -> list[list[Candidate]]:
    """The candidates of the first generations. A generation ends where nothing is left to be asked."""
    generations = []
    for _ in range(GENERATIONS):
        asked: list[Candidate] = []
        while part := method.ask(batch):
            assert batch is None or len(part) <= batch
            asked += part
        if not asked:
            break
        assert method.ask() == []  # it waits to be told
        method.tell(asked, [fitness(space.factors(candidate)) for candidate in asked])
        generations.append(asked)
    return generations


def flat(generations: list[list[Candidate]]) -> list[Candidate]:
    return [candidate for generation in generations for candidate in generation]


def test_there_are_methods() -> None:
    assert "bezier-ga" in method_names()


@every_method
def test_its_name_is_its_files(name: str) -> None:
    assert make_method(name, SPACE, 0).name == name


@every_method
def test_equal_seeds_give_equal_proposals(name: str) -> None:
    assert run(make_method(name, SPACE, 3)) == run(make_method(name, SPACE, 3))


@every_method
@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_the_size_of_batches_changes_nothing(name: str, batch: int) -> None:
    assert run(make_method(name, SPACE, 3), batch=batch) == run(make_method(name, SPACE, 3))


@every_method
def test_asking_for_none_gives_none(name: str) -> None:
    method = make_method(name, SPACE, 0)
    assert method.ask(0) == []
    assert method.ask() == make_method(name, SPACE, 0).ask()


@every_method
def test_the_order_of_telling_changes_nothing(name: str) -> None:
    ordered, shuffled = make_method(name, SPACE, 1), make_method(name, SPACE, 1)
    rng = np.random.default_rng(2)
    for _ in range(GENERATIONS):
        asked = ordered.ask()
        assert shuffled.ask() == asked
        scores = [bump(SPACE.factors(candidate)) for candidate in asked]
        ordered.tell(asked, scores)
        for index in rng.permutation(len(asked)):
            shuffled.tell([asked[index]], [scores[index]])


@every_method
def test_replaying_what_was_told_rebuilds_the_state(name: str) -> None:
    """As a resumed run does: the first generations from the records, the others as if nothing had happened."""
    whole = run(make_method(name, SPACE, 7))
    resumed = make_method(name, SPACE, 7)
    for generation in whole[:2]:
        assert resumed.ask() == generation
        resumed.tell(generation, [bump(SPACE.factors(candidate)) for candidate in generation])
    assert run(resumed)[: len(whole) - 2] == whole[2:]


@every_method
def test_it_can_be_copied(name: str) -> None:
    """A run works on a copy of the plan's method."""
    method = make_method(name, SPACE, 7)
    first = run(copy.deepcopy(method))
    assert run(method) == first


@every_method
def test_no_two_candidates_give_the_same_factors(name: str) -> None:
    factors = [SPACE.factors(candidate).values for candidate in flat(run(make_method(name, SPACE, 4)))]
    assert len(set(factors)) == len(factors)


@every_method
def test_candidates_stay_in_the_space(name: str) -> None:
    for candidate in flat(run(make_method(name, SPACE, 5))):
        values = SPACE.factors(candidate).to_array()
        assert values.min() >= SPACE.low - 1e-12
        assert values.max() <= SPACE.high + 1e-12


@every_method
def test_failed_candidates_do_no_harm(name: str) -> None:
    def fitness(factors: ScalingFactors) -> float:
        return math.nan if factors.to_array().mean() > 1 else bump(factors)

    assert len(flat(run(make_method(name, SPACE, 6), fitness))) > 1
    assert len(flat(run(make_method(name, SPACE, 6), lambda factors: math.nan))) > 1


@every_method
@pytest.mark.parametrize("space", [SearchSpace(1, low=0.9, high=1.0), SearchSpace(3, low=1.0, high=1.0, num_points=2)])
def test_a_tiny_space_comes_to_an_end(name: str, space: SearchSpace) -> None:
    method = make_method(name, space, 0)
    asked: list[Candidate] = []
    while part := method.ask():
        asked += part
        method.tell(part, [bump(space.factors(candidate)) for candidate in part])
    distinct = {space.factors(candidate).values for candidate in asked}
    assert 1 <= len(asked) == len(distinct) <= len(space.grid())
    assert method.ask() == []


@every_method
def test_settings_are_json_and_hold_seed_and_space(name: str) -> None:
    settings = make_method(name, SPACE, 9).settings()
    assert json.loads(json.dumps(settings, allow_nan=False)) == settings
    assert settings["method"] == name
    assert settings["seed"] == 9
    assert settings["space"] == SPACE.settings()


@every_method
def test_what_was_not_asked_for_can_not_be_told(name: str) -> None:
    method = make_method(name, SPACE, 0)
    asked = method.ask(2)
    with pytest.raises(ValueError, match="not asked for"):
        method.tell([asked[0], SPACE.level(1.29)], [0.0, 1.0])
    with pytest.raises(ValueError, match="told twice"):
        method.tell([asked[0], asked[0]], [0.0, 1.0])
    with pytest.raises(ValueError, match="argument 2"):
        method.tell(asked, [0.0])
    method.tell([asked[0]], [0.0])  # of the refused ones nothing was taken
    with pytest.raises(ValueError, match="told twice"):
        method.tell([asked[0]], [0.0])


@every_method
def test_a_negative_count_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="-1"):
        make_method(name, SPACE, 0).ask(-1)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(RopewalkError, match=r"no search method 'bezier-gs'.*bezier-ga.*did you mean 'bezier-ga'"):
        make_method("bezier-gs", SPACE, 0)
    with pytest.raises(RopewalkError, match="expected one of"):
        make_method("base", SPACE, 0)
