"""Evaluation of candidates on a real tokenizer and a tiny model: exact at factors of 1, and without traces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
from ropewalk.prompts import PromptRenderer
from ropewalk.results import TaskResult, check_same_examples
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, Metric, Piece, Task, TaskOptions
from scored_prompts import oracle

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


# Tasks of a few words --------------------------------------------------------------------------------------------


def contains(text: str, answers: Sequence[str]) -> float:
    return float(any(answer in text for answer in answers))


class Words:
    """Records at two positions whose prompt is `lengths` letters; every answer is one of `answers`."""

    name = "words"
    OPTIONS: type = object
    positions = (0, 1)
    metric = Metric("contains", generated=False, score=contains, max_new_tokens=6)

    def __init__(self, lengths: Sequence[int] = (20, 30), answers: tuple[str, ...] = ("cab",)) -> None:
        self.lengths, self.answers = lengths, answers

    def examples(self, split: str) -> list[Example]:
        return [self._example(record, place) for record in range(len(self.lengths)) for place in self.positions]

    def _example(self, record: int, place: int) -> Example:
        text = "".join(chr(97 + (number * number + 7 * place) % 23) for number in range(self.lengths[record]))
        pieces = (Piece(text, "query"),)
        return Example(f"w{record}@{place}", f"w{record}", place, pieces, self.answers, '"', '"', group=f"g{record}")

    def settings(self) -> dict[str, object]:
        return {"task": self.name, "lengths": list(self.lengths), "answers": list(self.answers)}

    def short(self) -> None:
        return


def words(*args: Any, **metric: Any) -> Any:
    task = Words(*args)
    task.metric = dataclasses.replace(Words.metric, **metric)
    return task


def letters(tokenizer: Any, *lengths: int) -> list[int]:
    """Tokens of the first position's prompts with their answer."""
    renderer = PromptRenderer(tokenizer, chat_template=False)
    return [len(renderer.render(example).ids) for example in Words(lengths).examples("test")[::2]]


def test_groups_and_records_are_those_of_the_examples(model_and_tokenizer: tuple[Any, Any]) -> None:
    (result,) = evaluate(*model_and_tokenizer, words(), [None])
    assert result.records == ("w0", "w1")
    assert result.groups == ("g0", "g1")
    assert result.metric == "contains"
    assert (result.generated, result.graded, result.texts, result.skipped) == (False, False, None, ())


def test_the_likeliest_alias_counts(model_and_tokenizer: tuple[Any, Any]) -> None:
    """By the likelihood of the whole answer: a short one is not likelier for being short in tokens."""
    model, tokenizer = model_and_tokenizer
    aliases = ("cab", "a", "bbbb", "cab")
    (together,) = evaluate(model, tokenizer, words((20, 30), aliases), [FACTORS], chat_template=False)
    alone = [
        evaluate(model, tokenizer, words((20, 30), (alias,)), [FACTORS], chat_template=False)[0]
        for alias in ("cab", "a", "bbbb")
    ]
    sums = np.stack([one.log_likelihoods * one.answer_tokens for one in alone])
    likeliest = sums.argmax(axis=0)
    for name in ("log_likelihoods", "margins", "answer_tokens", "scores"):
        expected = np.take_along_axis(np.stack([getattr(one, name) for one in alone]), likeliest[None], 0)[0]
        np.testing.assert_allclose(getattr(together, name), expected, atol=1e-5)


@pytest.mark.parametrize("own_loop", [True, False])
@pytest.mark.parametrize("generate", [False, True])
def test_progress_adds_up_with_aliases_and_generation(
    model_and_tokenizer: tuple[Any, Any], generate: bool, own_loop: bool
) -> None:
    counts: list[int] = []
    task = words((20, 30, 5), ("cab", "a", "bbbb"))
    candidates = [None, FACTORS, OTHER]
    options: dict[str, Any] = {"generate": generate, "own_loop": own_loop, "tokens_per_batch": 60}
    evaluate(*model_and_tokenizer, task, candidates, on_progress=counts.append, **options)
    assert sum(counts) == len(candidates) * 6
    assert all(count > 0 for count in counts)


