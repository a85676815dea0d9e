"""The output layer: in float32 whatever the weights are, in parts or whole, soft-capped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ropewalk.engine import head as module
from ropewalk.engine.head import Head, TokenStats, token_stats


def linear(dtype: torch.dtype, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(16, 50, bias=bias).to(dtype)


def places(dtype: torch.dtype, count: int = 23) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = 5 * torch.randn(count, 16, generator=generator)
    return hidden.to(dtype), torch.randint(0, 50, (count,), generator=generator)


def stats(layer: nn.Linear, cap: float | None = None, count: int = 23) -> TokenStats:
    head = Head(layer, cap)
    with torch.no_grad(), head.in_float32():
        return head.stats(*places(layer.weight.dtype, count))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_statistics_equal_an_oracles(dtype: torch.dtype, cap: float | None, bias: bool) -> None:
    layer = linear(dtype, bias=bias)
    hidden, targets = places(dtype)
    logits = nn.functional.linear(hidden.double(), layer.weight.double(), layer.bias.double() if bias else None)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    ordered = logits.sort(-1, descending=True)
    chosen = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    found = stats(layer, cap)
    assert found.greedy.tolist() == ordered.indices[:, 0].tolist()
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.margin.dtype == found.log_probability.dtype == precise
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    gap = ordered.values[:, 0] - ordered.values[:, 1]
    torch.testing.assert_close(found.margin.double(), gap, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.log_probability.double(), chosen, rtol=0, atol=tolerance)


@pytest.mark.parametrize("count", [1, 4, 23])
def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    layer = linear(torch.float64)
    whole = stats(layer, count=count)
    sizes: list[int] = []

    def logits_of(hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden))
        return layer(hidden)

    monkeypatch.setattr(module, "CPU_LOGITS_BYTES", 4 * 50 * 5)
    with torch.no_grad():
        parts = token_stats(logits_of, *places(torch.float64, count), 50)
    assert max(sizes) <= 5
    assert sum(sizes) == count
    assert parts.greedy.tolist() == whole.greedy.tolist()
    torch.testing.assert_close(parts.margin, whole.margin, rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.log_probability, whole.log_probability, rtol=0, atol=1e-12)


def test_a_vocabulary_over_the_limit_is_done_place_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stats(linear(torch.float64))
    monkeypatch.setattr(module, "CPU_LOGITS_BYTES", 1)
    assert stats(linear(torch.float64)).greedy.tolist() == whole.greedy.tolist()


def test_float32_weights_live_only_in_the_context() -> None:
    head = Head(linear(torch.bfloat16))
    with pytest.raises(RuntimeError, match=r"outside of Head\.in_float32"):
        head.logits(places(torch.bfloat16)[0])
    with head.in_float32():
        assert head.logits(places(torch.bfloat16)[0]).dtype == torch.float32
    with pytest.raises(RuntimeError, match=r"outside of Head\.in_float32"):
        head.logits(places(torch.bfloat16)[0])
