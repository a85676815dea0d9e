"""Self-Extend: near keys at their true distance, far ones at grouped distances."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ropewalk.comparators.base import Comparator, at_least
from ropewalk.comparators.parts.attention import Call, attention_refusal, masked, own_attention, rotated, scores
from ropewalk.options import option

BLOCK = 256  # queries that are scored at a time: scores of all of them would be T × T numbers a head


@dataclass(frozen=True)
class Options:
    """Group size and window."""

    group: int = option(8, "Neighbouring far tokens that share a position.")
    window: int = option(1024, "Keys nearer than this keep their true distance.")


class SelfExtend(Comparator):
    """Distance of query p_q and key p_k: p_q − p_k below w, else p_q // G + w − w // G − p_k // G.

    Source: arXiv 2401.01325, section 3 and algorithm 1; the released code's defaults (G 8, w 1024). Prompts shorter
    than w come out as vanilla's. Cost: one forward pass with twice the scores: queries and keys are rotated and
    multiplied for both kinds of distance, without a fused kernel, 256 queries at a time; keys, cached unrotated, are
    rotated again at every step. GQA: rotation is the same for all heads. The engine can't run it: `model.forward` and
    `generate` do.
    """

    name: ClassVar[str] = "self-extend"
    summary: ClassVar[str] = "grouped positions for far keys, true ones for near keys (Self-Extend)"
    OPTIONS: ClassVar[type] = Options
    MAIN: ClassVar[str | None] = "group"
    IDENTITY: ClassVar[dict[str, Any]] = {"group": 1}

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        at_least(self.name, 1, group=self.options.group, window=self.options.window)

    def refusal(self, model: nn.Module) -> str | None:
        """Families with another attention, sliding windows, and frequencies that follow the length."""
        return attention_refusal(model)

    def installed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Its own attention in every layer."""
        return own_attention(model, self._attended)

    def _attended(self, call: Call) -> Tensor:
        group, window = self.options.group, self.options.window
        shift = window - window // group
        near_query = rotated(call, call.query, call.query_positions)
        near_key = rotated(call, call.key, call.key_positions)
        far_query = rotated(call, call.query, call.query_positions // group + shift)
        far_key = rotated(call, call.key, call.key_positions // group)
        blocks = []
        for start in range(0, call.query.shape[-2], BLOCK):
            rows = slice(start, start + BLOCK)
            distance = call.query_positions[:, rows, None] - call.key_positions[:, None]
            near = scores(call, near_query[:, :, rows], near_key)
            far = scores(call, far_query[:, :, rows], far_key)
            chosen = torch.where((distance < window)[:, None], near, far)
            weights = masked(call, chosen, rows).softmax(dim=-1)
            blocks.append(weights.to(call.value.dtype) @ call.value)
        return torch.cat(blocks, dim=-2)


COMPARATOR = SelfExtend
