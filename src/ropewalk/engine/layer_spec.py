"""What the own layer loop has to know of a decoder layer, read off its modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ropewalk.layers import is_plain_linear

_NORMS_BEFORE = {"input_layernorm", "post_attention_layernorm"}
_NORMS_AROUND = _NORMS_BEFORE | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}


class NotFitError(Exception):
    """The model is not one for the own layer loop; the message says why."""


@dataclass(frozen=True)
class LayerSpec:
    """What the loop needs to know of one decoder layer. layer_type: the rotary module's, where it asks for one."""

    layer: Any
    around: bool
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None
    cap: float | None
    rotary: bool
    layer_type: str | None


def layer_spec(layer: Any, index: int, config: Any, rotary: bool, by_layer_type: bool) -> LayerSpec:
    """What there is to know of decoder layer `index`. Raises `NotFitError` if it is of another make.

    rotary: whether the layer uses the rotary position. by_layer_type: whether the rotary module asks for a layer type.
    """
    name = type(layer).__name__
    parts = {child for child, module in layer.named_children() if next(module.parameters(), None) is not None}
    norms = parts - {"self_attn", "mlp"}
    if norms not in (_NORMS_BEFORE, _NORMS_AROUND) or not {"self_attn", "mlp"} <= parts:
        raise NotFitError(f"{name} is made of {', '.join(sorted(parts))}: another make than the loop knows")
    if hasattr(layer.mlp, "experts"):
        raise NotFitError(f"its MLP is a mixture of experts ({type(layer.mlp).__name__}), which the loop does not run")
    attention = layer.self_attn
    projections = {child for child, _ in attention.named_children()}
    if not ({"q_proj", "k_proj", "v_proj", "o_proj"} <= projections or {"qkv_proj", "o_proj"} <= projections):
        raise NotFitError(f"{type(attention).__name__} has other projections ({', '.join(sorted(projections))})")
    if "qkv_proj" in projections and not (is_plain_linear(attention.qkv_proj) and attention.qkv_proj.bias is None):
        raise NotFitError(f"its joint projection is {described(attention.qkv_proj)}, not a Linear without bias")
    if getattr(attention, "is_causal", True) is not True:
        raise NotFitError("its attention is not causal")
    layer_types = getattr(config, "layer_types", None)
    layer_type = layer_types[index] if layer_types else None
    heads, head_dim = config.num_attention_heads, int(attention.head_dim)
    return LayerSpec(
        layer=layer,
        around=norms == _NORMS_AROUND,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=head_dim,
        scale=float(getattr(attention, "scaling", head_dim**-0.5)),
        window=_window(attention, config, layer_type),
        cap=getattr(attention, "attn_logit_softcapping", None),
        rotary=rotary,
        layer_type=layer_type if by_layer_type else None,
    )


def described(module: nn.Module) -> str:
    """A module's class, and that of its weight where it tells more: "a Linear of Int8Tensor"."""
    weight = type(getattr(module, "weight", None))
    known = (nn.Parameter, type(None), torch.Tensor)
    return f"a {type(module).__name__}" + ("" if weight in known else f" of {weight.__name__}")


def _window(attention: Any, config: Any, layer_type: str | None) -> int | None:
    if hasattr(attention, "sliding_window"):
        window = attention.sliding_window
    else:
        window = None if layer_type == "full_attention" else getattr(config, "sliding_window", None)
    return int(window) if window else None
