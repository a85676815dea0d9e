"""Attention Buckets: the same prompt under several rotary bases, predictions combined."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ropewalk.comparators.base import Comparator
from ropewalk.comparators.parts.attention import at_least_float32
from ropewalk.comparators.parts.frequencies import frequencies_of, plain_rotary, plain_rotary_refusal
from ropewalk.errors import DataError, RopewalkError
from ropewalk.options import option


@dataclass(frozen=True)
class Options:
    """Which bases, and how predictions are combined."""

    multiples: str = option(
        "1+1.75+1.8+1.9+2+2.5", "Bases as multiples of the model's own, joined by +; the default is the paper's set."
    )
    combine: Literal["probabilities", "logits"] = option(
        "probabilities", "What is averaged: probabilities (paper), or logits (released code)."
    )


class AttentionBuckets(Comparator):
    """p̂ = Σ_j α_j·p_j over bases b_j, with α = softmax_j(max_v p_j(v)): the surer a pass, the more it weighs.

    "logits" is the released code's: Σ_j α_j·l_j with α = softmax_j(max_v l_j(v)). Weights are chosen at each token.
    The logits that come out are log p̂, or that sum. The paper's bases 10000, 17500, 18000, 19000, 20000 and 25000 are
    for Llama-2, whose own is 10000: here they are multiples of the model's own.
    Source: arXiv 2312.04455, figure 2, and its released code. Cost: N forward passes, at the prompt and at every
    token, done as one pass of N times the rows, with N times the KV cache and the activations. The engine can't run it:
    `model.forward` and `generate` do, greedy or sampling (beams would have to reorder N caches).
    """

    name: ClassVar[str] = "attention-buckets"
    summary: ClassVar[str] = "several rotary bases, predictions weighted by their confidence (Attention Buckets)"
    OPTIONS: ClassVar[type] = Options
    MAIN: ClassVar[str | None] = "multiples"
    IDENTITY: ClassVar[dict[str, Any]] = {"multiples": "1"}

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        try:
            self.multiples = tuple(float(text) for text in self.options.multiples.split("+"))
        except ValueError:
            self.multiples = ()
        if not self.multiples or not all(math.isfinite(value) and value > 0 for value in self.multiples):
            given = self.options.multiples
            raise DataError(
                f"comparator attention-buckets: option 'multiples' is {given!r}, expected numbers above 0 joined by +, "
                "such as 1+1.75+2.5"
            )

    @property
    def passes(self) -> int:
        """One a base."""
        return len(self.multiples)

    @property
    def is_identity(self) -> bool:
        """Whether the model's own base is the only one."""
        return self.multiples == (1.0,)

    def refusal(self, model: nn.Module) -> str | None:
        """Anything but one plain rotary module."""
        return plain_rotary_refusal(model)

    def installed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Tables by row, and a forward that combines."""
        return self._installed(model)

    @contextmanager
    def _installed(self, model: nn.Module) -> Iterator[None]:
        rotary, base, dimensions = plain_rotary(model)
        bases = torch.stack([frequencies_of(base * multiple, dimensions) for multiple in self.multiples])
        # The model's own frequencies where a pass is the model's own.
        own: Tensor = rotary.inv_freq  # type: ignore[assignment]
        passes = bases.to(own.device, torch.float32)
        for index, multiple in enumerate(self.multiples):
            if multiple == 1.0:
                passes[index] = own
        before = [(module, module.__dict__.get("forward")) for module in (rotary, model)]
        try:
            rotary.__dict__["forward"] = functools.partial(_tables, rotary, passes)
            model.__dict__["forward"] = self._combined(model, model.forward)
            yield
        finally:
            for module, forward in before:
                if forward is None:
                    module.__dict__.pop("forward", None)
                else:
                    module.__dict__["forward"] = forward

    def _combined(self, model: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The model's forward: N times the rows in, one prediction a row out."""
        passes = self.passes

        @functools.wraps(forward)
        def several(input_ids: Tensor | None = None, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> Any:
            if args or input_ids is None or kwargs.get("return_dict") is False:
                raise RopewalkError(
                    "attention-buckets takes input_ids and else arguments by name, and gives a ModelOutput; "
                    "call the model so, or generate"
                )
            kwargs = {name: _repeated(value, passes, len(input_ids)) for name, value in kwargs.items()}
            output = forward(input_ids=input_ids.repeat(passes, 1), **kwargs)
            logits = output.logits.unflatten(0, (passes, len(input_ids)))
            output.logits = combined(logits, self.options.combine)
            if labels is not None:
                vocabulary = output.logits.shape[-1]
                output.loss = model.loss_function(logits=output.logits, labels=labels, vocab_size=vocabulary)  # type: ignore[operator]
            return output

        return several


COMPARATOR = AttentionBuckets


def combined(logits: Tensor, combine: str) -> Tensor:
    """[B, T, V] from the passes' logits [N, B, T, V], in their dtype."""
    exact = at_least_float32(logits)
    if combine == "logits":
        weights = exact.amax(dim=-1, keepdim=True).softmax(dim=0)
        return (weights * exact).sum(dim=0).to(logits.dtype)
    each = exact.log_softmax(dim=-1)
    weights = each.amax(dim=-1, keepdim=True).exp().log_softmax(dim=0)
    return (weights + each).logsumexp(dim=0).to(logits.dtype)


def _repeated(value: Any, times: int, rows: int) -> Any:
    """A tensor with a row for each row of the batch, N times over: pass by pass."""
    if isinstance(value, Tensor) and value.dim() > 1 and value.shape[0] == rows:
        return value.repeat(times, *[1] * (value.dim() - 1))
    return value


def _tables(rotary: Any, passes: Tensor, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Tables [N·B, T, rotary_dim], the rows of pass j by its frequencies; passes: float32 [N, rotary_dim / 2]."""
    rows = x.shape[0]
    inv_freq = passes.repeat_interleave(rows // len(passes), dim=0)[:, None]
    angles = position_ids.expand(rows, -1)[..., None].float() * inv_freq
    both = torch.cat((angles, angles), dim=-1)
    return (both.cos() * rotary.attention_scaling).to(x.dtype), (both.sin() * rotary.attention_scaling).to(x.dtype)
