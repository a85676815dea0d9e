"""Parts of a layer: the rotation, and what happens where nothing can be compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ropewalk.engine import blocks
from ropewalk.engine.blocks import compiled, norm, rotate
from tiny import tiny_model


@pytest.mark.parametrize("size", [4, 8])
def test_rotation_by_halves_leaves_the_rest_alone(size: int) -> None:
    """Pairs (i, i + half) turn by their angle; what lies beyond the rotary dim passes through."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 8, generator=generator, dtype=torch.float64)
    angles = torch.randn(3, size // 2, generator=generator, dtype=torch.float64)
    turned = rotate(x, torch.cat([angles.cos(), angles.cos()], -1), torch.cat([-angles.sin(), angles.sin()], -1))
    half = size // 2
    pairs = torch.complex(x[..., :half], x[..., half:size]) * torch.exp(1j * angles)[:, None]
    torch.testing.assert_close(turned[..., :half], pairs.real, rtol=0, atol=1e-12)
    torch.testing.assert_close(turned[..., half:size], pairs.imag, rtol=0, atol=1e-12)
    assert torch.equal(turned[..., size:], x[..., size:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma3_text"])
def test_norms_are_those_of_the_model(model_type: str, dtype: torch.dtype) -> None:
    """In its own precision to the last digit or the one before; gemma's, which weigh by 1 + weight, are its own."""
    model: Any = tiny_model(model_type, **({"head_dim": 16} if model_type.startswith("gemma") else {})).to(dtype)
    module = model.model.layers[0].input_layernorm
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        module.weight.copy_(torch.randn(64, generator=generator))
        x = torch.cat([torch.randn(5, 64, generator=generator) * 10**power for power in (-3.0, 0.0, 3.0)]).to(dtype)
        before = x.clone()
        found, expected = norm(module, x), module(x)
    assert found.dtype == expected.dtype
    assert torch.equal(x, before)
    torch.testing.assert_close(found, expected, rtol=2 * max(torch.finfo(dtype).eps, 1e-6), atol=1e-6)


def test_what_can_not_be_compiled_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def compiler(function: Any) -> Any:
        def fails(*_: Any) -> None:
            tries.append(1)
            raise RuntimeError("no compiler here")

        return fails

    monkeypatch.setattr(blocks.torch, "compile", compiler)
    spec: Any = None
    call = compiled(lambda spec, x, more: x + 1)
    assert call(spec, torch.zeros(1), None).tolist() == [1.0]  # one token is never worth it
    assert tries == []
    with pytest.warns(UserWarning, match="not compiled, so slower: RuntimeError: no compiler here"):
        assert call(spec, torch.zeros(2), None).tolist() == [1.0, 1.0]
    assert call(spec, torch.zeros(2), (torch.zeros(2), torch.zeros(2))).tolist() == [1.0, 1.0]
    assert tries == [1]


def test_out_of_memory_is_no_reason_to_compile_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiler(function: Any) -> Any:
        def fails(*_: Any) -> None:
            raise torch.cuda.OutOfMemoryError("out of memory, on purpose")

        return fails

    monkeypatch.setattr(blocks.torch, "compile", compiler)
    spec: Any = None
    call = compiled(lambda spec, x, more: x + 1)
    for _ in range(2):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            call(spec, torch.zeros(2), None)
