"""U against the formula, written out; the fitness of what failed."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t as student

from ropewalk.errors import RopewalkError
from ropewalk.objectives import (
    DEFAULT_WEIGHTS,
    Kind,
    Measure,
    Objective,
    Part,
    PositionFloor,
    Scores,
    ShortTextLimit,
    position_weights,
    utilisation,
)

share = st.floats(0, 1)


def formula(accuracy: list[float], first: float, middle: float, last: float) -> float:
    """U = (λ_f·A_first + λ_m·A_middle + λ_l·A_last) / (λ_f + λ_m + λ_l), A_middle the mean of the inner positions."""
    inner = accuracy[1:-1]
    return (first * accuracy[0] + middle * sum(inner) / len(inner) + last * accuracy[-1]) / (first + middle + last)


@given(st.lists(share, min_size=3, max_size=9), st.tuples(*[st.floats(0.01, 5)] * 3))
def test_u_is_the_papers(accuracy: list[float], weights: tuple[float, float, float]) -> None:
    assert float(utilisation(accuracy, weights)) == pytest.approx(formula(accuracy, *weights), abs=1e-12)


@given(st.lists(share, min_size=3, max_size=9))
def test_the_default_weights(accuracy: list[float]) -> None:
    assert DEFAULT_WEIGHTS == (0.8, 1.0, 1.2)
    assert float(utilisation(accuracy)) == pytest.approx(formula(accuracy, 0.8, 1.0, 1.2), abs=1e-12)


def test_u_by_hand() -> None:
    assert float(utilisation([0.5, 0.2, 0.9])) == pytest.approx((0.4 + 0.2 + 1.08) / 3)
    assert float(utilisation([0.79, 0.42, 0.17, 0.07, 0.69])) == pytest.approx((0.632 + 0.22 + 0.828) / 3)


def test_one_and_two_positions_have_no_middle() -> None:
    assert float(utilisation([0.3])) == 0.3
    assert float(utilisation([0.3, 0.8])) == pytest.approx((0.8 * 0.3 + 1.2 * 0.8) / 2.0)
    assert position_weights(1).tolist() == [1.0]
    np.testing.assert_allclose(position_weights(2), [0.4, 0.6])


def test_one_weight_a_position() -> None:
    np.testing.assert_allclose(position_weights(5, [1, 0, 2, 0, 1]), [0.25, 0, 0.5, 0, 0.25])
    np.testing.assert_allclose(position_weights(2, [1, 3]), [0.25, 0.75])
    assert float(utilisation([0.1, 0.9], [0, 1])) == pytest.approx(0.9)


@given(st.integers(1, 12))
def test_weights_sum_to_one(positions: int) -> None:
    assert position_weights(positions).sum() == pytest.approx(1, abs=1e-12)


def test_u_works_along_the_last_axis() -> None:
    accuracy = np.random.default_rng(0).random((4, 3, 5))
    got = utilisation(accuracy)
    assert got.shape == (4, 3)
    assert float(got[2, 1]) == pytest.approx(formula(accuracy[2, 1].tolist(), 0.8, 1.0, 1.2))


@pytest.mark.parametrize(
    ("positions", "weights", "message"),
    [
        (4, (1.0, 1.0), "2 weights for 4 positions: give 3 .* or 4"),
        (3, (), "0 weights for 3 positions"),
        (3, (0.0, 0.0, 0.0), "at least one must be > 0"),
        (2, (0.0, 1.0, 0.0), "at least one must be > 0"),
        (3, (1.0, -1.0, 1.0), "numbers >= 0"),
        (3, (1.0, math.nan, 1.0), "numbers >= 0"),
        (3, (1.0, math.inf, 1.0), "numbers >= 0"),
    ],
)
def test_weights_that_make_no_sense(positions: int, weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(RopewalkError, match=message):
        position_weights(positions, weights)


# Fitness -----------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(3)
LIKELIHOODS, VANILLA = -RNG.random((6, 4)), -RNG.random((6, 4))
SCORES = (RNG.random((6, 4)) > 0.4).astype(np.float64)


def test_fitness_of_likelihoods_is_what_is_gained_over_vanilla() -> None:
    gains = [float(np.mean(LIKELIHOODS[:, column] - VANILLA[:, column])) for column in range(4)]
    found, vanilla, better = (Scores(SCORES, one) for one in (LIKELIHOODS, VANILLA, VANILLA + 0.1))
    assert Part().value(found, vanilla) == pytest.approx(formula(gains, 0.8, 1.0, 1.2), abs=1e-12)
    assert Part().value(vanilla, vanilla) == 0.0
    assert Part().value(better, vanilla) > 0  # higher is better


def test_fitness_of_accuracy() -> None:
    shares = [float(np.mean(SCORES[:, column])) for column in range(4)]
    part, vanilla = Part("accuracy", weights=(0.5, 1.0, 1.5)), Scores(1 - SCORES, VANILLA)
    assert part.value(Scores(SCORES, LIKELIHOODS), vanilla) == pytest.approx(formula(shares, 0.5, 1.0, 1.5))


@pytest.mark.parametrize("measure", ["likelihood", "accuracy"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_one_likelihood_that_is_not_finite_fails_the_candidate(measure: Measure, value: float) -> None:
    """And a vanilla that is not finite makes no winner: minus an infinite loss would be an infinite gain."""
    broken = LIKELIHOODS.copy()
    broken[2, 1] = value
    pair = Scores(SCORES, broken), Scores(SCORES, VANILLA)
    assert math.isnan(Part(measure).value(*pair))
    assert math.isnan(Part(measure).value(*pair[::-1]))


# Parts -------------------------------------------------------------------------------------------------------------

MEASURES: tuple[Measure, ...] = ("likelihood", "accuracy")
KINDS: tuple[Kind, ...] = ("utilisation", "mean", "worst")
PARTS = [Part(measure, kind) for measure in MEASURES for kind in KINDS]
LINEAR = [part for part in PARTS if part.kind != "worst"]


def some_scores(records: int = 5, positions: int = 4) -> st.SearchStrategy[Scores]:
    """Of thousandths, for a violation of a subnormal number times a weight is 0."""
    shape = (records, positions)
    metric = arrays(np.float64, shape, elements=st.integers(0, 1000).map(lambda n: n / 1000))
    likely = arrays(np.float64, shape, elements=st.integers(-20_000, 0).map(lambda n: n / 1000))
    return st.builds(Scores, metric, likely)


def drawn(seed: int, records: int = 6, positions: int = 4) -> Scores:
    rng = np.random.default_rng(seed)
    return Scores(rng.random((records, positions)), -5 * rng.random((records, positions)))


def oracle(part: Part, found: Scores, vanilla: Scores) -> float:
    """The value of a part, position by position."""

    def by_position(scores: Scores) -> list[float]:
        measured = scores.log_likelihoods if part.measure == "likelihood" else scores.scores
        return [math.fsum(column) / len(column) for column in measured.T]

    def summary(values: list[float]) -> float:
        if part.kind == "utilisation":
            return formula(values, 0.8, 1.0, 1.2)
        return min(values) if part.kind == "worst" else math.fsum(values) / len(values)

    base = summary(by_position(vanilla)) if part.measure == "likelihood" else 0.0
    return summary(by_position(found)) - base


@pytest.mark.parametrize("part", PARTS, ids=str)
@given(found=some_scores(), vanilla=some_scores(), order=st.permutations(range(5)))
def test_the_value_of_a_part(part: Part, found: Scores, vanilla: Scores, order: list[int]) -> None:
    value = part.value(found, vanilla)
    assert value == pytest.approx(oracle(part, found, vanilla), abs=1e-9)
    assert part.value(found.rows(order), vanilla.rows(order)) == pytest.approx(value, abs=1e-9)
    per_record = part.per_record(found, vanilla)
    assert (per_record is None) == (part.kind == "worst")
    if per_record is not None:
        assert per_record.shape == (5,)
        assert per_record.mean() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("part", LINEAR, ids=str)
@given(one=some_scores(), other=some_scores(), vanilla=some_scores(), mixed=share)
def test_all_but_the_worst_position_are_linear(
    part: Part, one: Scores, other: Scores, vanilla: Scores, mixed: float
) -> None:
    blend = Scores(
        np.clip(mixed * one.scores + (1 - mixed) * other.scores, 0, 1),
        mixed * one.log_likelihoods + (1 - mixed) * other.log_likelihoods,
    )
    expected = mixed * part.value(one, vanilla) + (1 - mixed) * part.value(other, vanilla)
    assert part.value(blend, vanilla) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_one_part_is_its_u_to_the_last_bit(measure: Measure) -> None:
    """No share and no scale comes in: fitness of studies that exist stays comparable."""
    found, vanilla = drawn(1), drawn(2)
    gained = found.log_likelihoods - vanilla.log_likelihoods if measure == "likelihood" else found.scores
    before = float(utilisation(gained.mean(axis=0)))
    assert Part(measure).value(found, vanilla) == before
    objective = Objective((Part(measure, share=0.3),))
    assert objective.scales([vanilla]) == (1.0,)
    fitness = objective.fitness([found], [vanilla], (1.0,))
    assert (fitness.value, fitness.gain, fitness.penalties) == (before, before, {})


def test_the_worst_position_need_not_be_vanillas() -> None:
    found, vanilla = np.array([[-1.0, -3.0, -2.0]]), np.array([[-1.0, -1.0, -4.0]])
    part = Part("likelihood", "worst")
    assert part.value(Scores(np.zeros((1, 3)), found), Scores(np.zeros((1, 3)), vanilla)) == -3.0 - -4.0


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_vanilla_gains_nothing_by_likelihood(part: Part) -> None:
    vanilla = drawn(0)
    assert (part.value(vanilla, vanilla) == 0) == (part.measure == "likelihood")


def test_parts_that_make_no_sense() -> None:
    with pytest.raises(RopewalkError, match="no measure 'loss', expected one of: likelihood, accuracy"):
        Part("loss")  # type: ignore[arg-type]
    with pytest.raises(RopewalkError, match="no kind 'median', expected one of: utilisation, mean, worst"):
        Part(kind="median")  # type: ignore[arg-type]
    with pytest.raises(RopewalkError, match="at least one must be > 0"):
        Part(weights=(0.0, 0.0))
    with pytest.raises(RopewalkError, match=r"weights \[1.0, 2.0\] for kind 'worst', .*: give none, or use"):
        Part(kind="worst", weights=(1.0, 2.0))
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(RopewalkError, match=rf"share {wrong}: expected a finite number > 0; leave a task out"):
            Part(share=wrong)
    with pytest.raises(RopewalkError, match="2 weights for 4 positions"):
        Part(weights=(1.0, 2.0)).value(drawn(0), drawn(1))


# Mixes -------------------------------------------------------------------------------------------------------------

MIX = Objective((Part(name="kv", share=2.0), Part("accuracy", "worst", share=1.0, name="mdqa")))
MIXED, MIXED_VANILLA = [drawn(1), drawn(2, 9, 3)], [drawn(3), drawn(4, 9, 3)]


def test_a_mix_by_hand() -> None:
    scales = MIX.scales(MIXED_VANILLA)
    assert scales == pytest.approx((np.std(MIXED_VANILLA[0].log_likelihoods), np.std(MIXED_VANILLA[1].scores)))
    kv = oracle(MIX.parts[0], MIXED[0], MIXED_VANILLA[0])
    mdqa = [oracle(MIX.parts[1], scores, MIXED_VANILLA[1]) for scores in (MIXED[1], MIXED_VANILLA[1])]
    expected = (2 * kv / scales[0] + (mdqa[0] - mdqa[1]) / scales[1]) / 3
    fitness = MIX.fitness(MIXED, MIXED_VANILLA, scales)
    assert fitness.value == fitness.gain == pytest.approx(expected)
    assert MIX.fitness(MIXED_VANILLA, MIXED_VANILLA, scales).value == 0.0


@pytest.mark.parametrize("part", LINEAR, ids=str)
def test_a_task_in_other_units_weighs_the_same(part: Part) -> None:
    """What the scale is for: halving everything one task measures leaves the fitness alone."""
    mix = Objective((replace(part, name="a"), Part(name="b")))

    def halved(scores: Scores) -> Scores:
        return Scores(scores.scores / 2, scores.log_likelihoods / 2)

    def fitness(found: list[Scores], vanilla: list[Scores]) -> float:
        return mix.fitness(found, vanilla, mix.scales(vanilla)).value

    found, vanilla = [drawn(1), drawn(2)], [drawn(3), drawn(4)]
    smaller = fitness([halved(found[0]), found[1]], [halved(vanilla[0]), vanilla[1]])
    assert smaller == pytest.approx(fitness(found, vanilla))


def test_a_task_without_spread_cannot_be_normalised() -> None:
    same = Scores(np.full((6, 4), 0.1), np.full((6, 4), -0.1))  # whose std is not exactly 0 in floating point
    for measure in MEASURES:
        mix = Objective((Part(name="kv"), Part(measure, name="mdqa")))
        expected = (
            rf"mdqa can't be normalised: vanilla's {measure} has a standard deviation of 0 over 24 prompts.*alone"
        )
        with pytest.raises(RopewalkError, match=expected):
            mix.scales([drawn(0), same])
    broken = Scores(np.zeros((6, 4)), np.full((6, 4), math.nan))
    with pytest.raises(RopewalkError, match=r"task 1 can't be normalised: .* of nan over"):
        Objective((Part(), Part())).scales([broken, drawn(0)])


def test_objectives_of_parts_that_make_no_sense() -> None:
    with pytest.raises(RopewalkError, match="no parts: give at least one"):
        Objective(())
    with pytest.raises(RopewalkError, match="parts named kv, kv: give each part of a mix a name of its own"):
        Objective((Part(name="kv"), Part("accuracy", name="kv")))
    assert Objective((Part(), Part(name="kv"))).names == ("task 1", "kv")


def test_settings_are_json_and_say_everything() -> None:
    settings = replace(MIX, floor=PositionFloor(0.05), short=ShortTextLimit(2.0)).settings()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["parts"][1] == {
        "measure": "accuracy",
        "kind": "worst",
        "weights": [0.8, 1.0, 1.2],
        "share": 1.0,
        "name": "mdqa",
    }
    assert settings["floor"] == {"epsilon": 0.05, "weight": 10.0}
    assert settings["short"] == {"percent": 2.0, "weight": 100.0}
    assert MIX.settings()["floor"] is MIX.settings()["short"] is None


# Constraints -------------------------------------------------------------------------------------------------------


def test_value_is_gain_less_penalties() -> None:
    """By hand: each violation by name, beyond its noise, at its weight and its task's scale."""
    objective = replace(MIX, floor=PositionFloor(0.01, 10.0), short=ShortTextLimit(1.0, 100.0))
    scales, short = objective.scales(MIXED_VANILLA), (drawn(7, 3, 1), drawn(8, 3, 1))
    worse = [Scores(one.scores**2, one.log_likelihoods - 1 - one.scores) for one in MIXED]
    ruined = Scores(short[0].scores, short[0].log_likelihoods - 20)
    fitness = objective.fitness(worse, MIXED_VANILLA, scales, (ruined, short[1]))
    expected = {}

    def least(losses: np.ndarray) -> float:
        error = statistics.stdev(losses.tolist()) / math.sqrt(len(losses))
        return math.fsum(losses) / len(losses) - float(student.isf(0.05, len(losses) - 1)) * error

    for name, measure, found, vanilla, scale in zip(
        ("kv", "mdqa"), MEASURES, worse, MIXED_VANILLA, scales, strict=True
    ):
        for place, losses in enumerate((vanilla.measured(measure) - found.measured(measure)).T):
            expected[f"position @{place} of {name}"] = 10 * (least(losses) - 0.01) / scale
    log_ratios = (short[1].log_likelihoods - ruined.log_likelihoods)[:, 0]
    expected["short-text perplexity"] = 100 * (math.exp(least(log_ratios)) - 1.01)
    assert fitness.penalties == pytest.approx({name: cost for name, cost in expected.items() if cost > 0})
    assert "short-text perplexity" in fitness.penalties
    assert 0 < len(fitness.penalties) < len(expected)  # of either kind
    assert fitness.value == pytest.approx(fitness.gain - math.fsum(fitness.penalties.values()))
    assert fitness.gain == MIX.fitness(worse, MIXED_VANILLA, scales).value


