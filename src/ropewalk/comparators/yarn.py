"""YaRN: slow frequencies interpolated, fast ones kept, attention sharpened."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ropewalk.comparators.base import Comparator, at_least
from ropewalk.comparators.parts.frequencies import frequencies, frequencies_of, plain_rotary, plain_rotary_refusal
from ropewalk.errors import DataError
from ropewalk.layers import text_config
from ropewalk.options import option

Ramp = Literal["dimensions", "rotations"]


@dataclass(frozen=True)
class Options:
    """How much, and between which frequencies."""

    factor: float = option(2.0, "New length over trained length, from 1 on.")
    beta_fast: float = option(32.0, "Pairs that turn more often than this within the trained length stay (paper: β).")
    beta_slow: float = option(1.0, "Pairs that turn less often than this are divided by the factor (paper: α).")
    ramp: Ramp = option(
        "dimensions",
        "What is linear between the two: the pair's index (released code, transformers), or its rotations.",
    )
    trained_length: int | None = option(None, "Tokens that the model was trained on; default: its config's maximum.")


class Yarn(Comparator):
    """θ_i' = (1 − γ_i)·θ_i / s + γ_i·θ_i, and cos and sin times 0.1·ln(s) + 1.

    r_i = L·θ_i / 2π rotations within the trained length L. γ is 0 up to α rotations and 1 from β on. Between them the
    paper is linear in r ("rotations"); the released code, and with it transformers, is linear in the pair's index,
    between the rounded indices of the pairs with β and α rotations ("dimensions", what models are served with).
    Source: arXiv 2309.00071, section 3.2 (definition 2) and 3.4 (definition 3; there sqrt(1/t) = 0.1·ln(s) + 1 on q and
    k). Cost: one forward pass, nothing else. The engine can run it.
    """

    name: ClassVar[str] = "yarn"
    summary: ClassVar[str] = "slow frequencies interpolated, fast ones kept (YaRN)"
    OPTIONS: ClassVar[type] = Options
    MAIN: ClassVar[str | None] = "factor"
    engine: ClassVar[bool] = True
    IDENTITY: ClassVar[dict[str, Any]] = {"factor": 1.0}

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        at_least(self.name, 1.0, factor=self.options.factor, trained_length=self.options.trained_length or 1)
        slow, fast = self.options.beta_slow, self.options.beta_fast
        if not 0 < slow < fast < math.inf:
            raise DataError(
                f"comparator yarn: beta_slow {slow} and beta_fast {fast}, expected 0 < beta_slow < beta_fast"
            )

    def refusal(self, model: nn.Module) -> str | None:
        """Anything but one plain rotary module."""
        return plain_rotary_refusal(model)

    def installed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Blended frequencies, and the factor on cos and sin."""
        _, base, dimensions = plain_rotary(model)
        factor = self.options.factor
        length = self.options.trained_length or int(text_config(model).max_position_embeddings)
        kept = self._kept(base, dimensions, length)
        plain = frequencies_of(base, dimensions)
        said = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": length}
        said |= {"beta_fast": self.options.beta_fast, "beta_slow": self.options.beta_slow}
        return frequencies(model, (1 - kept) * plain / factor + kept * plain, 0.1 * math.log(factor) + 1, said)

    def _kept(self, base: float, dimensions: int, length: int) -> Tensor:
        """float64 [dimensions / 2]: γ."""
        slow, fast = self.options.beta_slow, self.options.beta_fast
        if self.options.ramp == "rotations":
            rotations = length * frequencies_of(base, dimensions) / (2 * math.pi)
            share: Tensor = ((rotations - slow) / (fast - slow)).clamp(0, 1)
            return share

        def index(rotations: float) -> float:
            """Of the pair that turns this often."""
            return dimensions * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(base))

        low = max(math.floor(index(fast)), 0)
        high = float(min(math.ceil(index(slow)), dimensions - 1))
        high = high + 0.001 if high == low else high  # as released: no division by zero
        pairs = torch.arange(dimensions // 2, dtype=torch.float64)
        return 1 - ((pairs - low) / (high - low)).clamp(0, 1)


COMPARATOR = Yarn
