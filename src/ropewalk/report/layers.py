"""The two charts that tell a run: accuracy by gold position, scaling factor by layer. Without size, title or colours.

Arms take their colours in the order of `names`, from the theme's palette.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from ropewalk.bezier import curve_factors, depths
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors

Series = tuple[Sequence[float], Sequence[Sequence[float]]]  # accuracies and their intervals, by position
Rows = list[dict[str, Any]]

POSITION = "gold position (index of the evidence, from 0)"
LAYER = "layer (index, from 0)"
FINE = 8  # points of a drawn curve between one layer and the next


def accuracy_rows(positions: Sequence[int], series: Mapping[str, Series]) -> Rows:
    """A row for each arm and position. Raises `DataError` for lengths that differ and numbers outside [0, 1]."""
    rows: Rows = []
    for name, (accuracy, intervals) in series.items():
        if not len(positions) == len(accuracy) == len(intervals):
            raise DataError(
                f"{name}: {len(accuracy)} accuracies and {len(intervals)} intervals for {len(positions)} positions"
            )
        for position, value, (low, high) in zip(positions, accuracy, intervals, strict=True):
            if not 0 <= low <= high <= 1 or not 0 <= value <= 1:
                raise DataError(f"{name}: accuracy {value} with interval [{low}, {high}], expected numbers in [0, 1]")
            rows.append({"arm": name, "x": int(position), "y": float(value), "low": float(low), "high": float(high)})
    return rows


def accuracy_layers(
    positions: Sequence[int], series: Mapping[str, Series], names: list[str], metric: str, quiet: Sequence[str] = ()
) -> alt.LayerChart:
    """Accuracy in [0, 1] by gold position, with a band for each interval. quiet: arms that stand back: the controls."""
    percent = alt.Axis(labelExpr="round(datum.value * 100)")
    y = alt.Y("y:Q", title=f"{metric} (%)", axis=percent, scale=alt.Scale(domain=[0, 1]))
    layers: list[alt.Chart] = []
    for arms, opacity, dash in ((quiet, 0.05, [5, 3]), ([name for name in series if name not in quiet], 0.13, [1, 0])):
        rows = accuracy_rows(positions, {name: series[name] for name in arms})
        base = alt.Chart(alt.InlineData(values=rows)).encode(x=position_axis(positions), color=arm_colour(names))
        layers += [
            base.mark_area(opacity=opacity).encode(y=alt.Y("low:Q"), y2="high:Q"),
            base.mark_line(strokeWidth=1.3 if arms is quiet else 2, strokeJoin="round", strokeDash=dash).encode(y=y),
            base.mark_point(filled=True, size=64, opacity=1).encode(y=y, shape=arm_shape(names)),
        ]
    return alt.LayerChart(layer=layers if quiet else layers[3:])


def factor_layers(
    factors: Mapping[str, ScalingFactors], names: list[str], shown: list[str] | None = None
) -> alt.LayerChart:
    """Scaling factors by layer; of a curve the control points, and what a second stage added to it.

    shown: arms in the legend; None: all names, where the legend is another chart's too.
    """
    colour, shape = arm_colour(names, shown), arm_shape(names, shown)
    rows: Rows = [
        {"arm": name, "x": layer, "y": value}
        for name, scaling in factors.items()
        for layer, value in enumerate(scaling)
        if value is not None
    ]
    control: Rows = [row for name, scaling in factors.items() for row in control_rows(name, scaling)]
    curves: Rows = [row for name, scaling in factors.items() for row in curve_rows(name, scaling)]
    heights = [row["y"] for row in rows + control + curves] + [1.0]
    grid = round_grid(min(heights), max(heights))
    last = max((scaling.num_layers for scaling in factors.values()), default=1) - 1
    x = alt.X(
        "x:Q",
        title=LAYER,
        axis=alt.Axis(format="d", tickMinStep=1, grid=False),
        scale=alt.Scale(domain=[0, max(last, 1)], padding=12, nice=False),
    )
    y = alt.Y(
        "y:Q",
        title="scaling factor s (position / s)",
        axis=alt.Axis(format=".2f", values=grid),
        scale=alt.Scale(domain=[grid[0], grid[-1]], zero=False, nice=False),
    )
    trained = alt.Chart(alt.InlineData(values=[{"y": 1.0}])).mark_rule(style="rule-soft", strokeDash=[2, 3]).encode(y=y)
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y, color=colour)
    line = base.mark_line(strokeWidth=2, strokeJoin="round")
    points = base.mark_point(filled=True, size=34, opacity=1).encode(shape=shape)
    handles = alt.Chart(alt.InlineData(values=control)).encode(x=x, y=y, color=colour)
    polygon = handles.mark_line(strokeWidth=1, strokeJoin="round", strokeDash=[4, 4], opacity=0.8).encode(
        order="order:O"
    )
    ends = handles.mark_point(style="handle", shape="circle", size=80, strokeWidth=1.5, opacity=1)
    layers: list[alt.Chart] = [trained, polygon, line, points, ends]
    if curves:
        smooth = alt.Chart(alt.InlineData(values=curves)).encode(x=x, y=y, color=colour)
        layers.insert(1, smooth.mark_line(strokeWidth=1.5, strokeJoin="round", opacity=0.6))
    changes: Rows = [row for name, scaling in factors.items() for row in change_rows(name, scaling)]
    if changes:
        moved = alt.Chart(alt.InlineData(values=changes)).encode(x=x, y=y, y2="from:Q", color=colour)
        layers.insert(2, moved.mark_rule(strokeWidth=1.5, opacity=0.7))
    return alt.LayerChart(layer=layers)


def factors_note(factors: Mapping[str, ScalingFactors]) -> str:
    """What the lines and points mean, in a line."""
    control = any(control_rows(name, scaling) for name, scaling in factors.items())
    changed = any(change_rows(name, scaling) for name, scaling in factors.items())
    return (
        ("dashed: control points of the curve; " if control else "")
        + ("bars: what the second stage changed; " if changed else "")
        + "dotted: s = 1, the model as trained"
    )


def position_axis(positions: Sequence[int]) -> alt.X:
    """Gold positions, a tick at each."""
    return alt.X(
        "x:Q",
        title=POSITION,
        axis=alt.Axis(values=[int(p) for p in positions], format="d", grid=False),
        scale=alt.Scale(nice=False, padding=12, zero=False),
    )


def arm_colour(names: list[str], shown: list[str] | None = None) -> alt.Color:
    """The palette's colours in the order of the names. shown: those in the legend, None for all."""
    return alt.Color("arm:N", scale=alt.Scale(domain=names), legend=_legend(shown))


