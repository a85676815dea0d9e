"""What a person edits: a Bézier curve over the rotary layers, and single layers that were taken off it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ropewalk.bezier import Mode, check_control_points, curve_factors, fit_curve
from ropewalk.errors import FactorsError
from ropewalk.factors import ScalingFactors

LOW, HIGH = 0.5, 2.0  # of what the page lets a handle reach; a file may hold other factors
MOST_POINTS = 12
FIELDS = ("control_points", "mode", "skip_first", "layers")


@dataclass(frozen=True)
class Shape:
    """The layers that factors are for: how many the model has, and which of them have rotary position."""

    num_layers: int
    rotary_layers: tuple[int, ...]

    @property
    def given(self) -> tuple[int, ...] | None:
        """As `ScalingFactors.from_bezier` takes them: None for all layers."""
        return None if len(self.rotary_layers) == self.num_layers else self.rotary_layers


@dataclass(frozen=True)
class Draft:
    """A curve and the layers that stand off it.

    control_points: (depth, factor), P0 belongs to the first scaled layer. mode, skip_first: how the curve is read
    (`ropewalk.bezier`). layers: by index the factor of each layer that is off the curve.
    """

    control_points: tuple[tuple[float, float], ...]
    mode: Mode = "depth"
    skip_first: int = 0
    layers: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def level(cls, factor: float = 1.0) -> Self:
        """The same factor everywhere, on four control points."""
        return cls(tuple((float(x), factor) for x in np.linspace(0.0, 1.0, 4)))

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """The inverse of `to_json`, for what a browser sent. Raises `FactorsError` for anything else."""
        if not isinstance(document, Mapping) or set(document) != set(FIELDS):
            raise FactorsError(f"a curve of the studio has the fields {', '.join(FIELDS)}, got {_short(document)}")
        mode, skip, layers = document["mode"], document["skip_first"], document["layers"]
        points = check_control_points(document["control_points"], mode)
        if len(points) > MOST_POINTS:
            raise FactorsError(f"{len(points)} control points, the studio takes at most {MOST_POINTS}")
        if isinstance(skip, bool) or not isinstance(skip, int) or skip < 0:
            raise FactorsError(f"skip_first is {_short(skip)}, expected a whole number from 0")
        if not isinstance(layers, Mapping):
            raise FactorsError(f"layers: expected an object of factors by layer, got {_short(layers)}")
        return cls(
            tuple((float(x), float(y)) for x, y in points), mode, skip, dict(sorted(map(_layer, layers.items())))
        )

    def to_json(self) -> dict[str, Any]:
        """As the page and the session have it."""
        return {
            "control_points": [list(point) for point in self.control_points],
            "mode": self.mode,
            "skip_first": self.skip_first,
            "layers": {str(layer): factor for layer, factor in self.layers.items()},
        }

    def factors(self, shape: Shape) -> ScalingFactors:
        """The factors: those of `ScalingFactors.from_bezier` with the layers off the curve in their places."""
        on_curve = ScalingFactors.from_bezier(
            self.control_points,
            shape.num_layers,
            mode=self.mode,
            rotary_layers=shape.given,
            skip_first=self.skip_first,
        )
        values = list(on_curve.values)
        for layer, factor in self.layers.items():
            if layer not in shape.rotary_layers:
                raise FactorsError(f"layer {layer} takes no factor; those that do: {_short(shape.rotary_layers)}")
            values[layer] = factor
        return ScalingFactors(values)


def drafted(
    values: Sequence[float | None],
    shape: Shape,
    control_points: Sequence[Sequence[float]] | None = None,
    mode: Mode = "depth",
    skip_first: int = 0,
) -> Draft:
    """A draft with exactly these factors: their curve where it is known, else the nearest one, and the layers off it.

    control_points, mode, skip_first: the curve that they were found with, if any. Raises `FactorsError` for factors
    of another number of layers, or with null in other places.
    """
    if len(values) != shape.num_layers:
        raise FactorsError(f"{len(values)} factors for a model of {shape.num_layers} layers: give one a layer")
    there = tuple(layer for layer, value in enumerate(values) if value is not None)
    if there != shape.rotary_layers:
        raise FactorsError(
            f"factors in the layers {_short(there)}, expected them in those with rotary position: "
            f"{_short(shape.rotary_layers)} (null in all others)"
        )
    points = _usable(control_points, mode)
    if points is None:
        skip_first, mode = 0, "depth"
        fitted = fit_curve([value for value in values if value is not None]).control_points
        points = tuple((float(x), float(y)) for x, y in fitted)
    curve = curve_factors(points, len(there) - skip_first, mode).tolist()
    on_curve = dict(zip(there, [1.0] * skip_first + curve, strict=True))
    off = {layer: value for layer in there if (value := values[layer]) is not None and value != on_curve[layer]}
    return Draft(points, mode, skip_first, off)


def _usable(control_points: Sequence[Sequence[float]] | None, mode: Mode) -> tuple[tuple[float, float], ...] | None:
    """The points, unless there are none, too many, or a flat line at 1 that free layers were measured from."""
    if not control_points or len(control_points) > MOST_POINTS:
        return None
    points = check_control_points(control_points, mode)
    return None if (points[:, 1] == 1.0).all() else tuple((float(x), float(y)) for x, y in points)


def _layer(entry: tuple[Any, Any]) -> tuple[int, float]:
    name, factor = entry
    if not (isinstance(name, str) and name.isascii() and name.isdigit() and len(name) < 6):
        raise FactorsError(f"layers: {_short(name)} is no index of a layer")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        raise FactorsError(f"factor of layer {name} is {_short(factor)}, expected a finite number > 0")
    return int(name), float(factor)


def _short(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 120 else f"{text[:117]}..."
