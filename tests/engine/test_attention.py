"""Attention against a plain float64 softmax, at every length around the multiples of a window."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ropewalk.engine import attention
from ropewalk.engine.attention import blocked, causal, masked, takes_blocks, visible


def oracle(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float | None = None) -> Tensor:
    """One head and one query at a time. mask: bool [N, queries, keys]."""
    out = torch.empty_like(q)
    groups = q.shape[1] // k.shape[1]
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            for query in range(q.shape[2]):
                keys = k[row, head // groups][mask[row, query]]
                scores = keys @ q[row, head, query] * scale
                scores = scores if cap is None else cap * torch.tanh(scores / cap)
                weights = scores.exp() / scores.exp().sum()
                out[row, head, query] = weights @ v[row, head // groups][mask[row, query]]
    return out


def tensors(tokens: int, heads: int = 2, kv_heads: int = 1, rows: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(tokens)

    def draw(count: int) -> Tensor:
        return torch.randn(rows, count, tokens, 4, generator=generator, dtype=torch.float64)

    return draw(heads), draw(kv_heads), draw(kv_heads)


def causal_mask(rows: int, tokens: int, window: int | None) -> Tensor:
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)
    mask = key <= query
    if window is not None:
        mask &= key > query - window
    return mask.expand(rows, -1, -1)


@pytest.fixture(params=[True, False], ids=["blocks", "torch's kernel"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of plain and of windowed attention; the second one is a GPU's without flash-attn."""
    monkeypatch.setattr(attention, "takes_blocks", lambda q: request.param)
    monkeypatch.setattr(attention, "BLOCK", 4)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("cap", [None, 0.7])
@pytest.mark.parametrize("window", [None, 1, 2, 5])
def test_causal_at_every_length_around_the_windows_multiples(window: int | None, cap: float | None) -> None:
    for tokens in range(1, 18):
        q, k, v = tensors(tokens)
        expected = oracle(q, k, v, causal_mask(1, tokens, window), 0.3, cap)
        torch.testing.assert_close(causal(q, k, v, 0.3, window, cap), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (4, 2), (6, 2), (4, 1)])
@pytest.mark.parametrize(("window", "cap"), [(None, None), (4, None), (None, 2.0), (4, 2.0)])
def test_grouped_queries(heads: int, kv_heads: int, window: int | None, cap: float | None) -> None:
    """Query head h belongs to key-value head h // group size."""
    q, k, v = tensors(11, heads, kv_heads, rows=3)
    mask = causal_mask(3, 11, window)
    expected = oracle(q, k, v, mask, 0.5, cap)
    torch.testing.assert_close(causal(q, k, v, 0.5, window, cap), expected, rtol=1e-10, atol=1e-10)
    some = masked(q[:, :, 7:], k, v, mask[:, None, 7:], 0.5, cap)
    torch.testing.assert_close(some, expected[:, :, 7:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", [1, 3, 4, 16])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (6, 2), (3, 1)])
@pytest.mark.parametrize("window", [None, 1, 3, 6, 40])
def test_blocks_of_the_last_tokens(
    monkeypatch: pytest.MonkeyPatch, window: int | None, heads: int, kv_heads: int, block: int
) -> None:
    """As many queries as there are keys, some, and one: a tail's tokens stand behind a stem's."""
    monkeypatch.setattr(attention, "BLOCK", block)
    q, k, v = tensors(13, heads, kv_heads, rows=2)
    expected = oracle(q, k, v, causal_mask(2, 13, window), 0.4)
    for start in (0, 5, 12):
        found = blocked(q[:, :, start:], k, v, 0.4, window)
        torch.testing.assert_close(found, expected[:, :, start:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 0.003)])
@pytest.mark.parametrize("window", [None, 100])
def test_blocks_in_the_precisions_of_models(dtype: torch.dtype, error: float, window: int | None) -> None:
    """300 tokens are two blocks and a part of a third; heads come as the layer loop has them, in strides."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 300, count, 64, generator=generator).to(dtype).transpose(1, 2) for count in (6, 2, 2))
    assert takes_blocks(q)
    wide_q, wide_k, wide_v = (x.double() for x in (q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)))
    scores = wide_q @ wide_k.transpose(2, 3) * 0.125
    expected = scores.masked_fill(~causal_mask(1, 300, window), float("-inf")).softmax(-1) @ wide_v
    found = causal(q, k, v, 0.125, window)
    assert found.dtype == dtype
    assert float((found.double() - expected).norm() / expected.norm()) < error


def test_large_scores_do_not_overflow_in_blocks() -> None:
    q = torch.full((1, 1, 5, 4), 100.0)
    v = torch.arange(20.0).view(1, 1, 5, 4)
    expected = v.cumsum(2) / torch.arange(1, 6)[:, None]
    torch.testing.assert_close(blocked(q, q, v, 1.0), expected)


def test_float16_is_left_to_torchs_kernel() -> None:
    q, k, v = (x.half() for x in tensors(9))
    assert not takes_blocks(q)
    expected = oracle(q.double(), k.double(), v.double(), causal_mask(1, 9, None), 0.5)
    torch.testing.assert_close(causal(q, k, v, 0.5).double(), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("window", [None, 3])
def test_soft_caps_are_computed_in_chunks(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    q, k, v = tensors(13)
    whole = causal(q, k, v, 0.5, window, 1.5)
    monkeypatch.setattr(attention, "CHUNK", 4)
    torch.testing.assert_close(causal(q, k, v, 0.5, window, 1.5), whole, rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 8), st.lists(st.integers(1, 4), max_size=3)), min_size=1, max_size=3),
    st.sampled_from([None, 1, 3]),
)
def test_what_is_visible_in_rows_with_tails(rows: list[tuple[int, list[int]]], window: int | None) -> None:
    """A token sees those of the stem and of its own tail that stand before it, within the window of its positions."""
    laid = []
    for stem, tails in rows:
        row = [(place, 0) for place in range(stem)]
        for number, size in enumerate(tails):
            row += [(stem + place, number + 1) for place in range(size)]
        laid.append(row)
    width = max(len(row) for row in laid)
    padded = [row + [(0, -1)] * (width - len(row)) for row in laid]
    positions, segments = (torch.tensor([[entry[part] for entry in row] for row in padded]) for part in (0, 1))
    mask = visible(positions, segments, positions, segments, window)
    assert mask.shape == (len(rows), 1, width, width)
    for number, row in enumerate(laid):
        for query, (position, segment) in enumerate(row):
            for key, (other, source) in enumerate(row):
                sees = source in (0, segment) and other <= position and (window is None or other > position - window)
                assert bool(mask[number, 0, query, key]) is sees
            assert not mask[number, 0, query, len(row) :].any()
    assert mask.any(-1).all()  # padding too sees something: a row without anything to see would be NaN
