"""What the own loop reads off a model's layers, and the layers that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from ropewalk.engine.layer_spec import LayerSpec, NotFitError, layer_spec
from tiny import tiny_model


def specs(model: Any, by_layer_type: bool = False) -> list[LayerSpec]:
    layers = model.model.layers
    return [layer_spec(layer, index, model.config, True, by_layer_type) for index, layer in enumerate(layers)]


def test_norms_around_windows_caps_and_scales() -> None:
    found = specs(tiny_model("gemma2", head_dim=16, sliding_window=16, query_pre_attn_scalar=9))
    assert [spec.window for spec in found] == [16, None, 16, None]
    assert {(spec.around, spec.scale, spec.cap, spec.layer_type) for spec in found} == {(True, 1 / 3, 50.0, None)}


def test_norms_before_and_nothing_else() -> None:
    (spec, *_) = specs(tiny_model("qwen2"))
    assert (spec.around, spec.window, spec.cap) == (False, None, None)
    assert (spec.heads, spec.kv_heads, spec.head_dim, spec.scale) == (4, 2, 16, 0.25)


def test_layer_types_are_kept_where_the_rotary_module_asks_for_them() -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    found = specs(tiny_model("gemma3_text", head_dim=16, sliding_window=16, layer_types=kinds), by_layer_type=True)
    assert [spec.layer_type for spec in found] == kinds
    assert [spec.window for spec in found] == [16, None, 16, None]


def damaged(damage: str) -> Any:
    model: Any = tiny_model("phi3" if "joint" in damage else "llama")
    layer = model.model.layers[2]
    if damage == "another norm":
        layer.extra_norm = nn.LayerNorm(64)
    elif damage == "no output projection":
        del layer.self_attn.o_proj
    elif damage == "sees what comes later":
        layer.self_attn.is_causal = False
    else:
        layer.self_attn.qkv_proj = nn.Linear(64, 128, bias=True)
    return model


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("another norm", r"LlamaDecoderLayer is made of extra_norm, .*: another make"),
        ("no output projection", r"LlamaAttention has other projections \(k_proj, q_proj, v_proj\)"),
        ("sees what comes later", "its attention is not causal"),
        ("a joint projection with bias", "its joint projection is a Linear, not a Linear without bias"),
    ],
)
def test_other_makes_are_refused(damage: str, reason: str) -> None:
    with pytest.raises(NotFitError, match=reason):
        specs(damaged(damage))
