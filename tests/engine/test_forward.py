"""Scores by `model.forward`: right for every padding and length, and without a trace."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ropewalk.engine.forward import ForwardScorer, float32_head
from ropewalk.engine.memory import Budget
from ropewalk.engine.scoring import AnswerScore
from ropewalk.errors import RopewalkError
from ropewalk.prompts import RenderedPrompt
from scored_prompts import ENDS, assert_equal_scores, oracle, prompt_of, prompt_of_length, prompts_of_records
from tiny import tiny_model

TERMINATORS = {'"': tuple(ENDS), "": ()}


def forward_scorer(model: PreTrainedModel, prompts: Sequence[RenderedPrompt], tokens: int = 400) -> ForwardScorer:
    return ForwardScorer(model, prompts, TERMINATORS, Budget(tokens))


def scores(scorer: ForwardScorer) -> list[AnswerScore]:
    """Every prompt must come once."""
    found: dict[int, AnswerScore] = {}
    with torch.no_grad():
        for numbers, some in scorer.score():
            assert not found.keys() & set(numbers)
            found.update(zip(numbers, some, strict=True))
    return [found[number] for number in range(len(scorer.prompts))]


def mixed(terminator: str = '"') -> list[RenderedPrompt]:
    lengths = (150, 6, 7, 64, 65, 33, 120)
    return [*prompts_of_records(2), *(prompt_of_length(length, terminator) for length in lengths)]


class OutOfMemory:
    """A forward pre-hook that fails as a full device does, for the passes that `fails` names."""

    def __init__(self, model: PreTrainedModel, fails: Callable[[int], bool]) -> None:
        self.fails, self.count = fails, 0
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if self.fails(kwargs["input_ids"].numel()):
            self.count += 1
            raise torch.cuda.OutOfMemoryError("out of memory, on purpose")


@pytest.mark.parametrize("tokens", [1, 150, 10_000])
@pytest.mark.parametrize("terminator", ['"', ""])
def test_scores_equal_the_oracle_whatever_the_batch(tokens: int, terminator: str) -> None:
    model = tiny_model("cohere2", sliding_window=16).double()
    prompts = mixed(terminator)
    assert_equal_scores(scores(forward_scorer(model, prompts, tokens)), oracle(model, prompts), 1e-9)


def test_models_that_keep_all_logits_are_scored_too() -> None:
    model: Any = tiny_model().double()
    expected = oracle(model, mixed())
    whole = model.forward

    def forward(input_ids: torch.Tensor, use_cache: bool) -> Any:
        return whole(input_ids=input_ids, use_cache=use_cache)

    model.forward = forward
    assert_equal_scores(scores(forward_scorer(model, mixed())), expected, 1e-9)


def test_dynamic_ntk_follows_neither_neighbours_nor_history() -> None:
    """The prompts are longer than the trained 24 tokens, and many of another length: each has a base of its own."""
    scheme = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model = tiny_model(max_position_embeddings=24, rope_parameters=scheme).double()
    frequencies = model.model.rotary_emb.inv_freq.clone()
    expected = oracle(copy.deepcopy(model), mixed())
    scorer = forward_scorer(model, mixed())
    for _ in range(2):
        assert_equal_scores(scores(scorer), expected, 1e-9)
        assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)
    with torch.no_grad():
        model(input_ids=torch.full((1, 90), 5), use_cache=False)
    assert not torch.equal(model.model.rotary_emb.inv_freq, frequencies)
    assert_equal_scores(scores(scorer), expected, 1e-9)


def test_batches_that_do_not_fit_are_halved_for_good() -> None:
    model = tiny_model().double()
    expected = oracle(model, mixed())
    memory = OutOfMemory(model, lambda tokens: tokens > 160)
    scorer = forward_scorer(model, mixed(), 10_000)
    assert_equal_scores(scores(scorer), expected, 1e-9)
    failures = memory.count
    assert failures > 0
    assert_equal_scores(scores(scorer), expected, 1e-9)
    assert memory.count == failures


def test_one_prompt_that_does_not_fit_is_an_error() -> None:
    model = tiny_model().bfloat16()
    OutOfMemory(model, lambda tokens: True)
    with pytest.raises(RopewalkError, match="a batch of 150 tokens, the smallest possible one"):
        scores(forward_scorer(model, mixed()))
    assert not model.lm_head._forward_hooks


def test_logits_of_a_bfloat16_model_are_float32() -> None:
    """bfloat16 logits near 10 are 1/16 apart, so best and second best would often tie: no margin would be small."""
    model = tiny_model().bfloat16()
    margins = [one.margin for one in scores(forward_scorer(model, mixed()))]
    assert any(margin > 0 and (margin * 256) % 1 for margin in margins)
    assert all(margin > 0 for margin in margins)
    assert not model.lm_head._forward_hooks


@pytest.mark.parametrize("bias", [False, True])
def test_the_head_computes_in_float32_for_a_while(bias: bool) -> None:
    model: Any = tiny_model().bfloat16()
    if bias:
        model.lm_head = torch.nn.Linear(64, 128, bias=True).bfloat16()
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad(), float32_head(model):
        found = model.lm_head(hidden)
    exact = torch.nn.functional.linear(
        hidden.double(), model.lm_head.weight.double(), model.lm_head.bias.double() if bias else None
    )
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)
    assert model.lm_head(hidden).dtype == torch.bfloat16


def test_a_context_of_one_token_is_enough() -> None:
    model = tiny_model().double()
    prompts = [prompt_of([9, 3, 4, 5, 6, 7]), *prompts_of_records(1)]
    assert prompts[0].first == 1
    assert_equal_scores(scores(forward_scorer(model, prompts)), oracle(model, prompts), 1e-9)
