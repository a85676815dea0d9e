"""Whole searches on a tiny random llama: what they leave, and what is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.ledger import BASELINE
from ropewalk.patch import apply, factors_of, remove
from ropewalk.run import Evaluated, Scored, SearchResult, Stage, search
from run_faults import CANDIDATES, PROMPTS, broken, stored_settings, worse
from small_search import POSITIONS, SPACE, CountingEvaluator, evaluator, plan

# What a search leaves ----------------------------------------------------------------------------------------------


def test_a_search_from_start_to_end(uninterrupted: tuple[SearchResult, Path], loaded: tuple[Any, Any]) -> None:
    result, out = uninterrupted
    factors = ScalingFactors.load(out / "factors.json")
    assert factors == result.factors
    assert factors.values == SPACE.factors(result.candidate).values
    factors.check_model(model_identity(loaded[0]), base_scheme(loaded[0]))
    assert factors.found["fitness"] == result.fitness
    assert factors.found["validation"] == result.validation
    assert factors.found["control_points"] == [list(point) for point in result.candidate.control_points]
    assert factors.found["evaluations"] == CANDIDATES * PROMPTS
    assert result.evaluations == CANDIDATES * PROMPTS + 3 * PROMPTS
    assert result.failed == 0
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
    assert settings["search"]["task"] == settings["validation"]["task"] == "kv"
    assert settings["search"]["positions"] == list(POSITIONS)
    assert settings["search"]["examples"] == PROMPTS
    assert settings["search"]["sha256"] != settings["validation"]["sha256"]
    assert settings["method"] == plan().method.settings()
    assert settings["objective"] == {"measure": "likelihood", "weights": [0.8, 1.0, 1.2]}
    assert settings["finalists"] == 2


def test_factors_are_written_at_each_improvement(tmp_path: Path, on_search: CountingEvaluator) -> None:
    """At every moment the file is whole and holds the best so far, so a kill leaves it."""
    seen = []

    def check(event: Any) -> None:
        if isinstance(event, Evaluated):
            factors = ScalingFactors.load(tmp_path / "factors.json")
            assert factors.found["fitness"] == event.best
            seen.append((event.record.fitness, event.best))

    search(plan(), on_search, None, tmp_path, on_event=check)
    fitness = [pair[0] for pair in seen]
    assert [pair[1] for pair in seen] == np.maximum.accumulate([0.0, *fitness])[1:].tolist()
    assert len({pair[1] for pair in seen}) > 1


def test_events_add_up(tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator) -> None:
    events: list[Any] = []
    search(plan(), on_search, on_validation, tmp_path, on_event=events.append)
    stages = [event for event in events if isinstance(event, Stage)]
    assert stages == [Stage("Search", CANDIDATES * PROMPTS), Stage("Finalists", 3 * PROMPTS)]
    second = events.index(stages[1])
    assert sum(event.prompts for event in events[:second] if isinstance(event, Scored)) == stages[0].prompts
    assert sum(event.prompts for event in events[second:] if isinstance(event, Scored)) == stages[1].prompts
    assert sum(isinstance(event, Evaluated) for event in events) == CANDIDATES
    assert (on_search.calls, on_validation.calls) == (CANDIDATES, 3)


def test_the_model_is_left_as_it_was(tmp_path: Path, loaded: tuple[Any, Any], on_search: CountingEvaluator) -> None:
    search(plan(generations=1), on_search, None, tmp_path / "bare")
    assert factors_of(loaded[0]) is None
    apply(loaded[0], ScalingFactors.uniform(1.1, 4))
    try:
        carrying = search(plan(generations=1), evaluator(*loaded), None, tmp_path / "carrying")
        assert factors_of(loaded[0]) == ScalingFactors.uniform(1.1, 4)
    finally:
        remove(loaded[0])
    assert carrying.records[0].fitness == 0.0
    assert (tmp_path / "bare/factors.json").read_bytes() == (tmp_path / "carrying/factors.json").read_bytes()


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
