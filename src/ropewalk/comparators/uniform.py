"""One factor for all layers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from ropewalk.comparators.base import Comparator
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors
from ropewalk.layers import decoder_layers
from ropewalk.options import option
from ropewalk.patch import patched, rotary_layers


@dataclass(frozen=True)
class Options:
    """Which factor."""

    factor: float = option(1.1, "The factor: positions are divided by it.")


class Uniform(Comparator):
    """Position interpolation in every layer alike: angle = (p / s)·θ_i.

    Source: position interpolation, arXiv 2306.15595, equation 4 (there s = new length / trained length); the uniform
    control of arXiv 2503.04355. Cost: one forward pass, nothing else. The engine can run it.
    """

    name: ClassVar[str] = "uniform"
    summary: ClassVar[str] = "one scaling factor for all layers (position interpolation)"
    OPTIONS: ClassVar[type] = Options
    MAIN: ClassVar[str | None] = "factor"
    engine: ClassVar[bool] = True
    IDENTITY: ClassVar[dict[str, Any]] = {"factor": 1.0}

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        if not 0 < self.options.factor < float("inf"):
            raise DataError(f"comparator uniform: option 'factor' is {self.options.factor}, expected a number above 0")

    def factors(self, model: nn.Module) -> ScalingFactors:
        """The same as scaling factors; null in layers without rotary position."""
        return ScalingFactors.uniform(
            self.options.factor, len(decoder_layers(model)), rotary_layers=rotary_layers(model)
        )

    def installed(self, model: nn.Module) -> AbstractContextManager[None]:
        """The factor in every rotary layer."""
        return patched(model, self.factors(model), any_model=True)


COMPARATOR = Uniform
