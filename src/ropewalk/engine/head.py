"""The output layer at the scored places alone, in float32, a few places at a time: bf16 logits tie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LOGITS_BYTES = 2**30
"""Logits that exist at one time; more places are done in parts. The CPU does better with parts that stay in cache."""
CPU_LOGITS_BYTES = 2**26


@dataclass(frozen=True)
class TokenStats:
    """What is kept of each place's logits, [places]: the most likely token, its lead over the second, and the natural
    log-probability of the token that is asked for.
    """

    greedy: Tensor
    margin: Tensor
    log_probability: Tensor


class Head:
    """The output layer of a model with a plain Linear one. cap: the model's soft cap of its logits."""

    def __init__(self, linear: nn.Linear, cap: float | None = None) -> None:
        self._linear, self._cap = linear, cap
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Keep the weights in float32 for a while: converting them costs more than a few places' logits.

        On CUDA products of 16-bit numbers can be added up and given in float32 as they are, and no copy is needed.
        Weights that are split over processes are put together for that while.
        """
        weight, bias = whole(self._linear.weight), whole(self._linear.bias)
        exact = weight.dtype in (torch.float32, torch.float64) or (weight.is_cuda and bias is None)
        self._weight = weight if exact else weight.float()
        self._bias = bias if bias is None or exact else bias.float()
        try:
            yield
        finally:
            self._weight = self._bias = None

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 (float64 for a float64 model) [places, vocabulary] of hidden states [places, hidden]."""
        if self._weight is None:
            raise RuntimeError("Head.logits outside of Head.in_float32")
        if self._weight.dtype == hidden.dtype and hidden.dtype.itemsize == 2:
            logits = torch.mm(hidden, self._weight.t(), out_dtype=torch.float32)
        else:
            logits = nn.functional.linear(hidden.to(self._weight.dtype), self._weight, self._bias)
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap

    def stats(self, hidden: Tensor, targets: Tensor) -> TokenStats:
        """hidden: [places, hidden]. targets: int64 [places]; where nothing is asked for any token will do."""
        return token_stats(self.logits, hidden, targets, self._linear.out_features)


def whole(weight: Any) -> Any:
    """A weight, put together if each process has a part of it: then all of them have to ask."""
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def token_stats(logits_of: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, vocabulary: int) -> TokenStats:
    """The statistics of the logits that `logits_of` makes of some places at a time."""
    limit = LOGITS_BYTES if hidden.is_cuda else CPU_LOGITS_BYTES
    at_once = max(1, limit // (4 * vocabulary))
    parts = [
        _stats(logits_of(some), wanted)
        for some, wanted in zip(torch.split(hidden, at_once), torch.split(targets, at_once), strict=True)
    ]
    return TokenStats(*(torch.cat([getattr(part, name) for part in parts]) for name in TokenStats.__dataclass_fields__))


def _stats(logits: Tensor, targets: Tensor) -> TokenStats:
    best = logits.topk(2, dim=-1)
    chosen = logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)
    return TokenStats(best.indices[:, 0], best.values[:, 0] - best.values[:, 1], chosen)
