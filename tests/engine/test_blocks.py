"""Parts of a layer: the rotation, and what happens where nothing can be compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ropewalk.engine import blocks
from ropewalk.engine.blocks import compiled, rotate


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
