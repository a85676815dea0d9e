"""Factors built from predictors, the halves of the records, and the same statistics as were read prompt by prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ropewalk.analysis.base import Subject
from ropewalk.analysis.entropy import Entropy, halves, predicted
from ropewalk.analysis.parts.attention_reader import read_attention
from ropewalk.analysis.parts.contributions import contributions
from ropewalk.analysis.parts.readings import read_arms
from ropewalk.errors import DataError, FactorsError
from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors
from ropewalk.patch import factors_of, patched
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

FACTORS = ScalingFactors([0.8, 1.3, 1.0, 1.1])


def subject(loaded: tuple[Any, Any], limit: int = 4) -> Subject:
    task = make_task("kv", TaskOptions(positions=2, keys=3, limit=limit))
    evaluator = Evaluator(*loaded, task, task.examples("test"), chat_template=False)
    return Subject(*loaded, {"kv": evaluator}, {"given": FACTORS})


def test_a_layer_is_predicted_from_the_others_alone() -> None:
    generator = np.random.default_rng(0)
    predictors = generator.normal(size=(9, 2))
    factors = 1 + predictors @ np.array([0.1, -0.05]) + 0.01 * generator.normal(size=9)
    found = predicted(factors, predictors)
    for layer in range(9):
        others = [other for other in range(9) if other != layer]
        design = np.column_stack([np.ones(8), predictors[others]])
        plane = np.linalg.solve(design.T @ design, design.T @ factors[others])
        expected = np.clip(np.array([1, *predictors[layer]]) @ plane, factors.min(), factors.max())
        assert found[layer] == pytest.approx(expected, rel=1e-9)
    moved = factors.copy()
    moved[3] = factors[3] + 1e-3
    assert predicted(moved, predictors)[3] == pytest.approx(found[3], abs=1e-12)


def test_predictors_that_say_nothing_give_the_mean_of_the_others() -> None:
    factors = np.array([0.9, 1.0, 1.1, 1.4])
    expected = [factors[np.arange(4) != layer].mean() for layer in range(4)]
    np.testing.assert_allclose(predicted(factors, np.ones((4, 2))), expected, rtol=1e-9)


def test_every_second_record_is_learnt_from(loaded: tuple[Any, Any]) -> None:
    whole = subject(loaded, 5)
    learn, test = halves(whole)
    assert learn.evaluator.records == whole.evaluator.records[::2]
    assert test.evaluator.records == whole.evaluator.records[1::2]
    with pytest.raises(DataError, match="3 records: half of them are learnt from"):
        halves(subject(loaded, 3))


def test_readings_are_means_over_the_prompts_of_a_record(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    on = subject(loaded, 2)
    starts, found = read_arms(on, {"vanilla": None, "factors": FACTORS})
    for arm, factors in {"vanilla": [1.0] * 4, "factors": FACTORS}.items():
        with patched(model, factors):
            prompts = [prompt for (prompt,) in on.evaluator._prompts]
            reads = [read_attention(model, prompt.ids, prompt.first) for prompt in prompts]
        for record in range(2):
            pair = [(reads[2 * record + place], prompts[2 * record + place]) for place in range(2)]
            for layer in range(4):
                entropy = [
                    read.layers[layer].entropy[prompt.first - 1 : len(prompt.ids) - 1].mean() for read, prompt in pair
                ]
                assert found[arm].entropy[record, layer] == pytest.approx(np.mean(entropy), rel=1e-9)
                sums = sum(read.layers[layer].scores * read.layers[layer].pairs for read, _ in pair)
                pairs = sum(read.layers[layer].pairs for read, _ in pair)
                np.testing.assert_allclose(found[arm].scores[record, layer], sums / pairs, rtol=1e-9)
        assert found[arm].thirds.shape == (2, 4, 3)
        np.testing.assert_allclose(found[arm].thirds.sum(axis=-1), 1, rtol=1e-5)
        assert found[arm].bound.shape == (4, len(starts))
    assert factors_of(model) is None


def test_factors_of_another_model_are_refused_before_anything_is_read(loaded: tuple[Any, Any]) -> None:
    on = subject(loaded, 2)
    with pytest.raises(FactorsError, match="5 factors for a model of 4 layers"):
        read_arms(on, {"vanilla": None, "factors": ScalingFactors([1.1] * 5)})
    assert on.kept._memory == {}


def test_a_part_is_what_leaving_the_layer_out_costs(loaded: tuple[Any, Any]) -> None:
    on = subject(loaded, 2)
    parts = contributions(on, FACTORS)
    assert (parts.values[:, 2] == 0).all()  # its factor is 1
    without = on.evaluator.score(ScalingFactors([0.8, 1.0, 1.0, 1.1]))
    gap = parts.whole.log_likelihoods - without.log_likelihoods
    np.testing.assert_allclose(parts.values[:, 1], gap @ np.array([0.8, 1.2]) / 2, atol=1e-9)


def test_the_same_factor_in_all_layers_can_not_be_predicted(loaded: tuple[Any, Any]) -> None:
    on = subject(loaded)
    found = Entropy().records(Subject(*loaded, on.evaluators, {"given": ScalingFactors([1.1] * 4)}))
    assert {row["rho"] for row in found["predicts"].values()} == {None}
    assert "no rank correlation" in Entropy().answer(found)
    assert [row["predicted"] for row in found["layers"]] == pytest.approx([1.1] * 4)
