"""What every search method promises; a new file in `ropewalk.search` is tested here as it is."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import subprocess
import sys
from typing import get_type_hints

import numpy as np
import pytest
from search_landscapes import Fitness, method_class, play, short, space_of

from ropewalk.errors import DataError, RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.search import make_method, method_names
from ropewalk.search.base import SearchMethod
from ropewalk.search.space import Candidate, SearchSpace

GENERATIONS = 3  # a method may have more of them, or fewer
every_method = pytest.mark.parametrize("name", method_names())


def made(name: str, seed: int = 0, **options: object) -> SearchMethod:
    """The method in the space that it wants."""
    return make_method(name, space_of(name), seed, **options)


def bump(factors: ScalingFactors) -> float:
    """Smooth, the best where the factors rise from 0.85 to 1.1."""
    return -float(np.nansum((factors.to_array() - np.linspace(0.85, 1.1, len(factors))) ** 2))


def run(method: SearchMethod, fitness: Fitness = bump, *, batch: int | None = None) -> list[list[Candidate]]:
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
        method.tell(asked, [fitness(method.space.factors(candidate)) for candidate in asked])
        generations.append(asked)
    return generations


def flat(generations: list[list[Candidate]]) -> list[Candidate]:
    return [candidate for generation in generations for candidate in generation]


def values(space: SearchSpace, candidates: list[Candidate]) -> list[tuple[float | None, ...]]:
    return [space.factors(candidate).values for candidate in candidates]


def test_there_are_methods() -> None:
    assert {"bezier-ga", "default", "random", "uniform"} <= set(method_names())


def test_finding_the_methods_loads_no_package_of_theirs() -> None:
    """`ropewalk --help` reads their options; cmaes, Optuna, scipy wait for the first generation."""
    code = (
        "import importlib, sys; from ropewalk.search import method_names\n"
        "for name in method_names(): importlib.import_module('ropewalk.search.' + name.replace('-', '_')).METHOD\n"
        "print(*[name for name in ('optuna', 'cmaes', 'scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.stderr) == ([], "")


@every_method
def test_its_name_is_its_files(name: str) -> None:
    assert made(name).name == name


@every_method
def test_equal_seeds_give_equal_proposals(name: str) -> None:
    assert run(made(name, 3)) == run(made(name, 3))


@every_method
@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_the_size_of_batches_changes_nothing(name: str, batch: int) -> None:
    assert run(made(name, 3), batch=batch) == run(made(name, 3))


@every_method
def test_asking_for_none_gives_none(name: str) -> None:
    method = made(name)
    assert method.ask(0) == []
    assert method.ask() == made(name).ask()


@every_method
def test_the_order_of_telling_changes_nothing(name: str) -> None:
    space = space_of(name)
    ordered, shuffled = made(name, 1), made(name, 1)
    rng = np.random.default_rng(2)
    for _ in range(GENERATIONS):
        asked = ordered.ask()
        assert shuffled.ask() == asked
        scores = [bump(space.factors(candidate)) for candidate in asked]
        ordered.tell(asked, scores)
        for index in rng.permutation(len(asked)):
            shuffled.tell([asked[index]], [scores[index]])


@every_method
def test_replaying_what_was_told_rebuilds_the_state(name: str) -> None:
    """As a resumed run does: the first generations from the records, the others as if nothing had happened."""
    whole = run(made(name, 7))
    resumed = made(name, 7)
    for generation in whole[:2]:
        assert resumed.ask() == generation
        resumed.tell(generation, [bump(resumed.space.factors(candidate)) for candidate in generation])
    assert run(resumed)[: len(whole) - 2] == whole[2:]


@every_method
def test_it_can_be_copied_at_any_time(name: str) -> None:
    """A run works on a copy of the plan's method."""
    method, copied = made(name, 7), made(name, 7)
    for _ in range(GENERATIONS):
        copied = copy.deepcopy(copied)
        asked = method.ask(1) + method.ask()
        halfway = copied.ask(1)
        copied = copy.deepcopy(copied)
        assert halfway + copied.ask() == asked
        for one in (method, copied):
            one.tell(asked, [bump(one.space.factors(candidate)) for candidate in asked])
        assert copied.finalists() == method.finalists()


