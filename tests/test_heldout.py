"""The test on held-out records: its figures, what is counted, what it refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ropewalk.comparison import compare
from ropewalk.errors import DataError, FactorsError
from ropewalk.factors import ScalingFactors
from ropewalk.findings import findings
from ropewalk.heldout import final_test
from ropewalk.results import TaskResult
from ropewalk.run import Scored, Stage
from run_faults import PROMPTS, worse
from small_search import SPACE, evaluator, plan


def test_the_final_tests_summary(loaded: tuple[Any, Any]) -> None:
    held_out = evaluator(*loaded, "test", records=3)
    factors = SPACE.factors(plan().method.ask()[2])
    events: list[Any] = []
    summary, results = final_test(
        held_out, factors, controls={"uniform": factors.matched_uniform()}, on_event=events.append
    )
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["positions"] == [0, 2]
    assert list(results) == ["vanilla", "uniform", "factors"]
    for name, arm in (("vanilla", None), ("uniform", factors.matched_uniform()), ("factors", factors)):
        block, scored = summary[name], held_out.score(arm)
        assert block["accuracy"] == scored.scores.mean(axis=0).tolist()
        assert block["nll"] == pytest.approx((-scored.log_likelihoods.mean(axis=0)).tolist(), abs=1e-12)
        low, high = np.array(block["interval"]).T
        assert ((low <= block["accuracy"]) & (block["accuracy"] <= high)).tolist() == [True, True]
        assert block["average"] == pytest.approx(scored.scores.mean())
        np.testing.assert_array_equal(results[name].log_likelihoods, scored.log_likelihoods)
    gain = (results["factors"].log_likelihoods - results["vanilla"].log_likelihoods).mean()
    assert summary["gain"]["factors"]["average_log_likelihood"]["difference"] == pytest.approx(gain)
    assert list(summary["gain"]) == ["uniform", "factors"]
    over = (results["factors"].log_likelihoods - results["uniform"].log_likelihoods).mean()
    assert summary["factors_over"]["uniform"]["average_log_likelihood"]["difference"] == pytest.approx(over)
    assert summary["evaluations"] == 3 * 3 * 2
    assert events[0] == Stage("Test", 18)
    assert sum(event.prompts for event in events[1:]) == 18


def test_a_known_result_of_vanilla_is_not_scored_again(loaded: tuple[Any, Any]) -> None:
    held_out, factors = evaluator(*loaded, "test"), ScalingFactors.uniform(1.1, 4)
    vanilla = held_out.score(None)
    whole, _ = final_test(held_out, factors)
    held_out.calls = 0
    events: list[Any] = []
    known, results = final_test(held_out, factors, vanilla=vanilla, on_event=events.append)
    assert held_out.calls == 1
    assert known == whole
    assert list(results) == ["vanilla", "factors"]
    assert sum(event.prompts for event in events[1:]) == events[0].prompts == PROMPTS
    with pytest.raises(DataError, match="different examples"):
        final_test(evaluator(*loaded, "validation"), factors, vanilla=vanilla)


def test_the_summary_is_plain_json_where_the_model_gives_nan(loaded: tuple[Any, Any]) -> None:
    def fault(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        return replace(result, log_likelihoods=np.where([[True, False]], math.nan, result.log_likelihoods))

    held_out = evaluator(*loaded, "test")
    held_out.fault = fault
    summary, _ = final_test(held_out, ScalingFactors.uniform(1.1, 4))
    json.dumps(summary, allow_nan=False)
    assert summary["factors"]["nll"][0] is None
    assert summary["factors"]["average_nll"] is None
    assert summary["vanilla"]["average_nll"] is not None
    assert summary["gain"]["factors"]["average_log_likelihood"]["p"] is None


def test_factors_of_one_give_vanillas_scores_exactly(loaded: tuple[Any, Any]) -> None:
    summary, results = final_test(evaluator(*loaded, "test"), ScalingFactors.uniform(1.0, 4))
    np.testing.assert_array_equal(results["vanilla"].log_likelihoods, results["factors"].log_likelihoods)
    assert summary["vanilla"] == summary["factors"]
    assert summary["gain"]["factors"]["average_log_likelihood"]["p"] == 1.0


def test_the_final_test_refuses_before_it_scores(loaded: tuple[Any, Any]) -> None:
    factors = ScalingFactors.uniform(1.1, 4)
    with pytest.raises(DataError, match="a test on 1 record has no interval"):
        final_test(evaluator(*loaded, "test", records=1), factors)
    held_out = evaluator(*loaded, "test")
    for name in ("vanilla", "factors", "gain"):
        with pytest.raises(ValueError, match=f"can't be named {name}"):
            final_test(held_out, factors, controls={name: factors})
    assert held_out.calls == 0


def test_factors_of_another_model(loaded: tuple[Any, Any]) -> None:
    foreign = ScalingFactors([1.1] * 4, model={"name": "other", "fingerprint": "sha256:0"})
    held_out = evaluator(*loaded, "test")
    with pytest.raises(FactorsError, match="another"):
        final_test(held_out, foreign)
    assert held_out.calls == 0
    summary, _ = final_test(held_out, foreign, any_model=True)
    assert summary["factors"]["records"] == 2


def test_what_the_factors_cost_in_a_short_context(loaded: tuple[Any, Any]) -> None:
    held_out, factors = evaluator(*loaded, "test"), ScalingFactors.uniform(1.1, 4)
    short = evaluator(*loaded, "validation", records=3)
    events: list[Any] = []
    summary, results = final_test(held_out, factors, short=short, on_event=events.append)
    assert short.calls == 2
    vanilla, patched = short.score(None), short.score(factors)
    assert summary["short"]["vanilla"]["nll"] == vanilla.nll.tolist()
    assert summary["short"]["factors"]["nll"] == patched.nll.tolist()
    assert summary["short"]["task"] == short.settings
    assert summary["short"]["gain"] == compare(vanilla, patched)
    assert list(results) == ["vanilla", "factors"]
    assert summary["evaluations"] == 2 * PROMPTS + 2 * 6
    assert [event for event in events if isinstance(event, Stage)] == [Stage("Test", 2 * PROMPTS), Stage("Short", 12)]
    assert sum(event.prompts for event in events if isinstance(event, Scored)) == summary["evaluations"]
    assert summary["warnings"] == findings(summary)
    json.dumps(summary, allow_nan=False)


def test_losses_are_named(loaded: tuple[Any, Any]) -> None:
    """All but vanilla lose two nats a token, in ten records: enough for every test."""
    held_out, short = evaluator(*loaded, "test", records=10), evaluator(*loaded, "validation", records=10)
    held_out.fault = short.fault = worse
    summary, _ = final_test(held_out, ScalingFactors.uniform(1.1, 4), short=short)
    assert [finding["name"] for finding in summary["warnings"]] == ["lost in the tail", "short-context regression"]
    summary, _ = final_test(held_out, ScalingFactors.uniform(1.0, 4), short=short)
    assert summary["warnings"] == []
