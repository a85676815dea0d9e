"""Attention of the own layer loop: causal without a mask, in a sliding window, and where rows have tails.

On a GPU plain causal attention is torch's: on an H200 its cuDNN kernel does 436 TFLOP/s at head size 64 where
FlashAttention 2 does 248. Windows and soft caps have no kernel in torch; flash-attn's is taken for them if the package
is there. On a CPU it is written out in blocks of queries: torch's kernel does 0.2 of the rate of a large matrix product
there, the blocks 0.33 on one core.

Shapes: q [N, Hq, T, D], k and v [N, Hkv, T, D]; Hkv divides Hq (grouped queries). Right padding needs no mask, for
causality hides it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention, softmax

BLOCK = 96  # queries at a time on a CPU; 32 to 128 are within 10 % of one another
CHUNK = 256  # queries at a time where the scores must be written out (soft caps)


def causal(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None, cap: float | None = None
) -> Tensor:
    """Each token sees itself and those before it, the last `window` of them where there is one. [N, Hq, T, D]."""
    tokens = q.shape[2]
    if window is not None and window >= tokens:
        window = None
    if (window is not None or cap is not None) and flash_attention is not None and _takes(q):
        return flash_attention(q, k, v, scale, window, cap)
    if cap is not None:
        return _capped_causal(q, k, v, scale, window, cap)
    if takes_blocks(q):
        return blocked(q, k, v, scale, window)
    if window is not None:
        return _windowed(q, k, v, scale, window)
    if q.device.type == "cpu":
        k, v = _repeat(k, q), _repeat(v, q)
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=k.shape[1] != q.shape[1])


def takes_blocks(q: Tensor) -> bool:
    """Whether `blocked` is the faster way: on a CPU, but not in float16, which few of them multiply."""
    return q.device.type == "cpu" and q.dtype != torch.float16


def blocked(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None) -> Tensor:
    """Causal attention of the last tokens by plain matrix products, a block of queries at a time. [N, Hq, T, D].

    q: [N, Hq, T, D], the last T of the K tokens of k and v [N, Hkv, K, D]. The queries of one key-value head stand
    side by side in one matrix, token by token, so keys are not repeated and a block is a slice; only the square above
    the diagonal (with a window: what lies outside it, too) is masked, and keys behind the block are not touched.

    Scores are float32 products: rounded to bfloat16 they would save a fifth of the time, and be two to five times as
    far off as torch's kernel.
    """
    rows, heads, tokens, size = q.shape
    kv_heads, total = k.shape[1:3]
    groups, before, matrices = heads // kv_heads, total - tokens, rows * kv_heads
    window = None if window is not None and window >= total else window
    precise = torch.float32 if q.dtype == torch.bfloat16 else q.dtype
    token_by_token = q.view(rows, kv_heads, groups, tokens, size).transpose(2, 3)
    queries = token_by_token.to(precise).mul(scale).reshape(matrices, tokens * groups, size)
    k, v = k.to(precise).reshape(matrices, total, size), v.reshape(matrices, total, size)
    block, reach = min(BLOCK, tokens), 0 if window is None else window - 1
    bias = _bias(block, window, queries).repeat_interleave(groups, dim=0)
    widest = total if window is None else min(total, reach + block)
    buffer = queries.new_empty(matrices * block * groups * widest)  # one for all blocks: it stays in the cache
    out = q.new_empty(queries.shape)
    for start in range(0, tokens, block):
        stop = min(tokens, start + block)
        count, last = stop - start, before + stop
        behind = min(before + start, reach)  # keys before the block that need a look at the mask
        first = 0 if window is None else last - count - behind
        scores = buffer[: matrices * count * groups * (last - first)].view(matrices, count * groups, last - first)
        block_rows = slice(start * groups, stop * groups)
        torch.bmm(queries[:, block_rows], k[:, first:last].transpose(1, 2), out=scores)
        scores[:, :, last - first - count - behind :] += bias[: count * groups, reach - behind : reach + count]
        torch.softmax(scores, -1, out=scores)
        out[:, block_rows] = torch.bmm(scores.to(q.dtype), v[:, first:last])
    return out.view(rows, kv_heads, tokens, groups, size).transpose(2, 3).reshape(rows, heads, tokens, size)


def _bias(block: int, window: int | None, like: Tensor) -> Tensor:
    """-inf where a query of a block may not look, over the window's keys before the block and the block's own."""
    reach = 0 if window is None else window - 1
    hidden = like.new_full((block, reach + block), float("-inf"))
    later = hidden.triu(reach + 1)
    return later if window is None else later + hidden.tril(-1)


def _takes(q: Tensor) -> bool:
    return q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] <= 256


def _load_flash_attention() -> Callable[..., Tensor] | None:
    """flash-attn's kernel behind the signature of `causal`; None without the package."""
    try:
        from flash_attn import flash_attn_varlen_func
    except Exception:  # not installed, or built for another torch
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, cap: float | None) -> Tensor:
        rows, _, tokens, _ = q.shape
        flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]  # [rows * tokens, heads, head size]
        ends = torch.arange(rows + 1, dtype=torch.int32, device=q.device) * tokens
        out: Tensor = flash_attn_varlen_func(
            *flat,
            cu_seqlens_q=ends,
            cu_seqlens_k=ends,
            max_seqlen_q=tokens,
            max_seqlen_k=tokens,
            softmax_scale=scale,
            causal=True,
            window_size=(-1, -1) if window is None else (window - 1, 0),
            softcap=cap or 0.0,
        )
        return out.view(rows, tokens, *out.shape[1:]).transpose(1, 2)

    return attend