@given(some_scores(), some_scores(), some_scores(), some_scores(), st.floats(0, 5))
def test_there_is_a_penalty_where_a_constraint_fails_and_nowhere_else(
    found: Scores, vanilla: Scores, short: Scores, short_vanilla: Scores, slack: float
) -> None:
    objective = Objective(floor=PositionFloor(slack), short=ShortTextLimit(slack))
    report = objective.constraint_report([found], [vanilla], (short, short_vanilla))
    fitness = objective.fitness([found], [vanilla], (1.0,), (short, short_vanilla))
    assert [row["name"] for row in report] == [*(f"position @{p}" for p in range(4)), "short-text perplexity"]
    assert set(fitness.penalties) == {row["name"] for row in report if not row["holds"]}
    assert all(row["holds"] == (row["value"] - row["margin"] <= row["limit"]) for row in report)
    assert all(penalty > 0 for penalty in fitness.penalties.values())
    assert fitness.value <= fitness.gain


def test_on_one_record_the_constraints_cost_nothing() -> None:
    """As searches see them whose candidates are scored on a record each; what is gained is still told."""
    objective = Objective(floor=PositionFloor(), short=ShortTextLimit())
    pair = [Scores(np.zeros((1, 3)), np.full((1, 3), level)) for level in (-5.0, -1.0)]
    fitness = objective.fitness(pair[:1], pair[1:], (1.0,), (pair[0], pair[1]))
    assert (fitness.value, fitness.gain, fitness.penalties) == (pytest.approx(-4.0), fitness.value, {})
    report = objective.constraint_report(pair[:1], pair[1:], (pair[0], pair[1]))
    assert [(row["value"], row["margin"], row["holds"]) for row in report[:3]] == [(4.0, None, True)] * 3
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_no_constraint_no_report() -> None:
    assert MIX.constraint_report(MIXED, MIXED_VANILLA) == []


