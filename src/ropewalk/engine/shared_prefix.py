"""Prompts that begin with the same tokens: which of them to group, and their common part computed once.

The positions of a generated kv record ask for different pairs of one JSON object, so most of their tokens are equal.
The common prefix goes through the model once, its cache is repeated, and only the rest runs for each prompt. Which
prompts are grouped is a pure function of the prompts, so every candidate sees the same groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from ropewalk.prompts import RenderedPrompt

MIN_SAVED_SHARE = 0.3
"""A group must save this share of its tokens, or batches of equal shape are the better use of the device."""

_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4}
_LOW_PRECISION_TOLERANCE = 0.02  # bfloat16 and float16, whose rounding follows the shape of the batch


class NotShareable(Exception):
    """This model's cache can't be repeated; the message says why."""


@dataclass(frozen=True)
class PrefixGroup:
    """Prompts `indices`, which all begin with the same `prefix` tokens."""

    indices: tuple[int, ...]
    prefix: int


def prefix_groups(
    prompts: Sequence[RenderedPrompt], tokens_per_batch: int, *, min_prefix: int = 1
) -> tuple[list[PrefixGroup], list[int]]:
    """Groups of consecutive prompts that are worth sharing a prefix, and the indices of all other prompts.

    A prompt joins the group before it if that saves tokens. The logits before the first answer token stay in the part
    that each prompt computes itself. min_prefix: shortest prefix worth a pass of its own on this device.
    tokens_per_batch: the rest of a group, with its padding, is no larger.
    """
    groups: list[PrefixGroup] = []
    alone: list[int] = []
    start = 0
    while start < len(prompts):
        group = _grow(prompts, start, tokens_per_batch)
        saved = group.prefix * (len(group.indices) - 1)
        total = sum(len(prompts[index].ids) for index in group.indices)
        if group.prefix >= min_prefix and saved >= MIN_SAVED_SHARE * total:
            groups.append(group)
        else:
            alone.extend(group.indices)
        start = group.indices[-1] + 1
    return groups, alone


def repeated(cache: Any, rows: int) -> Any:
    """The cache of one sequence, repeated in place for `rows` sequences.

    Raises `NotShareable` for all but plain and sliding-window attention caches: recurrent and convolution states
    forgive no padding, and not all of them can be repeated.
    """
    if type(cache) is not DynamicCache:
        raise NotShareable(f"it keeps its past in a {type(cache).__name__}, not in a DynamicCache")
    others = {type(layer).__name__ for layer in cache.layers} - {
        DynamicLayer.__name__,
        DynamicSlidingWindowLayer.__name__,
    }
    if others:
        raise NotShareable(f"its cache holds layers that are not attention alone ({', '.join(sorted(others))})")
    cache.batch_repeat_interleave(rows)
    return cache


def tolerance(dtype: torch.dtype) -> float:
    """How far two computations of one log-likelihood (mean nats per answer token) may differ by rounding."""
    return _TOLERANCES.get(dtype, _LOW_PRECISION_TOLERANCE)


def largest_difference(some: Sequence[float], others: Sequence[float]) -> float | None:
    """The largest |a - b|; infinite where only one of them is a number, None where all pairs are not numbers."""
    pairs = [(a, b) for a, b in zip(some, others, strict=True) if math.isfinite(a) or math.isfinite(b)]
    if not pairs:
        return None
    return max(abs(a - b) if math.isfinite(a) and math.isfinite(b) else math.inf for a, b in pairs)


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """int64 [rows, longest] with the rows padded on the right, where causality hides the padding."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)


def _grow(prompts: Sequence[RenderedPrompt], start: int, tokens_per_batch: int) -> PrefixGroup:
    """The group that begins at `start`: it takes the next prompt as long as that saves tokens."""
    prefix, longest, size = prompts[start].first - 1, len(prompts[start].ids), 1
    for prompt in prompts[start + 1 :]:
        common = _common(prompts[start].ids, prompt.ids, min(prefix, prompt.first - 1))
        longest = max(longest, len(prompt.ids))
        # With n members a prefix c saves (n - 1) c tokens: the next one may shorten it only if the sum still grows.
        if size * common <= (size - 1) * prefix or (size + 1) * (longest - common) > tokens_per_batch:
            break
        prefix, size = common, size + 1
    return PrefixGroup(tuple(range(start, start + size)), prefix)


def _common(one: Sequence[int], other: Sequence[int], limit: int) -> int:
    for place in range(limit):
        if one[place] != other[place]:
            return place
    return limit
