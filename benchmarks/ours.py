"""Our engine, as the benchmarks call it, and the FLOPs that its plan for some prompts and candidates executes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flops import Attention, Shape, candidate_groups, executed_flops, row_segments
from ropewalk.engine.rows import pack
from ropewalk.engine.scorer import Scorer
from ropewalk.factors import ScalingFactors


@dataclass(frozen=True)
class Executed:
    """FLOPs of one call of `Scorer.score`. token_share: prompt tokens computed over prompt tokens there are.

    layer_share: layers computed over candidates times layers (what candidates have in common counts once).
    """

    flops: int
    token_share: float
    layer_share: float


def executed(scorer: Scorer, candidates: Sequence[ScalingFactors], attention: Attention = "causal") -> Executed:
    """What `scorer.score(candidates)` computes. Read off the scorer's own plan, so call it after the first score."""
    prompts, shape = scorer.prompts, Shape.of(scorer.model.config)
    plan: Any = scorer._loop  # the plan is the engine's own affair; nothing but this counting needs it
    rows = pack(prompts, 0, share=False) if plan is None else plan.rows
    segments = [segment for row in rows for segment in row_segments(row, prompts)]
    chosen = sorted(factors.values for factors in candidates)
    width = 1 if plan is None else plan.widest()
    parts = [candidate_groups(chosen[start : start + width]) for start in range(0, len(chosen), width)]
    computed = sum(segment.stop - segment.start for segment in segments)
    return Executed(
        sum(executed_flops(shape, segments, part, attention=attention) for part in parts),
        computed / sum(len(prompt.ids) for prompt in prompts),
        sum(map(sum, parts)) / (len(chosen) * shape.layers),
    )


__all__ = ["Executed", "Scorer", "executed"]
