"""Methods with an attention of their own: queries and keys of one call before rotation, and where each token stands.

The KV cache holds keys as they were projected. A method rotates them anew for every query, so each query head may use
positions of its own though several share a key head (GQA). The price is that rotation at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from ropewalk.errors import RopewalkError
from ropewalk.layers import decoder_layers, rotary_sites, text_config, undecorated_forward
from ropewalk.rotary import FIXED_BASE

# Families whose attention is: project, norm of queries and keys where there is one, rotate all of it, attend.
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
IMPLEMENTATIONS = ("eager", "sdpa")  # the ones that hand over a whole mask


@dataclass(frozen=True)
class Call:
    """One call of one layer's attention.

    query: [B, H, T, D], key, value: [B, H, S, D], before rotation, key heads repeated for the query heads that share
    them. query_positions: int64 [B, T]; key_positions: int64 [B, S]; the last T keys are the queries' own tokens. mask:
    [B or 1, 1, T, S], True or 0 where a query may look. cache: the KV cache or None. rotary: the model's rotary module.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    query_positions: Tensor
    key_positions: Tensor
    mask: Tensor
    scaling: float
    cache: Any
    rotary: nn.Module

    @property
    def is_prompt(self) -> bool:
        """Whether nothing was cached before this call."""
        return self.query.shape[-2] == self.key.shape[-2]


Attend = Callable[[Call], Tensor]  # [B, H, T, D]


def attention_refusal(model: nn.Module) -> str | None:
    """Why a method with an attention of its own can't serve this model; None if it can."""
    config = text_config(model)
    if config.model_type not in MODEL_TYPES:
        return f"its attention is written for {', '.join(MODEL_TYPES)}"
    if any(kind == "sliding_attention" for kind in getattr(config, "layer_types", None) or ()):
        return "it has layers with a sliding window, and positions are changed for whole contexts"
    if getattr(config, "sliding_window", None) and config.model_type == "mistral":
        return "its attention has a sliding window, and positions are changed for whole contexts"
    if config._attn_implementation not in IMPLEMENTATIONS:
        given = config._attn_implementation
        return f"its attention implementation is {given!r}, expected {' or '.join(IMPLEMENTATIONS)}"
    sites = rotary_sites(model)
    if len(sites) != 1:
        return f"it has {len(sites)} rotary modules, expected one that serves all layers"
    scheme = getattr(sites[0].module, "rope_type", None)
    if scheme not in FIXED_BASE:
        return f"its rope type is {scheme!r}, whose frequencies change with the length"
    return None


@contextmanager
def own_attention(model: nn.Module, attend: Attend, first_layer: int = 0) -> Iterator[None]:
    """`attend` in the place of every layer's attention from `first_layer` on, for the length of a `with` block."""
    (site,) = rotary_sites(model)
    begun: WeakSet[Any] = WeakSet()
    attentions: list[Any] = [layer.self_attn for layer in decoder_layers(model)]
    before = {index: attentions[index].__dict__.get("forward") for index in range(first_layer, len(attentions))}
    try:
        for index in before:
            attention = attentions[index]
            attention.__dict__["forward"] = partial(_forward, attention, index, site.module, attend, begun)
        yield
    finally:
        for index, forward in before.items():
            if forward is None:
                attentions[index].__dict__.pop("forward", None)
            else:
                attentions[index].__dict__["forward"] = forward


def _forward(
    attention: Any,
    layer: int,
    rotary: nn.Module,
    attend: Attend,
    begun: WeakSet[Any],
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Arguments and result of the model's own attention, without weights."""
    rows, tokens = hidden_states.shape[:2]
    query, key, value = _projected(attention, hidden_states)
    if past_key_values is not None:
        _check_cache(past_key_values, begun, layer)
        key, value = past_key_values.update(key, value, attention.layer_idx)
    positions = kwargs["position_ids"].expand(rows, tokens)
    call = Call(
        layer=layer,
        query=query,
        key=_repeated(key, attention.num_key_value_groups),
        value=_repeated(value, attention.num_key_value_groups),
        query_positions=positions,
        key_positions=_key_positions(positions, key.shape[-2]),
        mask=_whole_mask(attention_mask, tokens, key.shape[-2], hidden_states.device),
        scaling=attention.scaling,
        cache=past_key_values,
        rotary=rotary,
    )
    mixed = attend(call).transpose(1, 2).reshape(rows, tokens, -1)
    return attention.o_proj(mixed), None


def _projected(attention: Any, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B, H, T, D], [B, K, T, D], [B, K, T, D]."""
    shape = (*hidden_states.shape[:-1], -1, attention.head_dim)
    query, key = attention.q_proj(hidden_states).view(shape), attention.k_proj(hidden_states).view(shape)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    value = attention.v_proj(hidden_states).view(shape)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def _check_cache(cache: Any, begun: WeakSet[Any], layer: int) -> None:
    """Raise `RopewalkError` for a cache that holds rotated keys, or places for keys that are not there yet."""
    if cache in begun:
        return
    if getattr(cache, "is_compileable", False):
        raise RopewalkError(f"a comparator can't use a {type(cache).__name__} of fixed size; expected a DynamicCache")
    if cache.get_seq_length(layer) > 0:
        raise RopewalkError(
            "this KV cache was filled outside of the comparator's block, so its keys are rotated already; "
            "begin with the prompt inside the block"
        )
    begun.add(cache)


def _key_positions(query_positions: Tensor, keys: int) -> Tensor:
    """int64 [B, S]: those of the call's own tokens, and before them one less for each key, down to 0 (left padding)."""
    past = keys - query_positions.shape[1]
    if past == 0:
        return query_positions
    steps = torch.arange(past, 0, -1, device=query_positions.device)
    return torch.cat([(query_positions[:, :1] - steps).clamp(min=0), query_positions], dim=1)


def _whole_mask(mask: Tensor | None, tokens: int, keys: int, device: torch.device) -> Tensor:
    """The mask as handed over; causal where none was, which stands for that."""
    if mask is not None:
        return mask[..., :keys]
    return torch.ones(tokens, keys, dtype=torch.bool, device=device).tril(keys - tokens)[None, None]


def _repeated(heads: Tensor, times: int) -> Tensor:
    return heads.repeat_interleave(times, dim=1) if times > 1 else heads


def rotated(call: Call, states: Tensor, positions: Tensor) -> Tensor:
    """[B, H, T, D] rotated to positions [B, T], or [B, H, T] for positions of each head, also fractional ones."""
    flat = positions.reshape(-1, positions.shape[-1]).float()
    cos, sin = undecorated_forward(call.rotary)(call.rotary, states, flat)
    shape = (*positions.shape, cos.shape[-1]) if positions.dim() == 3 else (len(positions), 1, *cos.shape[-2:])
    first, second = states.chunk(2, dim=-1)
    turned: Tensor = states * cos.view(shape) + torch.cat((-second, first), dim=-1) * sin.view(shape)
    return turned


def scores(call: Call, query: Tensor, key: Tensor) -> Tensor:
    """[B, H, T, S], float32 or float64: scaled products of queries with keys, without the mask."""
    products: Tensor = query @ key.transpose(-1, -2)
    return at_least_float32(products) * call.scaling


def masked(call: Call, values: Tensor, rows: slice) -> Tensor:
    """Scores [B, H, rows, S] with the lowest number where a query of `rows` may not look."""
    mask = call.mask[:, :, rows]
    if mask.dtype == torch.bool:
        return values.masked_fill(~mask, torch.finfo(values.dtype).min)
    return values + mask.to(values.dtype)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision widened, other dtypes as they are."""
    return values if values.dtype == torch.float64 else values.float()
