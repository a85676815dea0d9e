"""Our search: what it proposes, on which records, what it holds for best, and that it beats its controls."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from search_landscapes import space_of

from ropewalk.additive_model import AdditiveModel
from ropewalk.errors import DataError, RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.search import make_method
from ropewalk.search.base import Detail, SearchMethod
from ropewalk.search.default import Default
from ropewalk.search.space import Candidate, SearchSpace

LAYERS = 12
SPACE = space_of("default", LAYERS)
OPTIMUM = np.where(np.arange(LAYERS) % 3 == 0, 0.9, 1.15)
SMALL = {"population": 32, "share": 8}


def truth(factors: np.ndarray) -> float:
    """Additive, of factors [layers]: 0 at the identity, and below 0.98 layer 4 begins to spoil everything."""
    gain = 4 * np.nansum((OPTIMUM - 1) ** 2 - (factors - OPTIMUM) ** 2)
    return float(gain - 2.5 * np.clip((0.98 - factors[4]) / 0.05, 0, 1))


class Noisy:
    """Fitness on single records: the truth, what a record likes of any change, and noise that grows with the loss."""

    def __init__(self, seed: int, records: int) -> None:
        self.rng = np.random.default_rng([77, seed])
        self.offsets = 0.3 * self.rng.standard_normal(records)
        self.seen = 0

    def __call__(self, factors: ScalingFactors, records: list[int]) -> float:
        self.seen += len(records)
        if factors.is_identity:
            return 0.0
        level = truth(factors.to_array())
        noise = (0.3 + 0.5 * max(0.0, -level)) * self.rng.standard_normal(len(records))
        return level + float((self.offsets[records] + noise).mean())


def tell(method: SearchMethod, noisy: Noisy) -> list[Candidate]:
    """One generation, told on the noisy landscape."""
    asked, available = method.ask(), len(noisy.offsets)
    factors = [method.space.factors(candidate) for candidate in asked]
    method.tell(asked, [noisy(one, method.records(slot, available)) for slot, one in enumerate(factors)])
    return asked


def run(method: SearchMethod, noisy: Noisy) -> list[list[Candidate]]:
    """All generations."""
    generations = []
    while asked := tell(method, noisy):
        generations.append(asked)
    return generations


def rows(candidates: list[Candidate], space: SearchSpace = SPACE) -> np.ndarray:
    """Factors, [candidates, layers]."""
    return np.array([space.factors(candidate).to_array() for candidate in candidates])


# Constraints --------------------------------------------------------------------------------------------------------


def lost(factors: np.ndarray) -> float:
    """What a position loses of factors above 1: at the free optimum 1.2."""
    return float(np.clip(factors - 1, 0, None).sum())


def constrained(limit: float, *, penalty: float = 0.0) -> Default:
    """A whole run that is told the position's loss, with noise; penalty: what a fitness pays at random beside."""
    method, noisy, rng = Default(SPACE, 3, **SMALL, generations=12), Noisy(3, 24), np.random.default_rng(5)
    while asked := method.ask():
        rows = [method.records(slot, 24) for slot in range(len(asked))]
        factors = [method.space.factors(candidate) for candidate in asked]
        gains = [noisy(one, own) for one, own in zip(factors, rows, strict=True)]
        losses = [lost(one.to_array()) + 0.2 * float(rng.standard_normal()) for one in factors]
        costs = penalty * rng.random(len(asked))
        details = [Detail(gain, (loss,), (limit,)) for gain, loss in zip(gains, losses, strict=True)]
        method.tell(asked, [gain - cost for gain, cost in zip(gains, costs, strict=True)], details)
    return method


def test_finalists_keep_the_limits_and_gain_what_is_left() -> None:
    assert lost(OPTIMUM) == pytest.approx(1.2)
    free, half = (rows(constrained(limit).finalists()[:1])[0] for limit in (9.0, 0.6))
    assert lost(free) > 0.9
    assert lost(half) < 0.75
    assert truth(half) > 0.4 * truth(free) > 0


def test_what_candidates_pay_by_luck_is_not_learnt() -> None:
    cheap, dear = constrained(0.6), constrained(0.6, penalty=50.0)
    assert cheap.finalists() == dear.finalists()


def test_a_run_of_failed_candidates_without_details_goes_on() -> None:
    method = Default(SPACE, 0, **SMALL, generations=2)
    asked = method.ask()
    details = [None if number < 5 else Detail(0.1, (0.0,), (0.5,)) for number in range(len(asked))]
    method.tell(asked, [math.nan if detail is None else 0.1 for detail in details], details)
    assert len(method.ask()) > 0


