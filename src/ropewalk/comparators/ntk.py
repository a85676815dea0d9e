"""NTK-aware scaling: another base."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from ropewalk.comparators.base import Comparator, at_least
from ropewalk.comparators.parts.frequencies import frequencies, frequencies_of, plain_rotary, plain_rotary_refusal
from ropewalk.options import option


@dataclass(frozen=True)
class Options:
    """How much."""

    factor: float = option(2.0, "By how much the slowest frequency falls, from 1 on.")


class Ntk(Comparator):
    """A larger base: b' = b·s^(d/(d−2)), angle = p·b'^(−2i/d), d rotary dimensions.

    The fastest frequency stays, the slowest is divided by s. Fixed, not by the length ("dynamic").
    Source: "NTK-aware" interpolation, as in YaRN, arXiv 2309.00071, section 3.1 (definition 1). Cost: one forward pass,
    nothing else. The engine can run it.
    """

    name: ClassVar[str] = "ntk"
    summary: ClassVar[str] = "a larger rotary base (NTK-aware scaling)"
    OPTIONS: ClassVar[type] = Options
    MAIN: ClassVar[str | None] = "factor"
    engine: ClassVar[bool] = True
    IDENTITY: ClassVar[dict[str, Any]] = {"factor": 1.0}

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        at_least(self.name, 1.0, factor=self.options.factor)

    def refusal(self, model: nn.Module) -> str | None:
        """Anything but one plain rotary module."""
        reason = plain_rotary_refusal(model)
        if reason is None and plain_rotary(model)[2] < 4:
            return "it rotates two dimensions only, and the formula needs four"
        return reason

    def installed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Frequencies of the larger base."""
        _, base, dimensions = plain_rotary(model)
        raised = base * self.options.factor ** (dimensions / (dimensions - 2))
        return frequencies(model, frequencies_of(raised, dimensions), 1.0, {"rope_theta": raised})


COMPARATOR = Ntk
