"""The search space: what a candidate is, and the one function that turns it into scaling factors."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ropewalk.bezier import Mode
from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors

OFFSET_DECIMALS = 4  # of proposed offsets: finer ones than any model could tell apart


@dataclass(frozen=True)
class Candidate:
    """One proposal: control points (depth, factor), the first one belongs to the first scaled layer.

    offsets: added to the curve, one for each scaled layer, where a method frees single layers; empty for the curve
    alone.
    """

    control_points: tuple[tuple[float, float], ...]
    offsets: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As stored in the study."""
        points = [list(point) for point in self.control_points]
        return {"control_points": points} | ({"offsets": list(self.offsets)} if self.offsets else {})

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        points = tuple((float(x), float(y)) for x, y in document["control_points"])
        return cls(points, tuple(float(offset) for offset in document.get("offsets", ())))


@dataclass(frozen=True)
class SearchSpace:
    """Curves over the rotary layers of one model.

    num_layers: layers of the model; rotary_layers: those with rotary position (None: all). skip_first: rotary layers
    left at factor 1 from the front. num_points: control points. low, high, step: bounds and grid of the factors; the
    grid contains 1 exactly, for the identity is always a candidate. mode: how the curve is read (`ropewalk.bezier`).
    """

    num_layers: int
    rotary_layers: tuple[int, ...] | None = None
    skip_first: int = 0
    num_points: int = 4
    low: float = 0.8
    high: float = 1.3
    step: float = 0.05
    mode: Mode = "depth"

    def __post_init__(self) -> None:
        if self.num_points < 2:
            raise RopewalkError(f"{self.num_points} control points: a curve needs at least 2")
        if not 0 < self.low <= 1 <= self.high < math.inf or not 0 < self.step < math.inf:
            raise RopewalkError(
                f"factors from {self.low} to {self.high} in steps of {self.step}: expected 0 < low <= 1 <= high "
                "and step > 0 (factor 1, the model as it is, must be possible)"
            )
        if self.low < self.high and len(self.grid()) == 1:
            raise RopewalkError(
                f"a step of {self.step} leaves no factor but 1 between {self.low} and {self.high}: "
                "give a smaller --step"
            )
        self.factors(self.identity())

    @cached_property
    def scaled_layers(self) -> tuple[int, ...]:
        """The layers that get a factor, from the front."""
        return self.given_layers[self.skip_first :]

    @property
    def given_layers(self) -> tuple[int, ...]:
        """The layers with rotary position, those included that keep factor 1."""
        return tuple(range(self.num_layers)) if self.rotary_layers is None else self.rotary_layers

    def factors(self, candidate: Candidate) -> ScalingFactors:
        """The factors of a candidate: the only place where proposals become factors.

        Curve plus offsets is cut off at the bounds; a curve alone never leaves those of its control points.
        """
        return _factors(self, candidate)

    def identity(self) -> Candidate:
        """The model as it is: all factors exactly 1."""
        return self.level(1.0)

    def level(self, factor: float) -> Candidate:
        """The flat curve: evenly spread x, the same factor everywhere."""
        return Candidate(tuple((float(x), float(factor)) for x in np.linspace(0, 1, self.num_points)))

    def layerwise(self, factors: ArrayLike) -> Candidate:
        """The candidate with these factors in the scaled layers, [scaled layers]: offsets from the flat curve."""
        offsets = np.round(np.asarray(factors, dtype=np.float64) - 1.0, OFFSET_DECIMALS)
        return Candidate(self.identity().control_points, tuple(float(offset) + 0.0 for offset in offsets))

    def free(self, factors: ScalingFactors) -> Candidate:
        """The candidate with the factors of a file. Raises `RopewalkError` where a layer that is left alone has one."""
        kept = [layer for layer in self.given_layers[: self.skip_first] if factors[layer] != 1.0]
        if kept:
            raise RopewalkError(f"layers {kept} have a factor, and the search leaves them alone (--skip-first)")
        return self.layerwise([factors[layer] or 1.0 for layer in self.scaled_layers])

    def grid(self) -> NDArray[np.float64]:
        """The factors a control point may have: 1 plus whole steps, within [low, high]."""
        below = int(np.floor((1 - self.low) / self.step + 1e-9))
        above = int(np.floor((self.high - 1) / self.step + 1e-9))
        return np.asarray(np.round(1 + self.step * np.arange(-below, above + 1), 10))

    def settings(self) -> dict[str, Any]:
        """As JSON, for the study."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


@lru_cache(maxsize=4096)  # a method, the ledger and the screen ask for the same candidate again and again
def _factors(space: SearchSpace, candidate: Candidate) -> ScalingFactors:
    factors = ScalingFactors.from_bezier(
        candidate.control_points,
        space.num_layers,
        mode=space.mode,
        rotary_layers=space.rotary_layers,
        skip_first=space.skip_first,
    )
    if not candidate.offsets:
        return factors
    if len(candidate.offsets) != len(space.scaled_layers):
        raise RopewalkError(f"{len(candidate.offsets)} offsets for {len(space.scaled_layers)} scaled layers")
    values = list(factors.values)
    for layer, offset in zip(space.scaled_layers, candidate.offsets, strict=True):
        values[layer] = float(np.clip((values[layer] or 1.0) + offset, space.low, space.high))
    return ScalingFactors(tuple(values))