@every_method
def test_the_worlds_random_numbers_are_left_alone(name: str) -> None:
    np.random.seed(5)  # the global state is the matter here
    expected = np.random.RandomState(5).random(3)
    first = run(made(name, 7))
    assert np.random.random(3).tolist() == expected.tolist()
    np.random.seed(6)
    assert run(made(name, 7)) == first


@every_method
def test_no_two_candidates_of_a_generation_give_the_same_factors(name: str) -> None:
    method = made(name, 4)
    for generation in run(method):
        factors = values(method.space, generation)
        assert len(set(factors)) == len(factors)


@every_method
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_points": 2},
        {"num_points": 6, "mode": "depth"},
        {"mode": "uniform"},
        {"rotary_layers": (0, 1, 2, 4, 5, 6, 8), "skip_first": 2},
        {"step": 0.3},
    ],
)
def test_candidates_stay_in_the_space(name: str, settings: dict[str, object]) -> None:
    space = space_of(name, **settings)
    candidates = flat(run(make_method(name, space, 5, **short(name))))
    assert len(candidates) > 1
    for candidate in candidates:
        factors = space.factors(candidate)
        assert np.nanmin(factors.to_array()) >= space.low - 1e-12
        assert np.nanmax(factors.to_array()) <= space.high + 1e-12
        assert factors.rotary_layers == space.factors(space.identity()).rotary_layers
        assert {factors[layer] for layer in factors.rotary_layers[: space.skip_first]} <= {1.0}
        assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate


@every_method
def test_failed_candidates_do_no_harm(name: str) -> None:
    def fitness(factors: ScalingFactors) -> float:
        return math.nan if factors.to_array().mean() > 1 else bump(factors)

    assert len(flat(run(made(name, 6), fitness))) > 1
    assert len(flat(run(made(name, 6), lambda factors: math.nan))) > 1


@every_method
@pytest.mark.parametrize(
    "bounds", [{"num_layers": 1, "high": 1.05}, {"num_layers": 3, "low": 1.0, "high": 1.0, "num_points": 2}]
)
def test_a_tiny_space_comes_to_an_end(name: str, bounds: dict[str, object]) -> None:
    space = space_of(name, **{"skip_first": 0} | bounds)
    known = {entry.name for entry in dataclasses.fields(method_class(name).OPTIONS)}
    level = {"initial_factor": 1.0} if "initial_factor" in known else {}  # the space may not hold another one
    method = make_method(name, space, 0, **short(name), **level)
    played = play(method, bump)
    assert sum(len(generation) for generation in played) <= method.candidates_in_all
    for generation in played:
        factors = values(space, [candidate for candidate, _ in generation])
        assert len(set(factors)) == len(factors)
    assert method.ask() == []


@every_method
@pytest.mark.parametrize("available", [1, 7, 24, 100])
def test_the_records_of_a_generation_are_rows_of_the_task(name: str, available: int) -> None:
    method = made(name, 0, **short(name))
    while asked := method.ask():
        for slot in range(len(asked)):
            rows = method.records(slot, available)
            assert rows == sorted(set(rows))
            assert set(rows) <= set(range(available))
            assert rows
        method.tell(asked, [0.0] * len(asked))


@every_method
def test_sizes_say_what_a_whole_run_scores(name: str) -> None:
    """Or more: a space may be used up earlier. The identity may be left out."""
    available = (30, 11)
    method = made(name, 2, **short(name))
    planned: dict[object, int] = {}  # candidates by how many records of each task they are scored on
    for count, rows in method.sizes(available):
        assert len(rows) == len(available)
        width = tuple(map(len, rows))
        planned[width] = planned.get(width, 0) + count
    in_all = method.candidates_in_all
    asked: dict[object, int] = {}
    everything = []
    while candidates := method.ask():
        for slot, candidate in enumerate(candidates):
            width = tuple(len(method.records(slot, count)) for count in available)
            asked[width] = asked.get(width, 0) + (not method.space.factors(candidate).is_identity)
        everything += candidates
        method.tell(candidates, [bump(method.space.factors(candidate)) for candidate in candidates])
    assert all(planned[width] >= count for width, count in asked.items())
    assert set(asked) == set(planned)
    assert len({*values(method.space, everything), (1.0,) * 10}) <= in_all
    assert sum(planned.values()) <= in_all <= 2 * len(everything)


