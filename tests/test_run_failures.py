"""Searches spoilt on purpose: candidates, models and screens that fail."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import DataError, RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.heldout import final_test
from ropewalk.objectives import Objective, Part
from ropewalk.results import TaskResult
from ropewalk.run import Scored, SearchResult
from run_faults import PROMPTS, Stop, broken, content
from small_search import SPACE, CountingEvaluator, plan, search


def test_failed_candidates_are_recorded_and_never_win(
    tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator
) -> None:
    """The fittest would be those that fail: some raise, some give NaN."""

    def fault(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        first = factors.values[0]
        if first is not None and first < 0.9:
            raise RuntimeError("an error on purpose")
        if first is not None and first > 1.1:
            likelihoods = result.log_likelihoods + 100
            likelihoods[0, 0] = math.nan
            return replace(result, log_likelihoods=likelihoods)
        return result

    on_search.fault = fault
    larger = plan(population=10, generations=2)
    result = search(larger, on_search, on_validation, tmp_path)
    failed = [record for record in result.records if record.failed]
    assert result.failed == len(failed) > 0
    raised = [record for record in failed if not record.found]
    spoilt = [record for record in failed if record.found]
    assert raised
    assert spoilt
    for record in raised:
        assert record.error is not None
        assert record.error.startswith("Traceback")
        assert 'raise RuntimeError("an error on purpose")' in record.error
    for record in spoilt:
        assert record.error == "1 of 4 log-likelihoods are not finite"
    assert math.isfinite(result.fitness)
    losers = {json.dumps(record.candidate.to_json()) for record in failed}
    assert not losers & {json.dumps(row["candidate"]) for row in result.validation}
    calls = on_search.calls
    search(larger, on_search, on_validation, tmp_path)  # failed ones are not tried again
    assert on_search.calls == calls


@pytest.mark.parametrize("racing", [False, True])
def test_in_a_group_only_the_guilty_one_fails(
    tmp_path: Path, on_search: CountingEvaluator, uninterrupted: tuple[SearchResult, Path], racing: bool
) -> None:
    """Scoring five together raises; each is scored alone then, and told of once."""
    guilty = uninterrupted[0].records[3].candidate

    def fault(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        if factors.values == SPACE.factors(guilty).values:
            raise RopewalkError("a batch of 9 tokens, the smallest possible one, does not fit")
        return result

    on_search.fault = fault
    events: list[Any] = []
    result = search(plan(generations=1, at_once=5, racing=racing), on_search, None, tmp_path, events.append)
    assert [record.candidate for record in result.records if record.failed] == [guilty]
    failed = next(record for record in result.records if record.failed)
    assert (failed.error or "").endswith(
        "RopewalkError: a batch of 9 tokens, the smallest possible one, does not fit\n"
    )
    assert (failed.found, failed.prompts) == ((), PROMPTS)
    for record, alone in zip(result.records, uninterrupted[0].records, strict=False):
        assert record.failed or record.fitness == pytest.approx(alone.fitness, abs=1e-6)
    assert sum(event.prompts for event in events if isinstance(event, Scored)) == 5 * PROMPTS == result.evaluations


def test_a_search_of_failures_stops_with_the_reason(tmp_path: Path, on_search: CountingEvaluator) -> None:
    on_search.fault = broken
    with pytest.raises(
        RopewalkError, match=r"4 of 6 candidates failed.*The last reason: RuntimeError: broken on purpose\. "
    ) as caught:
        search(plan(population=10), on_search, None, tmp_path)
    assert "\n" not in str(caught.value)
    assert ScalingFactors.load(tmp_path / "factors.json").is_identity
    assert on_search.calls == 5


def test_a_model_that_can_not_be_scored(tmp_path: Path, on_search: CountingEvaluator) -> None:
    def overflow(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        return replace(result, log_likelihoods=result.log_likelihoods * math.nan)

    on_search.fault = overflow
    with pytest.raises(RopewalkError, match=r"the model as it is can't be scored .*4 of 4 .*--dtype float32"):
        search(plan(), on_search, None, tmp_path)

    def crash(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        raise IndexError("no such row")

    on_search.fault = crash
    with pytest.raises(RopewalkError, match=r"can't be scored .*IndexError: no such row") as caught:
        search(plan(), on_search, None, tmp_path)
    assert isinstance(caught.value.__cause__, IndexError)
    on_search.fault = None  # nothing was recorded: the cure works in the same folder, also with other settings
    assert search(plan(seed=1), on_search, None, tmp_path).failed == 0


def test_errors_of_the_user_are_no_failed_candidates(tmp_path: Path, on_search: CountingEvaluator) -> None:
    def refuse(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        raise DataError("the prompts can't be used")

    on_search.fault = refuse
    with pytest.raises(DataError, match="the prompts can't be used"):
        search(plan(), on_search, None, tmp_path)


def test_a_broken_screen_is_no_failed_candidate(
    tmp_path: Path, on_search: CountingEvaluator, uninterrupted: tuple[SearchResult, Path]
) -> None:
    with pytest.raises(BrokenPipeError):
        search(plan(), on_search, None, tmp_path, Stop(Scored, 4, BrokenPipeError))
    result = search(plan(), on_search, None, tmp_path)
    assert result.failed == 0
    assert [content(one) for one in result.records] == [content(one) for one in uninterrupted[0].records]


def test_weights_that_do_not_fit_are_refused_before_anything_runs(tmp_path: Path, on_search: CountingEvaluator) -> None:
    weights = (1.0, 1.0, 1.0, 1.0)
    odd = plan(objective=Objective((Part(weights=weights),)))
    with pytest.raises(RopewalkError, match="4 weights for 2 positions"):
        search(odd, on_search, None, tmp_path / "out")
    with pytest.raises(RopewalkError, match="4 weights for 2 positions"):
        final_test(on_search, ScalingFactors.uniform(1.1, 4), weights)
    assert on_search.calls == 0
    assert not (tmp_path / "out").exists()
