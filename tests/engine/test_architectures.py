"""Conformance of the engine: which models take the own layer loop, and that every model's scores are an oracle's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.engine.scorer import Scorer
from ropewalk.engine.scoring import AnswerScore
from ropewalk.factors import ScalingFactors
from ropewalk.patch import rotary_layers
from ropewalk.prompts import RenderedPrompt
from scored_prompts import (
    TinyTokenizer,
    assert_equal_scores,
    oracles,
    prompt_of_length,
    prompts_of_records,
    with_greedy_answer,
)
from tiny import tiny_model

WINDOW = {"head_dim": 16, "sliding_window": 16}
FIT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with tied weights": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral with a window": ("mistral", {"sliding_window": 16}),
    "mistral with a window of 2": ("mistral", {"sliding_window": 2}),
    "qwen2": ("qwen2", {}),
    "qwen2 with windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"] * 2},
    ),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "gemma2": ("gemma2", WINDOW),
    "gemma3_text": ("gemma3_text", WINDOW | {"layer_types": ["sliding_attention", "full_attention"] * 2}),
    "phi3": ("phi3", {"sliding_window": None}),
    "phi3 with a window": ("phi3", {"sliding_window": 20}),
    "smollm3, null factors": ("smollm3", {}),
    "stablelm, partly rotated": ("stablelm", {"partial_rotary_factor": 0.25}),
}
# Gemma 2's attention is written out in transformers, with a softmax in float32.
TOLERANCES = {"gemma2": 1e-6}

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0, 3.0] * 4}
ROPE_TYPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({"rope_type": "default", "rope_theta": 500.0}, {}),
    "linear": ({"rope_type": "linear", "factor": 4.0}, {}),
    "dynamic": ({"rope_type": "dynamic", "factor": 4.0}, {"max_position_embeddings": 64}),
    "yarn": ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, {}),
    "llama3": (
        {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        | {"original_max_position_embeddings": 64},
        {},
    ),
    "longrope": (LONGROPE | {"original_max_position_embeddings": 64, "factor": 4.0}, {}),
}

EXPERTS = {"num_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2}
SCALED_QUERIES = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 1024,  # longer than the prompts here: the check by result would see nothing
    "llama_4_scaling_beta": 0.5,
}
# Type, config, what the reason says, and the dtype: products of experts and convolutions know no float64.
OTHERS: list[tuple[str, dict[str, Any], str, torch.dtype]] = [
    ("olmo2", {}, "another make", torch.float64),
    ("cohere", {}, "another make", torch.float64),
    ("cohere2", {"sliding_window": 16}, "another make", torch.float64),
    ("gpt_neox", {}, "no embed_tokens", torch.float64),
    ("granite", {"residual_multiplier": 0.5, "logits_scaling": 2.0}, "differ from model.forward's", torch.float64),
    ("glm", {"head_dim": 16}, "differ from model.forward's", torch.float64),
    ("ministral3", {"head_dim": 16, "rope_parameters": SCALED_QUERIES}, "scaled by their position", torch.float64),
    ("qwen3_moe", EXPERTS, "a mixture of experts", torch.float32),
    ("gpt_oss", {"num_local_experts": 4, "sliding_window": 16}, "a mixture of experts", torch.float32),
    ("mixtral", {"num_local_experts": 4}, "a mixture of experts", torch.float32),
    ("lfm2", {"layer_types": ["conv", "full_attention"] * 2}, "no norm", torch.float32),
]


def mixed_prompts(model: PreTrainedModel) -> list[RenderedPrompt]:
    """Families that share rows, short and long ones, and answers that the model gives itself."""
    prompts = prompts_of_records(2, prefix=60)
    prompts += [prompt_of_length(12), prompt_of_length(33, terminator=""), prompt_of_length(91)]
    prompts[2] = with_greedy_answer(model, prompts[2])
    prompts[9] = with_greedy_answer(model, prompts[9])
    return prompts


def candidates(model: PreTrainedModel) -> list[ScalingFactors | None]:
    """None, one of a factor a layer, two that share lower layers with it, and None once more."""
    rotary = rotary_layers(model)

    def masked(*values: float) -> ScalingFactors:
        return ScalingFactors([value if layer in rotary else None for layer, value in enumerate(values)])

    return [None, masked(1.2, 0.9, 0.95, 1.1), masked(1.2, 0.9, 0.95, 1.0), masked(1.2, 0.9, 1.3, 1.1), None]


def assert_oracles(model: PreTrainedModel, found: list[list[AnswerScore]], tolerance: float) -> None:
    expected = oracles(model, mixed_prompts(model), candidates(model)[:-1])
    expected.append(expected[0])
    for own, wanted in zip(found, expected, strict=True):
        assert_equal_scores(own, wanted, tolerance)
    assert any(one.verdict for one in expected[0])
    assert not all(one.verdict for one in expected[0])
    assert all(a.log_likelihood != b.log_likelihood for a, b in zip(expected[0], expected[1], strict=True))


@pytest.mark.parametrize("name", FIT)
def test_the_own_loop_takes_it_and_is_right(name: str) -> None:
    """In one call all candidates; at most 400 tokens a batch, so there are several batches."""
    model_type, config = FIT[name]
    model = tiny_model(model_type, **config).double()
    scorer = Scorer(model, TinyTokenizer(), mixed_prompts(model), 400)
    found = scorer.score(candidates(model))
    assert scorer.reason is None
    assert scorer._loop is not None
    assert {row.has_tails for row in scorer._loop.rows} == {True, False}
    assert_oracles(model, found, TOLERANCES.get(name, 1e-9))


@pytest.mark.parametrize("name", ROPE_TYPES)
def test_every_rope_type_is_the_models_own(name: str) -> None:
    """Short and long prompts of one batch have each the base of their own length."""
    scheme, config = ROPE_TYPES[name]
    model = tiny_model("llama", rope_parameters={"rope_theta": 1e4} | scheme, **config).double()
    scorer = Scorer(model, TinyTokenizer(), mixed_prompts(model), 2000)
    found = scorer.score(candidates(model))
    assert scorer.reason is None
    assert_oracles(model, found, 1e-9)


@pytest.mark.parametrize(("model_type", "config", "reason", "dtype"), OTHERS, ids=[other[0] for other in OTHERS])
def test_other_models_fall_back_and_are_right(
    model_type: str, config: dict[str, Any], reason: str, dtype: torch.dtype
) -> None:
    model = tiny_model(model_type, **config).to(dtype)
    prompts = prompts_of_records(1)
    rotary = rotary_layers(model)
    factors = ScalingFactors([1.2 if layer in rotary else None for layer in range(4)])
    scorer = Scorer(model, TinyTokenizer(), prompts)
    found = scorer.score([None, factors])
    assert reason in str(scorer.reason)
    for own, expected in zip(found, oracles(model, prompts, [None, factors], dtype), strict=True):
        assert_equal_scores(own, expected, 1e-9 if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize("model_type", ["gpt2", "opt"])
def test_models_without_rotary_position_are_scored_without_factors(model_type: str) -> None:
    model = tiny_model(model_type).double()
    prompts = prompts_of_records(1)
    scorer = Scorer(model, TinyTokenizer(), prompts)
    (found,) = scorer.score([None])
    assert "There is no rotary position to scale" in str(scorer.reason)
    assert_equal_scores(found, oracles(model, prompts, [None])[0], 1e-9)


class Quantised(nn.Linear):
    """Stands for a layer of another kind, whose weight is not what its forward multiplies with."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.weight.to(torch.bfloat16).to(self.weight.dtype), self.bias)


