"""A plain llama or qwen2 of one prompt in float64, written anew: what comparators are checked against.

Rotation is a product of complex numbers, heads and tokens are loops, nothing is cached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

# (query vector [D], its position, key vector [D], its position, query head) -> product, before scaling.
Product = Callable[[Tensor, int, Tensor, int, int], Tensor]
# (layer, queries [H, T, D], keys [K, T, D]) -> the product of that layer.
Products = Callable[[int, Tensor, Tensor], Product]


def frequencies(model: PreTrainedModel, base: float | None = None) -> list[float]:
    """base^(−2i / D) of the model's base or another one."""
    base = model.config.rope_parameters["rope_theta"] if base is None else base
    size = model.config.hidden_size // model.config.num_attention_heads
    return [base ** (-2 * pair / size) for pair in range(size // 2)]


def turned(vector: Tensor, position: float, theta: list[float]) -> Tensor:
    """complex128 [D / 2]: the pairs (i, i + D/2) of a vector, turned by position·θ_i."""
    half = len(vector) // 2
    angles = position * torch.tensor(theta, dtype=torch.float64)
    return torch.complex(vector[:half], vector[half:]) * torch.polar(torch.ones_like(angles), angles)


def rotary_product(theta: list[float], scale: float = 1.0) -> Product:
    """Of vanilla's kind, under other frequencies; scale multiplies cos and sin."""

    def product(query: Tensor, at: int, key: Tensor, place: int, head: int) -> Tensor:
        return scale**2 * (turned(query, at, theta) * turned(key, place, theta).conj()).sum().real

    return product


def log_probabilities(model: PreTrainedModel, ids: Tensor, products: Products) -> Tensor:
    """float64 [T, V] of the token ids [T]."""
    weights = {name: value.double() for name, value in model.state_dict().items()}
    config = model.config
    hidden = weights["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        own = {
            name.removeprefix(f"model.layers.{layer}."): value
            for name, value in weights.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        normed = _norm(hidden, own["input_layernorm.weight"], config.rms_norm_eps)
        hidden = hidden + _attention(config, own, normed, layer, products)
        normed = _norm(hidden, own["post_attention_layernorm.weight"], config.rms_norm_eps)
        gate, up = normed @ own["mlp.gate_proj.weight"].T, normed @ own["mlp.up_proj.weight"].T
        hidden = hidden + (gate * gate.sigmoid() * up) @ own["mlp.down_proj.weight"].T
    normed = _norm(hidden, weights["model.norm.weight"], config.rms_norm_eps)
    return (normed @ weights["lm_head.weight"].T).log_softmax(-1)


def _norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return weight * hidden / (hidden.square().mean(-1, keepdim=True) + epsilon).sqrt()


def _attention(config: Any, own: dict[str, Tensor], hidden: Tensor, layer: int, products: Products) -> Tensor:
    heads, shared = config.num_attention_heads, config.num_key_value_heads

    def projected(name: str, count: int) -> Tensor:
        found = hidden @ own[f"self_attn.{name}.weight"].T + own.get(f"self_attn.{name}.bias", torch.zeros(1))
        return found.view(len(hidden), count, -1).transpose(0, 1)

    query, key, value = projected("q_proj", heads), projected("k_proj", shared), projected("v_proj", shared)
    product = products(layer, query, key)
    mixed = torch.zeros_like(query)
    for head in range(heads):
        group = head // (heads // shared)
        for at in range(len(hidden)):
            seen = [product(query[head, at], at, key[group, place], place, head) for place in range(at + 1)]
            share = (torch.stack(seen) / math.sqrt(query.shape[-1])).softmax(-1)
            mixed[head, at] = share @ value[group, : at + 1]
    return mixed.transpose(0, 1).reshape(len(hidden), -1) @ own["self_attn.o_proj.weight"].T
