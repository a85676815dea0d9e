"""What is read of real architectures, against full float64 matrices from transformers' own queries, keys and masks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from ropewalk.analysis.parts import attention_reader, attention_statistics
from ropewalk.analysis.parts.attention_reader import NAME, read_attention, rotations
from ropewalk.analysis.parts.attention_statistics import block_size, distance_starts
from ropewalk.errors import UnsupportedModelError
from ropewalk.patch import patched
from tiny import logits, prompt, tiny_model

FACTORS = [0.8, 1.3, 1.0, 1.1]
WINDOWS: dict[str, Any] = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 16},
    "phi3": {"sliding_window": 9},
    "gemma2": {**WINDOWS, "head_dim": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 2.0},
    "gemma3_text": {**WINDOWS, "head_dim": 16, "query_pre_attn_scalar": 16},
    "recurrent_gemma": {"head_dim": 16, "num_key_value_heads": 1, "attention_window_size": 7},
}
TOKENS = 37


@dataclass
class Naive:
    """One layer of a prompt: all scores [H, T, T], and which pairs are seen [T, T]."""

    scores: Tensor
    seen: Tensor

    @property
    def weights(self) -> Tensor:
        return self.scores.masked_fill(~self.seen, float("-inf")).softmax(-1)

    def entropy(self) -> NDArray[np.float64]:
        return np.array(
            [
                np.mean([-(p[p > 0] * p[p > 0].log()).sum().item() for p in self.weights[:, query]])
                for query in range(self.seen.shape[0])
            ]
        )

    def thirds(self) -> NDArray[np.float64]:
        found = np.zeros((len(self.seen), 3))
        for query in range(len(self.seen)):
            for key in range(query + 1):
                found[query, 3 * key // (query + 1)] += self.weights[:, query, key].mean().item()
        return found

    def mean_scores(self) -> NDArray[np.float64]:
        starts = [*distance_starts(len(self.seen)).tolist(), len(self.seen)]
        found = []
        for low, high in pairwise(starts):
            pairs = [
                (query, key)
                for query in range(len(self.seen))
                for key in range(1, query + 1)
                if low <= query - key < high and self.seen[query, key]
            ]
            found.append(np.mean([self.scores[:, q, k].mean().item() for q, k in pairs]) if pairs else np.nan)
        return np.array(found)


def naive_layers(model: PreTrainedModel, ids: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Naive]:
    """From the queries, keys and masks that transformers' eager attention gets."""
    found: list[Naive] = []
    source = sys.modules[type(model).__module__]

    def spy(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, **more: Any) -> Any:
        keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query[0] @ keys[0].transpose(-1, -2) * scaling
        cap = more.get("softcap")
        scores = scores if cap is None else cap * torch.tanh(scores / cap)
        found.append(Naive(scores, mask[0, 0] > -1))
        mixed = found[-1].weights @ value[0].repeat_interleave(query.shape[1] // value.shape[1], dim=0)
        return mixed.transpose(0, 1)[None], None  # transformers' own would take its softmax in float32

    monkeypatch.setattr(source, "eager_attention_forward", spy)
    monkeypatch.setattr(model.config, "_attn_implementation", "eager")
    logits(model, ids)
    monkeypatch.undo()
    return found


def family(name: str) -> PreTrainedModel:
    return tiny_model(name, **FAMILIES[name]).double()


@pytest.mark.parametrize("factors", [None, FACTORS], ids=["vanilla", "factors"])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "recurrent_gemma"])
def test_every_statistic_is_that_of_the_full_matrix(
    name: str, factors: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_statistics, "BLOCK_NUMBERS", 4 * TOKENS * 5)
    model, ids = family(name), prompt(1, TOKENS)
    with patched(model, factors or [1.0] * 4):
        expected = naive_layers(model, ids, monkeypatch)
        read = read_attention(model, ids[0].tolist(), 30)
    assert sorted(read.layers) == [0, 1, 2, 3]
    for layer, naive in enumerate(expected):
        found = read.layers[layer]
        np.testing.assert_allclose(found.entropy, naive.entropy(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.thirds, naive.thirds(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.first, naive.weights[:, :, 0].mean(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.scores, naive.mean_scores(), rtol=1e-9, atol=1e-12)
    windowed = "sliding_window" in FAMILIES[name]
    assert np.isnan(read.layers[0].scores[-1]) == windowed


@pytest.mark.parametrize("name", FAMILIES)
def test_the_rotations_are_those_of_the_frequencies_and_factors(name: str) -> None:
    model, ids = family(name), prompt(1, TOKENS)[0].tolist()
    factors = FACTORS if name != "recurrent_gemma" else [None, None, 1.3, None]
    with patched(model, factors):
        read = read_attention(model, ids, 30)
    for layer, found in read.rotations.items():
        parameters = model.config.rope_parameters
        kind = (getattr(model.config, "layer_types", None) or [""] * 4)[layer]
        theta = parameters.get(kind, parameters)["rope_theta"]
        size = 2 * found.shape[1]
        inv_freq = theta ** (-np.arange(0, size, 2) / size)
        angles = np.arange(TOKENS)[:, None] * inv_freq / factors[layer]
        np.testing.assert_allclose(found, np.exp(1j * angles), atol=1e-5)
    assert sorted(read.rotations) == [layer for layer, factor in enumerate(factors) if factor is not None]


def test_pairs_side_by_side_are_told_from_halves() -> None:
    angles = torch.outer(torch.arange(5.0), torch.tensor([1.0, 0.1]))
    expected = np.exp(1j * angles.double().numpy())
    for dressed in (torch.cat([angles, angles], -1), angles.repeat_interleave(2, -1)):
        np.testing.assert_allclose(rotations((dressed.cos()[None], dressed.sin()[None])), expected, atol=1e-6)
    np.testing.assert_allclose(rotations(torch.polar(torch.ones_like(angles), angles)[None]), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_the_block_size_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = family(name), prompt(1, TOKENS)[0].tolist()
    whole = read_attention(model, ids, 30)
    for queries in (1, 2, 7, TOKENS - 1):
        monkeypatch.setattr(attention_statistics, "BLOCK_NUMBERS", 4 * TOKENS * queries)
        assert block_size(4, TOKENS) == queries
        read = read_attention(model, ids, 30)
        assert read.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-12)
        for layer, found in read.layers.items():
            for field in ("entropy", "thirds", "first", "scores"):
                expected = getattr(whole.layers[layer], field)
                np.testing.assert_allclose(getattr(found, field), expected, rtol=1e-12, atol=1e-13)
            assert (found.pairs == whole.layers[layer].pairs).all()


class Largest(TorchDispatchMode):
    """Counts the numbers of the largest tensor that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_no_tensor_is_larger_than_a_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,500 tokens: a matrix of all queries and keys would hold 2.25 million numbers a head."""
    tokens, budget = 1500, 150_000
    monkeypatch.setattr(attention_statistics, "BLOCK_NUMBERS", budget)
    model = tiny_model(name, **{**FAMILIES[name], "max_position_embeddings": 2048})
    ids = prompt(1, tokens)[0].tolist()
    read_attention(model, ids[:40], 30)  # the first one is checked by the model's own attention
    with Largest() as largest:
        read_attention(model, ids, tokens - 5)
    assert largest.numbers <= max(budget, tokens * 96)  # 96: the widest layer of the model's own


def test_the_model_is_left_as_it_was() -> None:
    model, ids = tiny_model("llama"), prompt(1, TOKENS)
    before, implementation = logits(model, ids), model.config._attn_implementation
    model.train()
    read_attention(model, ids[0].tolist(), 30)
    assert model.training
    model.eval()
    assert model.config._attn_implementation == implementation != NAME
    assert torch.equal(logits(model, ids), before)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_a_model_that_can_not_be_read_is_refused_with_the_reason() -> None:
    ids = prompt(1, TOKENS)[0].tolist()
    sinks = tiny_model("gpt_oss", head_dim=16, num_local_experts=2, num_experts_per_tok=1)
    with pytest.raises(UnsupportedModelError, match="'gpt_oss' can't be read: it adds s_aux to its scores"):
        read_attention(sinks, ids, 30)
    falcon = tiny_model("falcon", num_kv_heads=2, new_decoder_architecture=True, ffn_hidden_size=96)
    with pytest.raises(UnsupportedModelError, match="'falcon' can't be read: "):
        read_attention(falcon, ids, 30)
    assert falcon.config._attn_implementation != NAME


def test_a_model_whose_attention_does_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = attention_statistics.attend
    monkeypatch.setattr(attention_reader, "attend", lambda q, *more: attend(0.5 * q, *more))
    with pytest.raises(UnsupportedModelError, match="its attention does more"):
        read_attention(tiny_model("llama"), prompt(1, TOKENS)[0].tolist(), 30)


def test_half_precision_is_read_like_float32() -> None:
    """The first layer's queries and keys are rounded alike; bfloat16 holds eight bits of them."""
    ids = prompt(1, TOKENS)[0].tolist()
    exact = read_attention(tiny_model("llama"), ids, 30).layers[0]
    rough = read_attention(tiny_model("llama").to(torch.bfloat16), ids, 30).layers[0]
    np.testing.assert_allclose(rough.entropy, exact.entropy, atol=0.1)
    np.testing.assert_allclose(rough.thirds.sum(-1), 1.0, atol=1e-5)