flash_attention = _load_flash_attention()


def masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float | None = None) -> Tensor:
    """Few queries that see what `mask`, bool [N, 1, queries, keys], lets them see. [N, Hq, queries, D].

    The query heads of one key-value head are laid side by side as more queries, so keys are not repeated.
    """
    if cap is not None:
        return _capped(q, _repeat(k, q), _repeat(v, q), mask, scale, cap)
    rows, heads, queries, size = q.shape
    groups = heads // k.shape[1]
    folded = q.reshape(rows, k.shape[1], groups * queries, size)
    out = scaled_dot_product_attention(folded, k, v, attn_mask=mask.repeat(1, 1, groups, 1), scale=scale)
    return out.reshape(rows, heads, queries, size)


def visible(
    query_positions: Tensor,
    query_segments: Tensor,
    key_positions: Tensor,
    key_segments: Tensor,
    window: int | None,
) -> Tensor:
    """Mask [N, 1, queries, keys]: the stem (segment 0) is seen by all behind it, a tail by itself alone.

    All arguments are [N, queries] or [N, keys]; padding has the segment -1.
    """
    segment, position = query_segments[:, :, None], query_positions[:, :, None]
    others = key_positions[:, None, :]
    seen = ((key_segments[:, None, :] == 0) | (key_segments[:, None, :] == segment)) & (others <= position)
    if window is not None:
        seen &= others > position - window
    return seen[:, None]


def _windowed(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int) -> Tensor:
    """Blocks of `window` queries against their own and the previous block: T · 2W scores in place of T²."""
    rows, _, tokens, _ = q.shape
    k, v = _repeat(k, q), _repeat(v, q)
    first = scaled_dot_product_attention(
        q[:, :, :window], k[:, :, :window], v[:, :, :window], is_causal=True, scale=scale
    )
    blocks = -(-tokens // window)
    fill = blocks * window - tokens
    queries = _blocks(pad(q[:, :, window:], (0, 0, 0, fill)), window)
    keys, values = (_blocks(pad(x, (0, 0, 0, fill)), window) for x in (k, v))
    pairs = [torch.cat([x[:, :, :-1], x[:, :, 1:]], dim=3) for x in (keys, values)]
    folded_q, folded_k, folded_v = (x.transpose(1, 2).flatten(0, 1) for x in (queries, *pairs))
    query, key = torch.arange(window, device=q.device)[:, None] + window, torch.arange(2 * window, device=q.device)
    mask = (key <= query) & (key > query - window)
    rest = scaled_dot_product_attention(folded_q, folded_k, folded_v, attn_mask=mask, scale=scale)
    rest = rest.view(rows, blocks - 1, *rest.shape[1:]).transpose(1, 2).flatten(2, 3)
    return torch.cat([first, rest[:, :, : tokens - window]], dim=2)


def _blocks(x: Tensor, size: int) -> Tensor:
    """[N, H, blocks * size, D] -> [N, H, blocks, size, D]."""
    return x.reshape(*x.shape[:2], -1, size, x.shape[-1])


def _capped_causal(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, cap: float) -> Tensor:
    k, v = _repeat(k, q), _repeat(v, q)
    places = torch.arange(q.shape[2], device=q.device)
    parts = []
    for start in range(0, q.shape[2], CHUNK):
        stop = min(start + CHUNK, q.shape[2])
        low = 0 if window is None else max(0, start - window + 1)
        query, key = places[start:stop, None], places[low:stop]
        mask = key <= query
        if window is not None:
            mask &= key > query - window
        parts.append(_capped(q[:, :, start:stop], k[:, :, low:stop], v[:, :, low:stop], mask, scale, cap))
    return torch.cat(parts, dim=2)


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float) -> Tensor:
    """Scores bent by cap · tanh(score / cap), as in Gemma 2."""
    scores = torch.tanh(q @ k.transpose(2, 3) * (scale / cap)) * cap
    precise = torch.float64 if q.dtype == torch.float64 else torch.float32
    weights = softmax(scores.masked_fill(~mask, float("-inf")), dim=-1, dtype=precise)
    return weights.to(q.dtype) @ v


def _repeat(x: Tensor, q: Tensor) -> Tensor:
    groups = q.shape[1] // x.shape[1]
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)
