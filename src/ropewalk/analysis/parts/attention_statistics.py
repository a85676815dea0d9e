"""What one layer's attention looks at, streamed over blocks of queries: no matrix of all queries and keys is ever made.

Working memory beside queries, keys and values: a few tensors of H·b·T numbers for a block of b = `block_size(H, T)`
queries, so of at most `BLOCK_NUMBERS` numbers on a CPU and `GPU_BLOCK_NUMBERS` on a GPU, or of H·T where one query
alone needs more.

Shapes: H query heads, K key heads (K divides H), T tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK_NUMBERS = 1 << 20  # 4 MiB a tensor; on one core four times as many are 1.6 times as slow, a quarter 1.1 times
GPU_BLOCK_NUMBERS = 1 << 26  # 256 MiB

Rows = Callable[[int, int], Tensor]  # (start, stop) -> bool [stop - start, T], True where these queries may look


@dataclass(frozen=True)
class LayerAttention:
    """One layer's attention on one prompt, means over its heads.

    entropy: float64 [T], nats, of each query's weights. thirds: float64 [T, 3], the weight on the first, middle and
    last third of the tokens up to the query, itself included; key j of query i belongs to third 3·j // (i + 1). first:
    float64 [T], the weight on the very first token, which is part of the first third: many heads rest there.
    scores: float64 [distances], mean scaled q·k (after rotation and any soft cap) of the pairs in each class of
    `distance_starts`, NaN where there is none. The first key is left out of the scores. pairs: int64, how many.
    """

    entropy: NDArray[np.float64]
    thirds: NDArray[np.float64]
    first: NDArray[np.float64]
    scores: NDArray[np.float64]
    pairs: NDArray[np.int64]


def block_size(heads: int, tokens: int, *, gpu: bool = False) -> int:
    """Queries at a time."""
    return max(1, (GPU_BLOCK_NUMBERS if gpu else BLOCK_NUMBERS) // (heads * tokens))


def distance_starts(tokens: int) -> NDArray[np.int64]:
    """Where the classes of distance begin, in tokens: 0 (the token itself), then half octaves from 1 on, as far as a
    prompt of `tokens` reaches.
    """
    octaves = np.arange(2 * int(np.log2(max(2, tokens))) + 2) / 2
    starts = np.unique(np.round(2**octaves).astype(np.int64))
    return np.concatenate([[0], starts[starts < max(2, tokens)]])


def attend(
    q: Tensor, k: Tensor, v: Tensor, rows: Rows, scale: float, cap: float | None
) -> tuple[Tensor, LayerAttention]:
    """softmax(scale · q kᵀ) v, [H, T, D], and what it looks at.

    q: [H, T, D]; k, v: [K, T, D]. rows: which keys a block of queries sees. cap: scores bent by cap · tanh(s / cap), as
    in Gemma 2. Half precision is computed in float32.
    """
    precise = q.dtype if q.dtype == torch.float64 else torch.float32
    heads, tokens, size = q.shape
    groups = heads // k.shape[0]
    queries = q.to(precise).view(k.shape[0], groups, tokens, size)
    keys, values = k.to(precise), v.to(precise)
    out = q.new_empty(heads, tokens, v.shape[-1])
    tally = _Tally(tokens, q.device)
    block = block_size(heads, tokens, gpu=q.device.type != "cpu")
    for start in range(0, tokens, block):
        stop = min(tokens, start + block)
        seen = rows(start, stop)
        low, high = _reach(seen)
        seen = seen[:, low:high]
        folded = queries[:, :, start:stop].reshape(k.shape[0], -1, size)
        scores = torch.bmm(folded, keys[:, low:high].transpose(1, 2)).mul_(scale)
        if cap is not None:
            scores = scores.div_(cap).tanh_().mul_(cap)
        scores = scores.view(heads, stop - start, high - low)
        tally.add_scores(scores, seen, start, low)
        scores.masked_fill_(~seen, float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        del scores
        tally.add_weights(weights, start, low)
        mixed = torch.bmm(weights.view(k.shape[0], -1, high - low), values[:, low:high])
        out[:, start:stop] = mixed.view(heads, stop - start, -1)
    return out, tally.result()


def _reach(seen: Tensor) -> tuple[int, int]:
    """The first key that a block looks at, and the one behind the last."""
    places = seen.any(dim=0).nonzero()
    return int(places[0]), int(places[-1]) + 1


class _Tally:
    """The statistics of the blocks so far."""

    def __init__(self, tokens: int, device: torch.device) -> None:
        starts = torch.from_numpy(distance_starts(tokens))
        self._classes = torch.bucketize(torch.arange(tokens), starts, right=True).sub_(1).to(device)  # of each distance
        self._count = len(starts) + 1  # the last one is for pairs that don't count
        self._sums = torch.zeros(self._count, dtype=torch.float64, device=device)
        self._pairs = torch.zeros(self._count, dtype=torch.int64, device=device)
        self._entropy = torch.empty(tokens, dtype=torch.float64, device=device)
        self._thirds = torch.empty(tokens, 3, dtype=torch.float64, device=device)
        self._first = torch.zeros(tokens, dtype=torch.float64, device=device)

    def add_scores(self, scores: Tensor, seen: Tensor, start: int, low: int) -> None:
        """scores: [H, b, keys] of the queries from `start` and the keys from `low` on."""
        queries, keys = self._places(scores, start, low)
        counted = seen & (keys > 0)
        classes = self._classes[(queries - keys).clamp_(min=0)].masked_fill_(~counted, self._count - 1).flatten()
        self._sums += torch.bincount(classes, scores.mean(dim=0).double().flatten(), self._count)
        self._pairs += torch.bincount(classes, minlength=self._count)

    def add_weights(self, weights: Tensor, start: int, low: int) -> None:
        """weights: [H, b, keys], each row sums to 1."""
        rows = slice(start, start + weights.shape[1])
        self._entropy[rows] = torch.special.entr(weights).sum(dim=-1).mean(dim=0).double()
        mean = weights.mean(dim=0)
        until = torch.nn.functional.pad(mean.cumsum(dim=-1, dtype=torch.float64), (1, 0))  # weight before each key
        visible = torch.arange(start + 1, start + 1 + weights.shape[1], device=weights.device)
        ends = torch.stack([-(-visible * third // 3) for third in range(4)], dim=-1) - low  # thirds begin and end there
        self._thirds[rows] = until.gather(1, ends.clamp_(0, weights.shape[2])).diff(dim=-1)
        if low == 0:
            self._first[rows] = mean[:, 0].double()

    def result(self) -> LayerAttention:
        """All of it, on the host."""
        sums, pairs = (values.cpu().numpy()[:-1] for values in (self._sums, self._pairs))
        with np.errstate(invalid="ignore"):
            scores = sums / pairs
        entropy, thirds, first = (values.cpu().numpy() for values in (self._entropy, self._thirds, self._first))
        return LayerAttention(entropy, thirds, first, scores, pairs)

    @staticmethod
    def _places(block: Tensor, start: int, low: int) -> tuple[Tensor, Tensor]:
        """The places of a block's queries [b, 1] and keys [1, keys]."""
        queries = torch.arange(start, start + block.shape[1], device=block.device)
        keys = torch.arange(low, low + block.shape[2], device=block.device)
        return queries[:, None], keys[None]
