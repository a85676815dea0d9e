"""Factors on a grid, so that layers agree: an engine with a table a distinct factor then keeps fewer of them."""

from __future__ import annotations

import math
from typing import Any

from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.layers import rotary_sites

TABLE_BYTES = 2  # a cosine or sine in bfloat16
DIGITS = 12  # of a rounded factor: 0.95, not 0.9500000000000001


def check_grid(grid: float | None) -> None:
    """Raise `RopewalkError` if the grid is not a number above 0."""
    if grid is not None and not 0 < grid < math.inf:
        raise RopewalkError(f"--round is {grid}, expected a number above 0 such as 0.01")


def rounded(factors: ScalingFactors, grid: float | None) -> ScalingFactors:
    """The factors at the nearest multiples of `grid`, at least one step; the same ones without a grid.

    Factors that move are others: what a test found of the old ones is left behind, and their digest is kept.
    """
    check_grid(grid)
    if grid is None:
        return factors
    values = [None if v is None else round(max(1, round(v / grid)) * grid, DIGITS) for v in factors.values]
    if tuple(values) == factors.values:
        return factors
    found: dict[str, Any] = {name: kept for name, kept in factors.found.items() if name != "test"}
    found["rounded"] = {"to": grid, "of": factors.digest}
    return ScalingFactors(values, model=factors.model, base=factors.base, found=found)


def tables(model: Any, factors: ScalingFactors) -> tuple[int, int]:
    """(tables, bytes) that an engine keeps beside the model's own: one a distinct factor other than 1.

    bytes: in bfloat16, for all positions that the model takes.
    """
    distinct = len({value for value in factors.values if value not in (None, 1.0)})
    config = model.config.get_text_config()
    length = int(getattr(config, "max_position_embeddings", 0) or 0)
    sizes = [buffer.numel() for site in rotary_sites(model) for buffer in site.module.buffers()]
    return distinct, distinct * 2 * max(sizes, default=0) * length * TABLE_BYTES