# Against the controls -----------------------------------------------------------------------------------------------


def result(name: str, seed: int, records: int, **options: int) -> tuple[float, int]:
    """True fitness of a method's first finalist, and how many scores of a record its run took."""
    method, noisy = make_method(name, space_of(name, LAYERS), seed, **options), Noisy(seed, records)
    run(method, noisy)
    return truth(rows(method.finalists()[:1], method.space)[0]), noisy.seen


def test_it_beats_its_controls_at_an_equal_number_of_record_scores() -> None:
    """Whether they score many candidates on one record or fewer on four, which average the noise."""
    seeds, best = range(3), truth(OPTIMUM)
    own = [result("default", seed, 64, generations=16, **SMALL) for seed in seeds]
    assert {spent for _, spent in own} == {512}
    mean = np.mean([found for found, _ in own])
    assert mean > 0.6 * best
    for name in ("layerwise-ga", "random"):
        for records in (1, 4):
            controls = [result(name, seed, records, population=32, generations=16 // records) for seed in seeds]
            assert {spent for _, spent in controls} == {512}
            assert mean > np.mean([found for found, _ in controls]) + 0.1 * best, (name, records)


# Proposals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.02, 0.07])
def test_the_first_generation_lies_around_1_layer_by_layer(sigma: float) -> None:
    factors = rows(Default(SPACE, 0, population=2000, generations=1, sigma=sigma).ask())
    assert factors.shape == (2000, LAYERS)
    np.testing.assert_allclose(factors.mean(axis=0), 1, atol=4 * sigma / math.sqrt(2000))
    np.testing.assert_allclose(factors.std(axis=0), sigma, rtol=0.08)
    assert np.abs(np.corrcoef(factors.T) - np.eye(LAYERS)).max() < 0.1


def test_wild_first_candidates_are_cut_off_at_the_bounds() -> None:
    factors = rows(Default(SPACE, 0, generations=1, sigma=5.0).ask())
    assert (factors.min(), factors.max()) == (SPACE.low, SPACE.high)


def test_later_generations_lie_on_the_grid_and_gather_around_the_optimum() -> None:
    generations = [rows(asked) for asked in run(Default(SPACE, 1, generations=12), Noisy(1, 64))]
    assert [len(factors) for factors in generations] == [64] * 12
    assert all(set(factors.ravel().tolist()) <= set(SPACE.grid().tolist()) for factors in generations[1:])
    spread = [float(factors.std(axis=0).mean()) for factors in generations]
    assert spread[11] < 0.6 * spread[1]
    level = [float(np.mean([truth(one) for one in factors])) for factors in generations]
    assert level[0] < level[11]
    assert level[11] > 0.5 * truth(OPTIMUM)
    assert np.mean(generations[11][:, 4] < 0.98) < 0.02  # what spoils everything is not tried again


def test_more_exploration_strays_further_and_none_proposes_the_optimum_alone() -> None:
    spreads = []
    for exploration in (0.0, 0.25, 1.0):
        method = Default(SPACE, 0, exploration=exploration)
        tell(method, Noisy(0, 64))
        factors = rows(method.ask())
        spreads.append(float(factors.std(axis=0).mean()))
        if exploration == 0:
            assert factors.tolist() == [method.model.best().tolist()]
    assert spreads[0] == 0 < spreads[1] < spreads[2]


def test_a_member_depends_on_seed_generation_and_index_alone() -> None:
    few, many = (Default(SPACE, 5, population=population, generations=1).ask() for population in (10, 40))
    assert many[:10] == few
    assert not set(many) & set(Default(SPACE, 6, population=40, generations=1).ask())


def test_copied_replayed_and_told_in_any_order_it_proposes_the_same() -> None:
    """As a run that was killed over and over, with the scores of a generation coming as they like."""
    whole, other = Default(SPACE, 3, generations=5, **SMALL), Default(SPACE, 3, generations=5, **SMALL)
    rng, noisy = np.random.default_rng(0), Noisy(3, 24)
    for generation in range(5):
        asked = whole.ask()
        other = copy.deepcopy(other)
        assert other.ask(3) + other.ask() == asked
        scores = [noisy(SPACE.factors(one), whole.records(slot, 24)) for slot, one in enumerate(asked)]
        scores[generation] = math.nan
        whole.tell(asked, scores)
        for index in rng.permutation(len(asked)):
            other = copy.deepcopy(other) if index % 8 == 0 else other
            other.tell([asked[index]], [scores[index]])
        assert other.finalists() == whole.finalists()
        assert [other.estimate(one) for one in asked] == [whole.estimate(one) for one in asked]


@pytest.mark.parametrize("scale", [2.0**-20, 8.0])
def test_the_unit_of_the_fitness_changes_nothing(scale: float) -> None:
    """Powers of two, which round nothing."""
    one, other = (Default(SPACE, 2, generations=4, **SMALL) for _ in range(2))
    noisy = Noisy(2, 24)
    while asked := one.ask():
        assert other.ask() == asked
        scores = np.array([noisy(SPACE.factors(candidate), [0]) for candidate in asked])
        one.tell(asked, scores.tolist())
        other.tell(asked, (scale * scores).tolist())
    assert other.finalists() == one.finalists()


# Records ------------------------------------------------------------------------------------------------------------


def test_neighbours_share_records_and_the_next_ones_take_the_next() -> None:
    method = Default(SPACE, 0, population=10, share=4, records=2, generations=3)
    seen = []
    while asked := method.ask():
        seen.append([method.records(slot, 7) for slot in range(len(asked))])
        method.tell(asked, [0.0] * 10)
    turns = [[[0, 1], [2, 3], [4, 5]], [[0, 6], [1, 2], [3, 4]], [[5, 6], [0, 1], [2, 3]]]
    assert seen == [[first] * 4 + [second] * 4 + [third] * 2 for first, second, third in turns]


@pytest.mark.parametrize("available", [1, 5, 16, 97])
@pytest.mark.parametrize("options", [{}, {"records": 3, "share": 5}, {"share": 1000}, {"population": 1}])
def test_all_records_take_turns(available: int, options: dict[str, int]) -> None:
    method = Default(SPACE, 0, **{"population": 32, "generations": 200, "share": 8, **options})
    turns = math.ceil(method.options.population / method.options.share)
    times = np.zeros(available, dtype=int)
    for method.generation in range(200):
        for group in range(turns):
            rows_seen = method.records(group * method.options.share, available)
            assert len(rows_seen) == min(method.options.records, available)
            times[rows_seen] += 1
    assert times.min() >= 1
    assert times.max() - times.min() <= 1


def test_tasks_of_different_size_take_turns_of_their_own() -> None:
    method = Default(SPACE, 0, population=8, share=2)
    assert [method.records(slot, 3) for slot in (0, 2, 4, 6)] == [[0], [1], [2], [0]]
    assert [method.records(slot, 2) for slot in (0, 2, 4, 6)] == [[0], [1], [0], [1]]


def test_sizes_are_those_of_a_whole_run() -> None:
    method = Default(SPACE, 0, population=10, generations=7, records=4)
    assert method.candidates_in_all == 71
    assert method.sizes([30, 3]) == [(70, ((0, 1, 2, 3), (0, 1, 2)))]


# Finalists ----------------------------------------------------------------------------------------------------------


def test_finalists_are_the_models_optimum_cautious_ones_and_half_the_way() -> None:
    method, noisy = Default(SPACE, 4, generations=6), Noisy(4, 64)
    assert method.finalists() == []
    while asked := tell(method, noisy):
        best = method.model.best()
        wanted = [best, method.model.best(0.5), 1 + (best - 1) / 2, method.model.best(1.0)]
        finalists = method.finalists()
        assert len(finalists) == len(set(finalists))
        assert {tuple(one) for one in rows(finalists).round(4)} == {tuple(one.round(4)) for one in wanted}
        np.testing.assert_allclose(rows(finalists[:1])[0], best, atol=1e-12)
        estimates = [method.estimate(one) for one in finalists]
        np.testing.assert_allclose(estimates, method.model.predict(rows(finalists)), rtol=1e-9)
        assert max(estimates) == estimates[0] > 0
        assert all(math.isfinite(method.estimate(one)) for one in (*asked, SPACE.identity()))
    assert len(finalists) == 4
    assert abs(method.estimate(SPACE.identity())) < 0.01


def test_failed_scores_are_left_out() -> None:
    """The model is that of the others alone; who was scored with whom stays as it was."""
    method, noisy = Default(SPACE, 0, generations=2, **SMALL), Noisy(0, 64)
    asked = method.ask()
    scores = np.array([noisy(SPACE.factors(one), method.records(slot, 64)) for slot, one in enumerate(asked)])
    scores[::3] = math.nan
    method.tell(asked, scores.tolist())
    kept = np.flatnonzero(np.isfinite(scores))
    model = AdditiveModel(LAYERS, SPACE.grid(), method.options.length)
    model.fit(rows(asked)[kept], scores[kept], (kept // 8).tolist())
    np.testing.assert_allclose(method.model.posterior.mean, model.posterior.mean, atol=1e-12)


def test_a_candidate_that_failed_is_no_finalist() -> None:
    """Though the model may expect the most of it."""
    space = space_of("default", 2, low=0.9, high=1.1)
    method, best = Default(space, 0, generations=3), space.layerwise([1.1, 1.1])
    while asked := method.ask():
        told = [math.nan if one == best else float(np.sum(rows([one], space))) - 2 for one in asked]
        method.tell(asked, told)
    assert any(one == best for one, _ in method.told)
    assert method.model.best().tolist() == [1.1, 1.1]
    assert best not in method.finalists()
    assert method.finalists()


def test_where_all_failed_the_model_as_it_is_is_all_that_is_left() -> None:
    method = Default(SPACE, 0, generations=3, **SMALL)
    while asked := method.ask():
        method.tell(asked, [math.nan] * len(asked))
        assert all(SPACE.factors(one).is_identity for one in method.finalists())
    assert len(method.told) == 3 * 32


# Small spaces and wrong options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "members"),
    [
        (SearchSpace(3, low=1.0, high=1.0, num_points=2), 1),
        (SearchSpace(1, low=0.7, high=1.35), 14),  # no more factors than nodes
        (SearchSpace(4, low=1.0, high=1.3), 64),
    ],
)
def test_a_small_space_ends_without_an_error(space: SearchSpace, members: int) -> None:
    method = Default(space, 0, generations=5)
    generations = []
    while asked := method.ask():
        factors = rows(asked, space)
        assert len({tuple(one) for one in factors.tolist()}) == len(asked)
        method.tell(asked, (-((factors - 1.01) ** 2).sum(axis=1)).tolist())
        generations.append(asked)
    assert len(generations) == 5
    assert all(1 <= len(asked) <= members for asked in generations[1:])
    assert all(math.isfinite(method.estimate(one)) for one in method.finalists())


def test_layers_without_rotary_position_and_layers_left_alone_are_no_part_of_the_model() -> None:
    space = space_of("default", 9, rotary_layers=(0, 1, 2, 4, 5, 6), skip_first=2)
    method = Default(space, 0, generations=3, **SMALL)
    assert method.model.layers == 4
    while asked := method.ask():
        for candidate in asked:
            factors = space.factors(candidate)
            assert factors.values[:2] == (1.0, 1.0)
            assert [factors.values[layer] for layer in (3, 7, 8)] == [None] * 3
        scores = [-float(np.nansum((row - 1.1) ** 2)) for row in rows(asked, space)]
        method.tell(asked, scores)
    best = rows(method.finalists()[:1], space)[0]
    assert np.abs(best[[2, 4, 5, 6]] - 1.1).max() < 0.11
    assert all(math.isfinite(method.estimate(one)) for one in (*method.finalists(), space.identity()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 0}, "population is 0, expected at least 1"),
        ({"generations": 0}, "generations is 0, expected at least 1"),
        ({"records": 0}, "records is 0, expected at least 1"),
        ({"share": -4}, "share is -4, expected at least 1"),
        *[
            ({name: value}, f"{name} is {value}, expected a number > 0")
            for name in ("sigma", "length")
            for value in (0.0, -0.1, math.nan, math.inf)
        ],
        *[({"exploration": value}, f"exploration is {value}, expected a number >= 0") for value in (-0.1, math.nan)],
        ({"exploration": math.inf}, "exploration is inf"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(RopewalkError, match=message):
        Default(SPACE, **options)


def test_a_grid_too_fine_for_the_model() -> None:
    with pytest.raises(RopewalkError, match=r"gives each layer 651 factors, method default takes at most 64"):
        Default(SearchSpace(4, low=0.7, high=1.35, step=0.001))


@pytest.mark.parametrize(("name", "value"), [("sigma", "wide"), ("share", 2.5), ("records", "some"), ("length", True)])
def test_options_of_the_wrong_kind(name: str, value: object) -> None:
    with pytest.raises(DataError, match=f"method default: option '{name}' is {value!r}, expected a"):
        Default(SPACE, **{name: value})
