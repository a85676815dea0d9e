"""Factors that reach some of the rotary pairs only: the slow ones or the fast ones.

A rotary pair i turns by p·θ_i. With a factor s it turns by (p / s)·θ_i; here a pair that is not chosen keeps p·θ_i. The
tables are those of the model's own rotary module at p / s and at p, put together column by column, so every rope type
is the model's own, and all pairs chosen give what `apply` gives. For analysis alone: it needs `model.forward`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ropewalk.errors import UnsupportedModelError
from ropewalk.factors import ScalingFactors
from ropewalk.layers import input_device, text_config, undecorated_forward
from ropewalk.patch import check_factors, unpatched
from ropewalk.rotary import Entry, Installation, LayerwiseRotary

Pairs = Literal["slow", "fast"]


class PairwiseRotary(LayerwiseRotary):
    """`LayerwiseRotary` whose factors reach the pairs of one kind.

    pairs: slow ones turn less than once in `wavelength` tokens, fast ones all others.
    """

    def __init__(self, base: nn.Module, num_layers: int, layer: int | None, pairs: Pairs, wavelength: float) -> None:
        super().__init__(base, num_layers, layer)
        self._pairs, self._slowest = pairs, 2 * math.pi / wavelength

    def _scaled_entries(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Entry]:
        ordinary = self.base(*args, **kwargs)
        slow = frequencies(self, args, kwargs) < self._slowest
        chosen = slow if self._pairs == "slow" else ~slow
        return [
            tuple(torch.where(chosen, new, old) for new, old in zip(entry, ordinary, strict=True))
            for entry in super()._scaled_entries(args, kwargs)
        ]


def frequencies(rotary: LayerwiseRotary, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Radians a token of each column of the tables, float32 [rotary dim]: the angle at position 1.

    So it is known whatever the order of the columns and the rope type. args, kwargs: of a call of the module. Raises
    `UnsupportedModelError` for tables that are not cos and sin.
    """
    given = (args[0].new_empty(0, dtype=torch.float32), *args[1:]) if args else args
    first = torch.ones(1, 1, device=rotary.positions(args, kwargs).device)
    tables = rotary.tables_at(first, given, kwargs)
    if not isinstance(tables, tuple) or len(tables) != 2:
        raise UnsupportedModelError("its rotary module gives no tables cos and sin, so pairs can't be told apart")
    cos, sin = tables
    return torch.atan2(sin.float(), cos.float()).flatten()


@contextmanager
def pairs_scaled(
    model: nn.Module, factors: ScalingFactors, pairs: Pairs, wavelength: float, *, any_model: bool = False
) -> Iterator[None]:
    """The factors on the slow or the fast pairs, for the length of a `with` block; the model as it was afterwards.

    Score it by an evaluator with own_loop=False, without candidates of its own. Raises what `apply` raises.
    """
    check_factors(model, factors, any_model=any_model)
    with unpatched(model):
        installation = Installation(model)
        count = len(installation.layers)
        installation.rotaries = [
            PairwiseRotary(site.module, count, site.layer, pairs, wavelength) for site in installation.sites
        ]
        installation.set_factors(factors.values)
        installation.install()
        try:
            yield
        finally:
            installation.uninstall()


def rotary_frequencies(model: nn.Module) -> list[float]:
    """Radians a token of the rotary pairs, the fastest first, each once; of all rotary modules and layer types."""
    layer_types = set(getattr(text_config(model), "layer_types", None) or ())
    found: set[float] = set()
    with unpatched(model):
        for rotary in Installation(model).rotaries:
            position = torch.ones(1, 1, dtype=torch.long, device=input_device(model))
            asks = "layer_type" in inspect.signature(undecorated_forward(rotary.base)).parameters
            for more in [{"layer_type": kind} for kind in layer_types] if asks else [{}]:
                like = torch.empty(0, device=position.device)
                found |= set(frequencies(rotary, (like, position), more).tolist())
    return sorted(found, reverse=True)
