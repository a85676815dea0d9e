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

MIN_KEPT_PREFIX = 0.9
"""Groups run together only if each shares at least this part of its own prefix."""

_REPEATABLE = (DynamicLayer, DynamicSlidingWindowLayer)
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4}
# bfloat16 and float16, whose rounding follows the shape of the batch: on SmolLM2 in bfloat16 single answers differ by
# up to 0.017 between shared and plain, while a cache put together wrongly shifts them by tenths.
_LOW_PRECISION_TOLERANCE = 0.05


class NotShareableError(Exception):
    """The model's cache can't be repeated; the message says why."""


@dataclass(frozen=True)
class PrefixGroup:
    """Prompts `indices`, which all begin with the same `prefix` tokens."""

    indices: tuple[int, ...]
    prefix: int


@dataclass(frozen=True)
class PrefixBatch:
    """Groups that run together. Of each group's prefix the first `prefix` tokens, as many as all have, are shared."""

    groups: tuple[PrefixGroup, ...]
    prefix: int

    @property
    def indices(self) -> list[int]:
        """The prompts, group by group."""
        return [index for group in self.groups for index in group.indices]

    @property
    def sources(self) -> list[int]:
        """For each prompt the number of its group."""
        return [number for number, group in enumerate(self.groups) for _ in group.indices]


def prefix_batches(
    prompts: Sequence[RenderedPrompt], tokens_per_batch: int, *, min_prefix: int = 1
) -> tuple[list[PrefixBatch], list[int]]:
    """Batches of groups that are worth sharing their prefixes, longest first, and the indices of all other prompts.

    min_prefix: shortest prefix worth a pass of its own on this device. tokens_per_batch: neither the prefixes nor what
    follows them, with its padding, are larger (a single prefix may be).
    """
    groups, alone = _worthwhile_groups(prompts, tokens_per_batch, min_prefix)
    batches: list[PrefixBatch] = []
    for group in sorted(groups, key=lambda group: (-group.prefix, group.indices)):
        joined = PrefixBatch((*batches[-1].groups, group), group.prefix) if batches else None
        if joined is not None and _fits(joined, prompts, tokens_per_batch):
            batches[-1] = joined
        else:
            batches.append(PrefixBatch((group,), group.prefix))
    return batches, alone


def repeated(cache: Any, sources: Sequence[int]) -> Any:
    """The cache, changed in place so that its row i is what was row sources[i].

    Raises `NotShareableError` for all but plain and sliding-window attention caches: recurrent and convolution states
    forgive no padding, and not all of them can be repeated.
    """
    if type(cache) is not DynamicCache:
        raise NotShareableError(f"it keeps its past in a {type(cache).__name__}, not in a DynamicCache")
    others = {type(layer).__name__ for layer in cache.layers if type(layer) not in _REPEATABLE}
    if others:
        raise NotShareableError(f"its cache holds layers that are not attention alone ({', '.join(sorted(others))})")
    cache.batch_select_indices(torch.tensor(sources))  # on the CPU: layers may be on different devices
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


def _worthwhile_groups(
    prompts: Sequence[RenderedPrompt], tokens_per_batch: int, min_prefix: int
) -> tuple[list[PrefixGroup], list[int]]:
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


def _grow(prompts: Sequence[RenderedPrompt], start: int, tokens_per_batch: int) -> PrefixGroup:
    """The group of consecutive prompts that begins at `start`: the next one joins as long as that saves tokens.

    The logits before the first answer token stay in the part that each prompt computes itself.
    """
    prefix, longest, size = prompts[start].first - 1, len(prompts[start].ids), 1
    for prompt in prompts[start + 1 :]:
        common = _common(prompts[start].ids, prompt.ids, min(prefix, prompt.first - 1))
        longest = max(longest, len(prompt.ids))
        # With n members a prefix c saves (n - 1) c tokens: the next one may shorten it only if the sum still grows.
        if size * common <= (size - 1) * prefix or (size + 1) * (longest - common) > tokens_per_batch:
            break
        prefix, size = common, size + 1
    return PrefixGroup(tuple(range(start, start + size)), prefix)


def _fits(batch: PrefixBatch, prompts: Sequence[RenderedPrompt], tokens_per_batch: int) -> bool:
    rest = max(len(prompts[index].ids) for index in batch.indices) - batch.prefix
    return (
        len(batch.groups) * batch.prefix <= tokens_per_batch
        and len(batch.indices) * rest <= tokens_per_batch
        and batch.prefix >= MIN_KEPT_PREFIX * batch.groups[0].prefix
    )


def _common(one: Sequence[int], other: Sequence[int], limit: int) -> int:
    return next((place for place in range(limit) if one[place] != other[place]), limit)