def arm_shape(names: list[str], shown: list[str] | None = None) -> alt.Shape:
    """A shape for each name, in the same legend."""
    return alt.Shape("arm:N", scale=alt.Scale(domain=names), legend=_legend(shown))


def _legend(shown: list[str] | None) -> alt.Legend:
    return alt.Legend(title=None) if shown is None else alt.Legend(title=None, values=shown)


def round_grid(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to above `high`, at most about eight. A tick at the top levels the two titles."""
    step = next((step for step in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / step <= 6), (high - low) / 6)
    first, last = np.floor(low / step - 0.2), np.ceil(high / step + 0.2)
    return [float(value) for value in np.round(np.arange(first, last + 1) * step, 6)]


def control_rows(name: str, scaling: ScalingFactors) -> Rows:
    """The control points at the layers of their depth; none if the factors don't say them, or are free of any curve."""
    points = _control_points(scaling)
    if points is None:
        return []
    layers = _scaled_layers(scaling)
    depth = depths(len(points)) if _space(scaling).get("mode") == "uniform" else points[:, 0]  # there x has no effect
    at = np.interp(depth, depths(len(layers)), layers)
    return [
        {"arm": name, "x": float(x), "y": float(y), "order": order}
        for order, (x, y) in enumerate(zip(at, points[:, 1], strict=True))
    ]


def curve_rows(name: str, scaling: ScalingFactors) -> Rows:
    """The curve of the control points, finer than the layers; none where there are no control points."""
    points = _control_points(scaling)
    if points is None:
        return []
    layers = _scaled_layers(scaling)
    count = FINE * (len(layers) - 1) + 1
    heights = curve_factors(points, count, _space(scaling).get("mode", "depth"))
    at = np.interp(depths(count), depths(len(layers)), layers)
    return [{"arm": name, "x": round(float(x), 4), "y": round(float(y), 6)} for x, y in zip(at, heights, strict=True)]


def change_rows(name: str, scaling: ScalingFactors) -> Rows:
    """Where a second stage left the curve: the layer's factor, and the curve's that it came `from`."""
    points, offsets = _control_points(scaling), scaling.found.get("offsets")
    if points is None or not offsets:
        return []
    layers = [int(layer) for layer in _scaled_layers(scaling)]
    heights = curve_factors(points, len(layers), _space(scaling).get("mode", "depth"))
    return [
        {"arm": name, "x": layer, "y": scaling[layer], "from": float(height)}
        for layer, height in zip(layers, heights, strict=True)
        if scaling[layer] != height
    ]


def _control_points(scaling: ScalingFactors) -> Any:
    """[P, 2], or None: free factors are stored as offsets from the flat curve, which is no curve that was found."""
    found = scaling.found
    given = found.get("control_points")
    if not given:
        return None
    points = np.array(given, dtype=np.float64)
    return None if found.get("offsets") and (points[:, 1] == 1.0).all() else points


def _space(scaling: ScalingFactors) -> Mapping[str, Any]:
    method = scaling.found.get("method")
    space = method.get("space", {}) if isinstance(method, dict) else {}
    return space if isinstance(space, dict) else {}


def _scaled_layers(scaling: ScalingFactors) -> Any:
    """Indices of the layers on the curve, as float64."""
    return np.array(scaling.rotary_layers[int(_space(scaling).get("skip_first", 0)) :], dtype=np.float64)