def quantise(module: nn.Module, name: str) -> None:
    linear: Any = getattr(module, name)
    other = Quantised(linear.in_features, linear.out_features, bias=False)
    other.weight = linear.weight
    setattr(module, name, other)


@pytest.mark.parametrize("part", ["lm_head", "qkv_proj"])
def test_weights_that_the_loop_reads_itself_must_be_plain(part: str) -> None:
    model = tiny_model("phi3").double()
    quantise(model if part == "lm_head" else model.model.layers[2].self_attn, part)
    prompts = prompts_of_records(1)
    scorer = Scorer(model, TinyTokenizer(), prompts)
    (found,) = scorer.score([None])
    assert "is a Quantised" in str(scorer.reason)
    assert_equal_scores(found, oracles(model, prompts, [None])[0], 1e-9)


def test_other_projections_may_be_of_any_kind() -> None:
    """They are called as modules."""
    model = tiny_model().double()
    for name in ("q_proj", "v_proj", "o_proj"):
        quantise(model.model.layers[1].self_attn, name)
    prompts = prompts_of_records(1)
    scorer = Scorer(model, TinyTokenizer(), prompts)
    (found,) = scorer.score([None])
    assert scorer.reason is None
    assert_equal_scores(found, oracles(model, prompts, [None])[0], 1e-9)