def test_prompts_over_the_models_limit_are_named(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    short, long = letters(tokenizer, 20, 60)
    model.config.max_position_embeddings = long - 1
    message = rf"of 4 prompts are longer than the model's {long - 1} tokens: w1@0 \({long} tokens\).*--overflow skip"
    with pytest.raises(DataError, match=message):
        evaluate(model, tokenizer, words((20, 60)), [None], chat_template=False)
    model.config.max_position_embeddings = long
    (result,) = evaluate(model, tokenizer, words((20, 60)), [None], chat_template=False)
    assert result.skipped == ()
    assert short < long


def test_overflow_skip_leaves_records_out_at_every_position(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    (whole,) = evaluate(model, tokenizer, words((20, 30)), [FACTORS], chat_template=False)
    model.config.max_position_embeddings = letters(tokenizer, 60)[0] - 1
    evaluator = Evaluator(
        model,
        tokenizer,
        words((20, 60, 30)),
        words((20, 60, 30)).examples("test"),
        overflow="skip",
        chat_template=False,
    )
    result = evaluator.score(FACTORS)
    assert evaluator.skipped == result.skipped == ("w1",)
    assert result.records == ("w0", "w2")
    assert result.groups == ("g0", "g2")
    np.testing.assert_allclose(result.log_likelihoods, whole.log_likelihoods, atol=1e-5)
    model.config.max_position_embeddings = 5
    with pytest.raises(DataError, match="all 2 records have a prompt over the model's limit, none is left"):
        evaluate(model, tokenizer, words((20, 30)), [None], overflow="skip")
    with pytest.raises(DataError, match="the only record has a prompt over the model's limit, none is left"):
        evaluate(model, tokenizer, words((20,)), [None], overflow="skip")


@pytest.mark.parametrize("budget", [1, 40])
def test_the_budget_of_an_answer_counts_as_well(model_and_tokenizer: tuple[Any, Any], budget: int) -> None:
    """And so does the answer that is scored where it is longer than the budget."""
    model, tokenizer = model_and_tokenizer
    task = words((20,), ("cab",), max_new_tokens=budget)
    prompt = PromptRenderer(tokenizer, chat_template=False).render(task.examples("test")[0])
    needed = max(len(prompt.ids), prompt.first + budget)
    options: dict[str, Any] = {"generate": True, "chat_template": False}
    model.config.max_position_embeddings = needed - 1
    with pytest.raises(DataError, match=rf"{needed} tokens.*, {budget} of them for the answer"):
        evaluate(model, tokenizer, task, [None], **options)
    model.config.max_position_embeddings = needed
    assert evaluate(model, tokenizer, task, [None], **options)[0].generated


@pytest.mark.parametrize("own_loop", [True, False])
def test_generated_answers_are_scored_by_the_tasks_metric(model_and_tokenizer: tuple[Any, Any], own_loop: bool) -> None:
    model, tokenizer = model_and_tokenizer
    with torch.no_grad():  # so that attention is sharp and factors change what is said
        for layer in model.model.layers:
            layer.input_layernorm.weight.fill_(1)
    task = words()
    options: dict[str, Any] = {"chat_template": False, "own_loop": own_loop}
    teacher = evaluate(model, tokenizer, task, [None, FACTORS], **options)
    found = evaluate(model, tokenizer, task, [None, FACTORS], generate=True, **options)
    assert found[0].texts is not None
    assert found[0].texts != found[1].texts
    for result, forced in zip(found, teacher, strict=True):
        assert (result.metric, result.generated) == ("contains, generated", True)
        np.testing.assert_array_equal(result.log_likelihoods, forced.log_likelihoods)
    prompts = [PromptRenderer(tokenizer, chat_template=False).render(example) for example in task.examples("test")]
    flat = [text for row in found[0].texts for text in row]
    for prompt, text in zip(prompts, flat, strict=True):
        ids = torch.tensor([prompt.ids[: prompt.first]])
        with torch.no_grad():
            output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6)
        assert text == tokenizer.decode(output[0, prompt.first :], skip_special_tokens=True)
    hits = words((20, 30), (flat[0][:2],))
    (result,) = evaluate(model, tokenizer, hits, [None], generate=True, **options)
    assert result.texts is not None
    assert result.scores.tolist() == [[float(flat[0][:2] in text) for text in row] for row in result.texts]
    assert result.scores[0, 0] == 1


def test_a_task_of_generated_answers_generates_unless_told_otherwise(model_and_tokenizer: tuple[Any, Any]) -> None:
    task = words((20,), ("cab",), generated=True, graded=True)
    (result,) = evaluate(*model_and_tokenizer, task, [None])
    assert (result.metric, result.generated, result.graded) == ("contains", True, True)
    (result,) = evaluate(*model_and_tokenizer, task, [None], generate=False)
    assert (result.metric, result.generated, result.graded, result.texts) == ("exact_match", False, False, None)
    with pytest.raises(DataError, match="task words has nothing to generate"):
        evaluate(*model_and_tokenizer, words((20,), ("cab",), score=None), [None], generate=True)


def test_no_examples_are_refused(model_and_tokenizer: tuple[Any, Any]) -> None:
    with pytest.raises(DataError, match="the task gave no examples"):
        Evaluator(*model_and_tokenizer, words(), [])


@pytest.mark.parametrize("own_loop", [True, False])
def test_windows_of_a_text_are_scored_bucket_by_bucket(
    model_and_tokenizer: tuple[Any, Any], tmp_path: Path, own_loop: bool
) -> None:
    """Against an oracle of each bucket by itself; the score is the share of tokens that the model says."""
    model, tokenizer = model_and_tokenizer
    with torch.no_grad():  # a model that likes to say the same again, and a text that often does
        model.model.norm.weight.fill_(1)
        model.get_input_embeddings().weight.mul_(10)
    (tmp_path / "text.txt").write_text("".join(3 * chr(97 + number * number % 23) for number in range(200)))
    options = TaskOptions(data=tmp_path / "text.txt", limit=2, positions=(0, 10, 35), options={"window": 50})
    task = make_task("perplexity", options)
    (result,) = evaluate(model, tokenizer, task, [None], own_loop=own_loop)
    renderer = PromptRenderer(tokenizer)
    prompts = [prompt for example in task.examples("test") for prompt in renderer.render_all(example)]
    expected = oracle(model, prompts)
    assert result.metric == "next_token_accuracy"
    assert result.answer_tokens[:, 1:].tolist() == [[25, 15]] * 2
    for name, values in (
        ("log_likelihoods", [one.log_likelihood for one in expected]),
        ("scores", [one.matches / one.tokens for one in expected]),
    ):
        np.testing.assert_allclose(getattr(result, name).ravel(), values, atol=1e-4)
    assert 0 < result.scores.max() < 1


# Some of the records -----------------------------------------------------------------------------------------------


def test_a_part_is_the_same_as_an_evaluator_of_those_records(model_and_tokenizer: tuple[Any, Any]) -> None:
    """Rows in any order; aliases, groups and generated texts go with their records."""
    task = words((20, 30, 25, 35), ("cab", "a", "bbbb"))
    options: dict[str, Any] = {"chat_template": False, "generate": True}
    whole = Evaluator(*model_and_tokenizer, task, task.examples("test"), **options)
    result = whole.score(FACTORS)
    part = whole.part((3, 1))
    assert (whole.records, part.records) == (("w0", "w1", "w2", "w3"), ("w3", "w1"))
    assert [example.id for example in part.examples] == ["w3@0", "w3@1", "w1@0", "w1@1"]
    counts: list[int] = []
    (scored,) = part.score_many([FACTORS], on_progress=counts.append)
    assert sum(counts) == len(part.examples) == 4
    assert (scored.records, scored.groups) == (("w3", "w1"), ("g3", "g1"))
    assert result.texts is not None
    assert scored.texts == (result.texts[3], result.texts[1])
    np.testing.assert_allclose(scored.log_likelihoods, result.log_likelihoods[[3, 1]], atol=1e-5)
    assert scored.scores.tolist() == result.scores[[3, 1]].tolist()
    assert part.prompt_tokens < whole.prompt_tokens
    assert (part.settings, part.engine) == (whole.settings, whole.engine)


def test_parts_are_made_once_and_the_whole_is_no_part(model_and_tokenizer: tuple[Any, Any]) -> None:
    task = words((20, 30, 25))
    whole = Evaluator(*model_and_tokenizer, task, task.examples("test"))
    assert whole.part(range(3)) is whole
    assert whole.part([0, 2]) is whole.part((0, 2))
    assert whole.part((0, 2)) is not whole.part((2, 0))
    assert whole.part((0, 2)).part((1,)).records == ("w2",)
    with pytest.raises(DataError, match="the task gave no examples"):
        whole.part(())
    with pytest.raises(IndexError):
        whole.part((3,))
    with pytest.raises(IndexError):
        whole.part((-4,))


def test_a_part_leaves_out_what_the_whole_skipped(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    model.config.max_position_embeddings = letters(tokenizer, 60)[0] - 1
    task = words((20, 60, 30))
    options: dict[str, Any] = {"overflow": "skip", "chat_template": False}
    whole = Evaluator(model, tokenizer, task, task.examples("test"), **options)
    assert whole.records == ("w0", "w2")
    assert whole.part((1,)).records == whole.part((1,)).score(None).records == ("w2",)
