"""The common rotary module's tables in fewer operations than its own forward takes, where both agree to the bit.

For one token at a time on a fast device the host is what takes time, operation by operation: copies, casts to the type
that is there already and products with a scaling of 1 count then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

PROBES = torch.cat([torch.arange(64), torch.arange(64, 262_144, 4_093)]).float().view(1, -1) / 1.17


def tables(base: Any, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cos and sin of position · inv_freq, each half of a head's size twice, [*positions.shape, rotary_dim] in dtype.

    base: a module that `agrees`. positions: float32.
    """
    inv_freq, scaling = base.inv_freq.to(device=positions.device, dtype=torch.float32), base.attention_scaling
    angles = positions.unsqueeze(-1) * torch.cat((inv_freq, inv_freq))
    cos, sin = angles.cos(), angles.sin()
    if scaling != 1:
        cos, sin = cos * scaling, sin * scaling
    return cos.to(dtype), sin.to(dtype)


def agrees(base: nn.Module, forward: Callable[..., Any]) -> bool:
    """Whether `forward(base, x, position_ids)` gives these tables, tried at fractional positions up to 224,000."""
    inv_freq = getattr(base, "inv_freq", None)
    if list(inspect.signature(forward).parameters) != ["self", "x", "position_ids"] or not isinstance(inv_freq, Tensor):
        return False
    if inv_freq.dim() != 1 or inv_freq.is_meta or "_hf_hook" in base.__dict__:
        return False
    positions = PROBES.to(inv_freq.device)
    for dtype in (torch.float32, torch.bfloat16):
        given = forward(base, torch.empty(0, dtype=dtype, device=inv_freq.device), positions)
        own = tables(base, positions, dtype) if hasattr(base, "attention_scaling") else ()
        if not isinstance(given, tuple) or len(given) != len(own) or not all(map(_equal, given, own)):
            return False
    return True


def _equal(one: Any, other: Tensor) -> bool:
    return isinstance(one, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
