"""Prompts that begin alike: how they are grouped, that sharing changes no score, and when it is given up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from ropewalk.engine.scoring import AnswerScore, AnswerScorer
from ropewalk.engine.shared_prefix import (
    MIN_SAVED_SHARE,
    PrefixBatch,
    largest_difference,
    prefix_batches,
    tolerance,
)
from ropewalk.patch import patched
from ropewalk.prompts import PromptRenderer, RenderedPrompt
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from scored_prompts import ANSWER, TinyTokenizer, oracle, prompt_of, prompts_of_records, with_greedy_answer
from tiny import tiny_model

EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
SUPPORTED: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("mistral", {"sliding_window": 16}),
    ("gemma2", {"sliding_window": 16}),
    ("gemma3_text", {"sliding_window": 16}),
    ("gpt_oss", {"sliding_window": 16, "num_local_experts": 4}),
    ("cohere2", {"sliding_window": 16}),
    ("qwen3_moe", {"num_experts": 4, **EXPERTS}),
    ("mixtral", {"num_local_experts": 4}),
    ("gpt_neox", {}),
    ("phi3", {}),
]


def computed_tokens(model: PreTrainedModel) -> list[int]:
    """Tokens of every pass from now on, as rows × columns."""
    sizes: list[int] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        sizes.append(kwargs["input_ids"].numel())

    model.register_forward_pre_hook(note, with_kwargs=True)
    return sizes


def assert_close(found: Sequence[AnswerScore], expected: Sequence[AnswerScore], tolerance: float = 1e-4) -> None:
    assert [one.verdict for one in found] == [one.verdict for one in expected]
    assert [one.log_likelihood for one in found] == pytest.approx(
        [one.log_likelihood for one in expected], abs=tolerance
    )


def test_a_group_is_the_positions_of_a_record() -> None:
    prompts = prompts_of_records(3, positions=4, prefix=40)
    batches, alone = prefix_batches(prompts, 10_000)
    assert alone == []
    (batch,) = batches
    assert [(group.indices, group.prefix) for group in batch.groups] == [
        ((8, 9, 10, 11), 42),
        ((4, 5, 6, 7), 41),
        ((0, 1, 2, 3), 40),
    ]
    assert batch.prefix == 40
    assert batch.sources == [0] * 4 + [1] * 4 + [2] * 4


def test_prompts_that_share_little_stay_alone() -> None:
    prompts = prompts_of_records(3, positions=1)
    assert prefix_batches(prompts, 10_000) == ([], [0, 1, 2])
    few = [prompt_of([3, 4, 5, *prompt.ids[3:]]) for prompt in prompts]
    assert prefix_batches(few, 10_000) == ([], [0, 1, 2])


def test_a_device_may_ask_for_longer_prefixes() -> None:
    prompts = prompts_of_records(1, prefix=40)
    assert prefix_batches(prompts, 10_000, min_prefix=41) == ([], [0, 1, 2, 3])
    assert prefix_batches(prompts, 10_000, min_prefix=40)[1] == []


def test_the_logits_before_the_answer_are_never_in_the_prefix() -> None:
    """Equal prompts share everything, but the token before the answer has to be computed for its logits."""
    ids = prompts_of_records(1)[0].ids
    (batch,), _ = prefix_batches([prompt_of(ids), prompt_of(ids)], 10_000)
    assert batch.prefix == len(ids) - ANSWER - 1


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(3, 5), min_size=ANSWER + 1, max_size=30), min_size=1, max_size=12),
    st.integers(1, 120),
)
def test_groups_hold_each_prompt_once_and_share_what_they_say(rows: list[list[int]], budget: int) -> None:
    prompts = [prompt_of(row) for row in rows]
    batches, alone = prefix_batches(prompts, budget)
    assert sorted([*alone, *(index for batch in batches for index in batch.indices)]) == list(range(len(rows)))
    for batch in batches:
        check_batch(batch, prompts, budget)


def check_batch(batch: PrefixBatch, prompts: Sequence[RenderedPrompt], budget: int) -> None:
    rest = max(len(prompts[index].ids) for index in batch.indices) - batch.prefix
    assert len(batch.indices) * rest <= budget
    assert len(batch.groups) == 1 or len(batch.groups) * batch.prefix <= budget
    for group in batch.groups:
        assert len({prompts[index].ids[: group.prefix] for index in group.indices}) == 1
        assert 0 < batch.prefix <= group.prefix < min(prompts[index].first for index in group.indices)
        total = sum(len(prompts[index].ids) for index in group.indices)
        assert group.prefix * (len(group.indices) - 1) >= MIN_SAVED_SHARE * total


@pytest.mark.parametrize(("model_type", "config"), SUPPORTED)
def test_shared_scores_equal_the_oracle(model_type: str, config: dict[str, Any]) -> None:
    """Also with windows of 16 tokens, shorter than the prefix, and with factors."""
    model = tiny_model(model_type, **config)
    prompts = prompts_of_records(3)
    prompts[1] = with_greedy_answer(model, prompts[1])
    scorer = AnswerScorer(model, TinyTokenizer(), prompts)
    expected = oracle(model, prompts, torch.float32 if "expert" in str(config) else torch.float64)
    sizes = computed_tokens(model)
    scorer.score()
    assert scorer.shared_prefix_reason is None
    sizes.clear()
    assert_close(scorer.score(), expected)
    assert sum(sizes) < 0.7 * sum(len(prompt.ids) for prompt in prompts)


def test_with_factors_shared_and_plain_agree() -> None:
    model = tiny_model()
    prompts = prompts_of_records(3)
    shared, plain = (AnswerScorer(model, TinyTokenizer(), prompts) for _ in range(2))
    plain._stop_sharing("to compare")
    with patched(model, [0.8, 1.3, 1.0, 1.1]):
        assert_close(shared.score(), plain.score())
    assert shared.shared_prefix_reason is None


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("qwen3_next", {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}),
        ("lfm2", {"layer_types": ["conv", "full_attention"] * 2}),
    ],
)
def test_recurrent_models_are_scored_one_by_one(model_type: str, config: dict[str, Any]) -> None:
    model = tiny_model(model_type, **config)
    prompts = prompts_of_records(2)
    scorer = AnswerScorer(model, TinyTokenizer(), prompts)
    scores = scorer.score()
    assert "its cache holds layers that are not attention alone (Linear" in str(scorer.shared_prefix_reason)
    assert_close(scores, oracle(model, prompts, torch.float32), 1e-3)


def spoil_cache(model: PreTrainedModel) -> None:
    """Makes the model wrong with a cache that it did not begin itself: its positions start anew."""

    def forget(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if kwargs.get("past_key_values") is not None:
            kwargs["position_ids"] = torch.arange(kwargs["input_ids"].shape[1])[None]
        return args, kwargs

    model.register_forward_pre_hook(forget, with_kwargs=True)


def test_a_model_that_is_wrong_with_a_repeated_cache_is_found_out() -> None:
    model = tiny_model()
    prompts = prompts_of_records(2)
    expected = oracle(model, prompts)
    spoil_cache(model)
    scorer = AnswerScorer(model, TinyTokenizer(), prompts)
    assert_close(scorer.score(), expected)
    assert "log-likelihoods differ by" in str(scorer.shared_prefix_reason)
    sizes = computed_tokens(model)
    assert_close(scorer.score(), expected)
    assert sum(sizes) >= sum(len(prompt.ids) for prompt in prompts)


def test_a_model_that_fails_with_a_cache_is_scored_plainly() -> None:
    model = tiny_model()
    prompts = prompts_of_records(2)
    expected = oracle(model, prompts)

    def refuse(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["use_cache"]:
            raise NotImplementedError("no cache here")

    model.register_forward_pre_hook(refuse, with_kwargs=True)
    scorer = AnswerScorer(model, TinyTokenizer(), prompts)
    assert_close(scorer.score(), expected)
    assert scorer.shared_prefix_reason == "it fails with a repeated cache (NotImplementedError: no cache here)"


def test_a_cache_of_another_kind_is_not_repeated() -> None:
    class OwnCache(DynamicCache):
        pass

    model = tiny_model()

    def swap(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if kwargs["use_cache"]:
            output.past_key_values.__class__ = OwnCache

    model.register_forward_hook(swap, with_kwargs=True)
    scorer = AnswerScorer(model, TinyTokenizer(), prompts_of_records(2))
    scorer.score()
    assert scorer.shared_prefix_reason == "it keeps its past in a OwnCache, not in a DynamicCache"


def test_a_candidate_without_finite_scores_decides_nothing() -> None:
    model = tiny_model()
    prompts = prompts_of_records(2)
    expected = oracle(model, prompts)
    spoil_cache(model)
    weight = model.model.layers[2].mlp.up_proj.weight
    kept = weight.detach().clone()
    scorer = AnswerScorer(model, TinyTokenizer(), prompts)
    with torch.no_grad():
        weight.fill_(math.nan)
        assert all(math.isnan(one.log_likelihood) for one in scorer.score())
        assert scorer.shared_prefix_reason is None
        weight.copy_(kept)
    assert_close(scorer.score(), expected)
    assert "log-likelihoods differ by" in str(scorer.shared_prefix_reason)


def test_the_largest_difference_tells_nan_from_agreement() -> None:
    assert largest_difference([1.0, 2.0], [1.5, 2.0]) == 0.5
    assert largest_difference([math.nan, 2.0], [math.nan, 2.0]) == 0.0
    assert largest_difference([math.nan], [1.0]) == math.inf
    assert largest_difference([math.nan], [math.nan]) is None


def test_the_real_model_shares_and_agrees(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    """SmolLM2 in its own dtype: the check's tolerance holds for every prompt, verdicts differ in near ties only."""
    model, tokenizer = demo_model_and_tokenizer
    renderer = PromptRenderer(tokenizer, chat_template=False)
    task = make_task("kv", TaskOptions(keys=4, positions=4, limit=2))
    prompts = [renderer.render(example) for example in task.examples("search")]
    shared, plain = (AnswerScorer(model, tokenizer, prompts) for _ in range(2))
    plain._stop_sharing("to compare")
    pairs = list(zip(shared.score(), plain.score(), strict=True))
    assert shared.shared_prefix_reason is None
    assert all(abs(a.log_likelihood - b.log_likelihood) < tolerance(model.dtype) for a, b in pairs)
    assert all(a.verdict == b.verdict or min(a.margin, b.margin) < 0.25 for a, b in pairs)
