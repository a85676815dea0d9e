"""Whole searches on a tiny random llama: what they leave, and what is chosen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.errors import RopewalkError, StudyError
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.ledger import BASELINE
from ropewalk.patch import apply, factors_of, remove
from ropewalk.run import Evaluated, Scored, SearchPlan, SearchResult, Spared, Stage
from run_faults import CANDIDATES, PROMPTS, broken, stored_settings, worse
from small_search import POSITIONS, SPACE, CountingEvaluator, default_plan, evaluator, plan, search, windows_plan

# What a search leaves ----------------------------------------------------------------------------------------------


def test_a_search_from_start_to_end(uninterrupted: tuple[SearchResult, Path], loaded: tuple[Any, Any]) -> None:
    result, out = uninterrupted
    factors = ScalingFactors.load(out / "factors.json")
    assert factors == result.factors
    assert factors.values == SPACE.factors(result.candidate).values
    factors.check_model(model_identity(loaded[0]), base_scheme(loaded[0]))
    assert factors.found["fitness"] == result.fitness
    assert factors.found["validation"] == result.validation
    assert factors.found["control_points"] == result.candidate.to_json()["control_points"]
    assert factors.found["method"] == plan().method.settings()
    assert factors.found["seconds"] > 0
    assert factors.found["evaluations"] == CANDIDATES * PROMPTS
    assert result.evaluations == CANDIDATES * PROMPTS
    assert result.validation_evaluations == 3 * PROMPTS
    assert (result.failed, result.stopped) == (0, 0)
    assert len(result.records) == CANDIDATES + 1  # the identity stands before the first generation and in it
    baseline, twin = result.records[0], result.records[1]
    assert (baseline.generation, baseline.slot) == BASELINE
    assert baseline.candidate == twin.candidate == SPACE.identity()
    assert baseline.fitness == twin.fitness == 0.0


def test_the_fitness_is_the_objective_of_the_real_scores(
    uninterrupted: tuple[SearchResult, Path], on_search: CountingEvaluator
) -> None:
    vanilla = on_search.score(None).log_likelihoods
    for record in uninterrupted[0].records[::4]:
        scored = on_search.score(SPACE.factors(record.candidate))
        gain = (scored.log_likelihoods - vanilla).mean(axis=0)
        assert record.fitness == pytest.approx((0.8 * gain[0] + 1.2 * gain[1]) / 2, abs=1e-12)


def test_settings_name_all_that_decides(uninterrupted: tuple[SearchResult, Path], loaded: tuple[Any, Any]) -> None:
    settings = stored_settings(uninterrupted[1])
    assert settings["model"] == model_identity(loaded[0])
    assert settings["base"] == base_scheme(loaded[0])
    assert settings["dtype"] == "float32"
    (on,), (validation,) = settings["tasks"], settings["validation"]
    assert on["task"] == validation["task"] == "kv"
    assert on["positions"] == list(POSITIONS)
    assert on["examples"] == PROMPTS
    assert on["sha256"] != validation["sha256"]
    assert settings["method"] == plan().method.settings()
    assert settings["objective"] == plan().objective.settings()
    assert [settings[name] for name in ("finalists", "racing", "budget", "seconds")] == [2, False, None, None]


def test_factors_are_written_at_each_improvement(tmp_path: Path, on_search: CountingEvaluator) -> None:
    """At every moment the file is whole and holds the best so far, so a kill leaves it."""
    seen = []

    def check(event: Any) -> None:
        if isinstance(event, Evaluated):
            factors = ScalingFactors.load(tmp_path / "factors.json")
            assert factors.found["fitness"] == event.best
            seen.append((event.record.fitness, event.best))

    search(plan(), on_search, None, tmp_path, check)
    fitness = [pair[0] for pair in seen]
    assert [pair[1] for pair in seen] == np.maximum.accumulate([0.0, *fitness])[1:].tolist()
    assert len({pair[1] for pair in seen}) > 1


def test_events_add_up(tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator) -> None:
    events: list[Any] = []
    search(plan(), on_search, on_validation, tmp_path, events.append)
    stages = [event for event in events if isinstance(event, Stage)]
    assert stages == [Stage("Search", CANDIDATES * PROMPTS), Stage("Finalists", 3 * PROMPTS)]
    second = events.index(stages[1])
    assert sum(event.prompts for event in events[:second] if isinstance(event, Scored)) == stages[0].prompts
    assert not any(isinstance(event, Spared) for event in events)
    assert sum(event.prompts for event in events[second:] if isinstance(event, Scored)) == stages[1].prompts
    assert sum(isinstance(event, Evaluated) for event in events) == CANDIDATES
    assert (on_search.calls, on_validation.calls) == (CANDIDATES, 3)


def test_the_model_is_left_as_it_was(tmp_path: Path, loaded: tuple[Any, Any], on_search: CountingEvaluator) -> None:
    bare = search(plan(generations=1), on_search, None, tmp_path / "bare")
    assert factors_of(loaded[0]) is None
    apply(loaded[0], ScalingFactors.uniform(1.1, 4))
    try:
        carrying = search(plan(generations=1), evaluator(*loaded), None, tmp_path / "carrying")
        assert factors_of(loaded[0]) == ScalingFactors.uniform(1.1, 4)
    finally:
        remove(loaded[0])
    assert carrying.records[0].fitness == 0.0
    assert [record.fitness for record in carrying.records] == [record.fitness for record in bare.records]
    assert carrying.factors.values == bare.factors.values


# The choice --------------------------------------------------------------------------------------------------------


def test_the_identity_is_among_the_finalists(uninterrupted: tuple[SearchResult, Path]) -> None:
    result, _ = uninterrupted
    assert result.validation[0]["candidate"] == SPACE.identity().to_json()
    assert result.validation[0]["fitness"] == 0.0
    ranked = sorted(result.records, key=lambda record: -record.fitness)
    assert [row["candidate"] for row in result.validation[1:]] == [one.candidate.to_json() for one in ranked[:2]]
    best = max(result.validation, key=lambda row: row["fitness"])
    assert result.candidate.to_json() == best["candidate"]


def test_the_winner_may_be_the_identity(
    tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator
) -> None:
    on_validation.fault = worse
    result = search(plan(), on_search, on_validation, tmp_path)
    assert result.factors.is_identity
    assert result.fitness == 0.0
    assert ScalingFactors.load(tmp_path / "factors.json").is_identity
    assert [row["fitness"] < 0 for row in result.validation] == [False, True, True]


def test_nothing_better_than_vanilla_is_found(tmp_path: Path, on_search: CountingEvaluator) -> None:
    on_search.fault = worse
    assert search(plan(), on_search, None, tmp_path).factors.is_identity


def test_finalists_that_fail_do_not_win(
    tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator
) -> None:
    on_validation.fault = broken
    result = search(plan(), on_search, on_validation, tmp_path)
    assert result.factors.is_identity
    assert [row["fitness"] for row in result.validation] == [0.0, None, None]
    assert result.validation[1]["error"] == "RuntimeError: broken on purpose"


@pytest.mark.parametrize("finalists", [0, 3])
def test_without_validation_the_fittest_wins(
    tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator, finalists: int
) -> None:
    result = search(plan(finalists=finalists), on_search, None if finalists else on_validation, tmp_path)
    assert result.validation == []
    assert on_validation.calls == 0
    assert result.fitness == max(record.fitness for record in result.records)
    assert result.factors.values == SPACE.factors(result.candidate).values


# What ends a search --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("budget", [PROMPTS, 5 * PROMPTS + 1, 6 * PROMPTS, 900])
def test_a_budget_is_never_exceeded(tmp_path: Path, on_search: CountingEvaluator, budget: int, at_once: int) -> None:
    limited = plan(budget=budget, at_once=at_once)
    result = search(limited, on_search, None, tmp_path)
    assert result.evaluations <= budget
    assert result.evaluations > min(budget, CANDIDATES * PROMPTS) - (1 + at_once) * PROMPTS
    assert on_search.calls * PROMPTS == result.evaluations
    assert result.fitness == max(record.fitness for record in result.records)  # also of an unfinished generation
    again = search(limited, on_search, None, tmp_path)
    assert on_search.calls * PROMPTS == again.evaluations == result.evaluations
    assert again.factors.values == result.factors.values


def test_a_budget_that_does_not_pay_for_vanilla(tmp_path: Path, on_search: CountingEvaluator) -> None:
    with pytest.raises(RopewalkError, match=f"budget of 3 evaluations does not pay .* more than {PROMPTS}"):
        search(plan(budget=3), on_search, None, tmp_path / "out")
    assert on_search.calls == 0
    assert not (tmp_path / "out").exists()


def test_time_ends_a_search_and_it_stays_ended(
    tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator
) -> None:
    short = plan(seconds=1e-9)
    result = search(short, on_search, on_validation, tmp_path)
    assert (on_search.calls, result.factors.is_identity) == (1, True)
    assert [row["fitness"] for row in result.validation] == [0.0]
    search(short, on_search, on_validation, tmp_path)
    assert on_search.calls == 1
    with pytest.raises(StudyError, match=r"seconds: 1e-09 -> 60"):
        search(plan(seconds=60), on_search, on_validation, tmp_path)


@pytest.mark.parametrize("small_plan", [plan, windows_plan, default_plan])
def test_how_many_are_scored_at_once_changes_nothing(
    tmp_path: Path, loaded: tuple[Any, Any], small_plan: Callable[..., SearchPlan]
) -> None:
    results = [
        search(small_plan(at_once=size, racing=True), evaluator(*loaded, records=10), None, tmp_path / str(size))
        for size in (1, 3, 8)
    ]
    for other in results[1:]:
        assert [record.candidate for record in other.records] == [record.candidate for record in results[0].records]
        for one, another in zip(results[0].records, other.records, strict=True):
            assert one.fitness == pytest.approx(another.fitness, abs=1e-6)
            assert (one.stopped, one.rows, one.parents) == (another.stopped, another.rows, another.parents)
        assert other.factors.values == results[0].factors.values


def test_parents_are_recorded_by_their_places(uninterrupted: tuple[SearchResult, Path]) -> None:
    records = {(record.generation, record.slot): record for record in uninterrupted[0].records}
    assert all(record.parents == () for record in records.values() if record.generation < 1)
    for record in records.values():
        if record.generation > 0:
            assert len(record.parents) in (1, 2)
            assert all(records[parent].generation < record.generation for parent in record.parents)


def test_each_generation_is_scored_on_its_own_records(tmp_path: Path, loaded: tuple[Any, Any]) -> None:
    """And vanilla is subtracted on the same ones."""
    chosen, on = windows_plan(racing=False), evaluator(*loaded, records=10)
    result = search(chosen, on, None, tmp_path)
    vanilla, method = on.score(None).log_likelihoods, copy.deepcopy(chosen.method)
    weights = np.array([0.8, 1.2]) / 2
    windows = []
    for generation in range(method.options.generations):
        members = [record for record in result.records if record.generation == generation]
        rows = method.records(0, 10)
        assert all(record.rows == (tuple(rows),) for record in members)
        windows.append(tuple(rows))
        for record in members:
            scored = on.score(SPACE.factors(record.candidate)).log_likelihoods
            assert record.fitness == pytest.approx((scored - vanilla)[rows].mean(axis=0) @ weights, abs=1e-6)
        method.tell(method.ask(), [record.fitness for record in members])
    assert len(set(windows)) == len(windows)
    assert method.ask() == [result.records[-1].candidate]
    first = next(record for record in result.records if record.generation == 0)
    assert (first.fitness, first.prompts) == (0.0, 0)  # the identity, of which all is known