@every_method
def test_finalists_have_an_estimate_and_did_not_fail(name: str) -> None:
    def fitness(factors: ScalingFactors) -> float:
        return math.nan if len(scores) % 3 == 2 else bump(factors)

    method, scores = made(name, 3, **short(name)), dict[Candidate, float]()
    assert method.finalists() == []
    while asked := method.ask():
        for candidate in asked:
            scores[candidate] = fitness(method.space.factors(candidate))
        method.tell(asked, [scores[candidate] for candidate in asked])
        finalists = method.finalists()
        assert len(set(finalists)) == len(finalists)
        assert not any(math.isnan(scores.get(candidate, 0.0)) for candidate in finalists)
        assert all(math.isfinite(method.estimate(candidate)) for candidate in finalists)
        if type(method).finalists is SearchMethod.finalists:
            assert [scores[candidate] for candidate in finalists] == sorted(
                (score for score in scores.values() if not math.isnan(score)), reverse=True
            )
    assert finalists


@every_method
def test_parents_and_rivals_were_asked_before(name: str) -> None:
    method, earlier = made(name, 3, **short(name)), set[Candidate]()
    while asked := method.ask():
        assert all(set(method.parents(candidate)) <= earlier for candidate in asked)
        assert method.rival() in {None, asked[0], *earlier}
        method.tell(asked, [bump(method.space.factors(candidate)) for candidate in asked])
        earlier.update(asked)
    assert method.parents(Candidate(((0.0, 1.017), (1.0, 1.017)))) == ()


@every_method
def test_options_that_can_not_be_meant_name_the_method(name: str) -> None:
    with pytest.raises(DataError, match=f"method {name} has no option 'temperature'"):
        made(name, 0, temperature=1)
    numbers = [option for option, kind in get_type_hints(method_class(name).OPTIONS).items() if kind is int]
    for option in numbers:
        with pytest.raises(DataError, match=f"method {name}: option '{option}' is 4.5, expected a whole number"):
            made(name, 0, **{option: 4.5})
        with pytest.raises(RopewalkError, match=f"{option.replace('_', ' ')} is -1"):
            made(name, 0, **{option: -1})
    with pytest.raises(RopewalkError, match="seed is -1"):
        made(name, -1)


@every_method
def test_options_may_come_as_text(name: str) -> None:
    """As they do from a command line."""
    hints = get_type_hints(method_class(name).OPTIONS)
    method = made(name)
    texts = {option: str(value) for option in hints if (value := getattr(method.options, option)) is not None}
    assert made(name, 0, **texts).settings() == method.settings()


@every_method
def test_settings_are_json_and_hold_seed_and_space(name: str) -> None:
    settings = made(name, 9).settings()
    assert json.loads(json.dumps(settings, allow_nan=False)) == settings
    assert settings["method"] == name
    assert settings["seed"] == 9
    assert settings["space"] == space_of(name).settings()
    assert made(name, 9, **short(name, 2)).settings() != settings


@every_method
def test_what_was_not_asked_for_can_not_be_told(name: str) -> None:
    method = made(name)
    asked = method.ask(2)
    with pytest.raises(ValueError, match="not asked for"):
        method.tell([asked[0], method.space.level(1.29)], [0.0, 1.0])
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
        made(name).ask(-1)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(RopewalkError, match=r"no search method 'bezier-gs'.*bezier-ga.*did you mean 'bezier-ga'"):
        make_method("bezier-gs", SearchSpace(10), 0)
    with pytest.raises(RopewalkError, match="expected one of"):
        make_method("base", SearchSpace(10), 0)
