"""What flash-attn is asked for: its documented function, written out plainly here, must give what `causal` gives.

The package needs a GPU to build, so the real kernel does not run in these tests; the scorer's check against
`model.forward` guards it where it does.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from ropewalk.engine import attention


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
    softcap: float,
) -> Tensor:
    """As its documentation says: packed [total, heads, D]; a window (left, right) in keys, -1 for none."""
    assert causal
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
    out = torch.empty_like(q)
    groups = q.shape[1] // k.shape[1]
    for start, stop in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
        for token in range(start, stop):
            left = start if window_size[0] < 0 else max(start, token - window_size[0])
            for head in range(q.shape[1]):
                scores = k[left : token + 1, head // groups] @ q[token, head] * softmax_scale
                scores = softcap * torch.tanh(scores / softcap) if softcap else scores
                out[token, head] = scores.softmax(-1) @ v[left : token + 1, head // groups]
    return out


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    return attention._load_flash_attention()


@pytest.mark.parametrize(("window", "cap"), [(3, None), (None, 1.5), (4, 1.5), (1, None)])
def test_windows_and_caps_reach_the_kernel(flash: Any, window: int | None, cap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 11, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    expected = attention.causal(q, k, v, 0.3, window, cap)
    torch.testing.assert_close(flash(q, k, v, 0.3, window, cap), expected, rtol=1e-10, atol=1e-10)


def test_without_the_package_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert attention._load_flash_attention() is None
