"""Evaluation of candidates on a real tokenizer and a tiny model: exact at factors of 1, and without traces."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ropewalk.checkpoint import load_pretrained
from ropewalk.errors import DataError, RopewalkError
from ropewalk.evaluate import Evaluator, evaluate
from ropewalk.factors import ScalingFactors
from ropewalk.patch import CONFIG_KEY, apply, factors_of, remove
from ropewalk.results import TaskResult, check_same_examples
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Task, TaskOptions

FACTORS = ScalingFactors([0.8, 1.2, 1.1, 1.0])
OTHER = ScalingFactors.uniform(1.3, 4)
ONES = ScalingFactors.uniform(1.0, 4)


@pytest.fixture
def model_and_tokenizer(tiny_path: Path) -> tuple[Any, Any]:
    model, tokenizer = load_pretrained(tiny_path, device="cpu", dtype="float32")
    model.config.max_position_embeddings = 4096  # the small tokenizer has no UUID in few tokens
    return model, tokenizer


@pytest.fixture
def task() -> Task:
    return make_task("kv", TaskOptions(keys=3, positions=3, limit=2))


def state(model: Any) -> tuple[Any, ...]:
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return factors_of(model), getattr(model.config, CONFIG_KEY, None), hooks, model.training, weights


def assert_same_state(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert one[:-1] == other[:-1]
    assert one[-1].keys() == other[-1].keys()
    assert all(torch.equal(one[-1][name], other[-1][name]) for name in one[-1])


def assert_equal(one: TaskResult, other: TaskResult) -> None:
    assert one.verdicts.tolist() == other.verdicts.tolist()
    np.testing.assert_array_equal(one.log_likelihoods, other.log_likelihoods)
    np.testing.assert_array_equal(one.margins, other.margins)


def test_factors_of_1_give_vanillas_scores_exactly(model_and_tokenizer: tuple[Any, Any], task: Task) -> None:
    vanilla, ones, scaled, again = evaluate(*model_and_tokenizer, task, [None, ONES, FACTORS, None])
    assert_equal(vanilla, ones)
    assert_equal(vanilla, again)
    assert (scaled.log_likelihoods != vanilla.log_likelihoods).all()


def test_the_real_model_with_factors_of_1_is_vanilla_exactly(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = demo_model_and_tokenizer
    small = make_task("kv", TaskOptions(keys=3, positions=3, limit=1))
    ones = ScalingFactors.uniform(1.0, 30)
    vanilla, same = evaluate(model, tokenizer, small, [None, ones], split="search", chat_template=False)
    assert_equal(vanilla, same)
    assert factors_of(model) is None


def test_the_result_is_records_by_positions(model_and_tokenizer: tuple[Any, Any], task: Task) -> None:
    """A column is what the task of that position alone gives."""
    (result,) = evaluate(*model_and_tokenizer, task, [None])
    assert result.records == ("kv-0-test-0", "kv-0-test-1")
    assert result.positions == (0, 1, 2)
    for position in result.positions:
        alone = make_task("kv", TaskOptions(keys=3, positions=(position,), limit=2))
        (column,) = evaluate(*model_and_tokenizer, alone, [None])
        np.testing.assert_allclose(column.log_likelihoods[:, 0], result.log_likelihoods[:, position], atol=1e-5)


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("carried", [None, FACTORS])
@pytest.mark.parametrize("candidate", [None, OTHER])
def test_the_model_is_left_as_it_was(
    model_and_tokenizer: tuple[Any, Any],
    task: Task,
    carried: ScalingFactors | None,
    candidate: ScalingFactors | None,
    interrupted: bool,
) -> None:
    model, tokenizer = model_and_tokenizer
    if carried is not None:
        apply(model, carried)
    before = state(model)

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
        evaluate(model, tokenizer, task, [candidate], on_progress=interrupt if interrupted else None)
    assert_same_state(state(model), before)


def test_factors_that_only_the_config_names_stay_there(model_and_tokenizer: tuple[Any, Any], task: Task) -> None:
    model, tokenizer = model_and_tokenizer
    setattr(model.config, CONFIG_KEY, [1.5] * 4)
    evaluate(model, tokenizer, task, [None, OTHER])
    assert getattr(model.config, CONFIG_KEY) == [1.5] * 4
    remove(model)


def test_carried_factors_change_no_result(model_and_tokenizer: tuple[Any, Any], task: Task) -> None:
    model, tokenizer = model_and_tokenizer
    clean = evaluate(model, tokenizer, task, [None, OTHER])
    apply(model, FACTORS)
    for one, other in zip(clean, evaluate(model, tokenizer, task, [None, OTHER]), strict=True):
        assert_equal(one, other)


def test_progress_counts_the_prompts_of_every_candidate(model_and_tokenizer: tuple[Any, Any], task: Task) -> None:
    counts: list[int] = []
    evaluate(*model_and_tokenizer, task, [None, FACTORS], on_progress=counts.append)
    assert sum(counts) == 2 * 6


def test_the_format_of_the_prompt_is_a_setting(model_and_tokenizer: tuple[Any, Any], task: Task) -> None:
    model, tokenizer = model_and_tokenizer
    assert tokenizer.chat_template
    (chat,) = evaluate(model, tokenizer, task, [None])
    (plain,) = evaluate(model, tokenizer, task, [None], chat_template=False)
    assert chat.task == {**task.settings(), "prompt": {"format": "chat", "chat_template_kwargs": {}}}
    assert plain.task == {**task.settings(), "prompt": {"format": "plain", "chat_template_kwargs": {}}}
    assert (chat.log_likelihoods != plain.log_likelihoods).any()
    with pytest.raises(DataError, match="different examples"):
        check_same_examples(chat, plain)
    evaluator = Evaluator(model, tokenizer, task, task.examples("test"), chat_template=False)
    assert evaluator.settings == plain.task
    with pytest.raises(RopewalkError, match="switched off"):
        evaluate(model, tokenizer, task, [None], chat_template=False, chat_template_kwargs={"a": 1})


def test_the_own_layer_loop_is_used_and_the_evaluator_says_so(model_and_tokenizer: tuple[Any, Any], task: Task) -> None:
    evaluator = Evaluator(*model_and_tokenizer, task, task.examples("test"))
    evaluator.score(FACTORS)
    assert evaluator.fallback_reason is None


@pytest.mark.parametrize("damage", ["a missing position", "another order", "another place"])
def test_incomplete_records_are_refused(model_and_tokenizer: tuple[Any, Any], task: Task, damage: str) -> None:
    examples = task.examples("test")
    if damage == "a missing position":
        examples = examples[:-1]
    elif damage == "another order":
        examples = examples[::-1]
    else:
        examples[0] = dataclasses.replace(examples[0], gold_index=1)
    with pytest.raises(DataError, match="expected each record at every position"):
        Evaluator(*model_and_tokenizer, task, examples)


def test_a_model_of_nan_gives_counted_failures(model_and_tokenizer: tuple[Any, Any], task: Task) -> None:
    model, tokenizer = model_and_tokenizer
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    (result,) = evaluate(model, tokenizer, task, [None])
    assert result.failures == 6
    assert not result.verdicts.any()