def test_a_failed_candidate_has_no_fitness_but_a_report() -> None:
    broken = Scores(drawn(1).scores, np.full((6, 4), -math.inf))
    objective = Objective((Part("accuracy"),), PositionFloor(), ShortTextLimit())
    sound = drawn(2)
    for found, vanilla, *short in (
        (broken, sound, sound, sound),
        (sound, broken, sound, sound),
        (sound, sound, broken, sound),
        (sound, sound, sound, broken),
    ):
        fitness = objective.fitness([found], [vanilla], (1.0,), (short[0], short[1]))
        assert math.isnan(fitness.value)
        assert math.isnan(fitness.gain)
        assert fitness.penalties == {}
    report = Objective(floor=PositionFloor()).constraint_report([broken], [broken])
    assert [(row["value"], row["holds"]) for row in report] == [(None, False)] * 4
    per_record = Part().per_record(broken, sound)
    assert math.isnan(Part().value(broken, sound))
    assert per_record is not None
    assert np.isnan(per_record).all()


def test_arguments_that_do_not_fit_together() -> None:
    found = drawn(0)
    with pytest.raises(ValueError, match="short-text limit: give `short`"):
        Objective(short=ShortTextLimit()).fitness([found], [found], (1.0,))
    with pytest.raises(ValueError, match="short-text limit: give `short`"):
        Objective(short=ShortTextLimit()).constraint_report([found], [found])
    with pytest.raises(ValueError, match=r"scores of short texts \(6, 4\) and \(2, 4\)"):
        Objective(short=ShortTextLimit()).fitness([found], [found], (1.0,), (found, found.rows([0, 1])))
    with pytest.raises(ValueError, match="vanilla: scores of 1 tasks, expected 2, one a part"):
        MIX.fitness([found, found], [found], (1.0, 1.0))
    with pytest.raises(ValueError, match=r"scores of mdqa \(6, 4\) and \(9, 3\): expected the same records"):
        MIX.fitness([found, found], MIXED_VANILLA, (1.0, 1.0))
    for scales in ((), (1.0,), (1.0, 0.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="expected 2 numbers > 0, as `scales` returns them"):
            MIX.fitness(MIXED, MIXED_VANILLA, scales)


# Racing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(part,) for part in LINEAR] + [tuple(LINEAR)], ids=len)
@given(data=st.data())
def test_the_difference_is_that_of_fitness(parts: tuple[Part, ...], data: st.DataObject) -> None:
    objective = Objective(tuple(replace(part, share=1.0 + place) for place, part in enumerate(parts)))
    found, rival, vanilla = ([data.draw(some_scores()) for _ in parts] for _ in range(3))
    scales = data.draw(st.tuples(*[st.floats(0.1, 10)] * len(parts))) if len(parts) > 1 else (1.0,)
    difference = objective.difference(found, rival, scales)
    assert difference is not None
    expected = objective.fitness(found, vanilla, scales).value - objective.fitness(rival, vanilla, scales).value
    assert difference[0] == pytest.approx(expected, abs=1e-7)
    shares = [part.share / sum(p.share for p in objective.parts) for part in objective.parts]
    variance = 0.0
    for part, weight, scale, mine, other in zip(objective.parts, shares, scales, found, rival, strict=True):
        by_record = [part.value(mine.rows([n]), vanilla[0].rows([n])) for n in range(5)]
        theirs = [part.value(other.rows([n]), vanilla[0].rows([n])) for n in range(5)]
        variance += (weight / scale) ** 2 * np.var(np.subtract(by_record, theirs), ddof=1) / 5
    assert difference[1] == pytest.approx(math.sqrt(variance), abs=1e-7)


def test_the_standard_error_is_that_of_repeated_draws() -> None:
    """Records drawn anew many times: the mean differences scatter by what one draw says of itself."""
    rng, objective = np.random.default_rng(0), Objective((Part(name="a", share=3.0), Part("accuracy", name="b")))
    means, errors = [], []
    for _ in range(2000):
        found, rival = (
            [Scores(rng.random((n, 3)), -spread * rng.random((n, 3))) for n, spread in ((30, 2.0), (12, 1.0))]
            for _ in range(2)
        )
        mean, error = objective.difference(found, rival, (0.7, 0.2)) or (math.nan, math.nan)
        means.append(mean)
        errors.append(error**2)
    assert np.std(means) == pytest.approx(math.sqrt(np.mean(errors)), rel=0.05)


def test_what_has_no_standard_error() -> None:
    found = drawn(0)
    assert MIX.difference(MIXED, MIXED_VANILLA, (1.0, 1.0)) is None
    assert Objective().difference([found.rows([0])], [found.rows([0])], (1.0,)) is None
    assert Objective().difference([found], [found], (1.0,)) == (0.0, 0.0)
    broken = Scores(found.scores, np.full((6, 4), -math.inf))
    assert all(map(math.isnan, Objective((Part("accuracy"),)).difference([broken], [found], (1.0,)) or ()))
    assert all(map(math.isnan, Objective().difference([found], [broken], (1.0,)) or ()))
    with pytest.raises(ValueError, match="expected the same records"):
        Objective().difference([found], [found.rows([0, 1])], (1.0,))
