"""Figures of a run: accuracy by gold position beside the scaling factors by layer, as SVG or PNG."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import altair as alt
import numpy as np

from ropewalk import files
from ropewalk.bezier import depths
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors

Series = tuple[Sequence[float], Sequence[tuple[float, float]]]  # accuracies and their intervals, by position
Chart = alt.HConcatChart
Rows = list[dict[str, Any]]

# Okabe and Ito's colours, which colour-blind readers tell apart, in the order of arms: vanilla, control, found. Marks
# differ in shape too, so that the figure survives grey printing.
COLOURS = ("#595959", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
GREYS = {"gridColor": "#E6E6E6", "domainColor": "#888888", "tickColor": "#888888"}
WIDTH, HEIGHT = 380, 280


def curves_figure(
    positions: Sequence[int],
    series: Mapping[str, Series],
    factors: Mapping[str, ScalingFactors],
    title: str,
    metric: str = "accuracy",
) -> Chart:
    """Left: accuracy by gold position with interval bands. Right: scaling factors by layer.

    positions: 0-based gold positions. series: for each arm its accuracies in [0, 1] and their intervals, both by
    position. factors: for some of the arms their factors; where `found` names the control points they are drawn with
    their polygon. metric: how the axis calls the accuracies. Arms take their colours in the order in which they are
    given: vanilla first, then controls, then the factors found. Raises `DataError` for lengths that differ and numbers
    outside [0, 1].
    """
    names = list(dict.fromkeys([*series, *factors]))
    left = _accuracy(positions, series, names, metric)
    right = _factors(factors, names)
    chart: Chart = (
        alt.hconcat(left, right, spacing=48)
        .properties(title=alt.TitleParams(title, anchor="start", fontSize=16, offset=14), padding=16)
        .resolve_scale(color="shared", shape="shared")
        .configure(background="white", font=FONT)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", titlePadding=10, **GREYS)
        .configure_legend(labelFontSize=12, symbolSize=90, symbolOpacity=1, orient="top", title=None, offset=14)
        .configure_title(fontWeight="bold", subtitleColor="#595959")
        .configure_view(stroke=None)
    )
    return chart


def save_svg(chart: Chart, path: str | os.PathLike[str]) -> None:
    """Write the chart as SVG, atomically."""
    text = io.StringIO()
    chart.save(text, format="svg")
    files.write_text(path, text.getvalue())


def save_png(chart: Chart, path: str | os.PathLike[str], *, scale: float = 2.0) -> None:
    """Write the chart as PNG, atomically; `scale` is in pixels a point."""
    content = io.BytesIO()
    chart.save(content, format="png", scale_factor=scale)
    files.write_bytes(path, content.getvalue())


def _accuracy(positions: Sequence[int], series: Mapping[str, Series], names: list[str], metric: str) -> alt.LayerChart:
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
    x = alt.X(
        "x:Q",
        title="gold position (index of the evidence, from 0)",
        axis=alt.Axis(values=[int(p) for p in positions], format="d", grid=False),
        scale=alt.Scale(nice=False, padding=12, zero=False),
    )
    percent = alt.Axis(labelExpr="round(datum.value * 100)")
    y = alt.Y("y:Q", title=f"{metric} (%)", axis=percent, scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, color=_colour(names))
    band = base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q"), y2="high:Q")
    line = base.mark_line(strokeWidth=2).encode(y=y)
    points = base.mark_point(filled=True, size=64, opacity=1).encode(y=y, shape=_shape(names))
    return _titled(
        alt.LayerChart(layer=[band, line, points]),
        f"{metric[:1].upper()}{metric[1:]} by position of the evidence",
        "bands: 95 % intervals",
    )


def _factors(factors: Mapping[str, ScalingFactors], names: list[str]) -> alt.LayerChart:
    rows: Rows = [
        {"arm": name, "x": layer, "y": value}
        for name, scaling in factors.items()
        for layer, value in enumerate(scaling)
        if value is not None
    ]
    control: Rows = [row for name, scaling in factors.items() for row in _control_rows(name, scaling)]
    heights = [row["y"] for row in rows + control] + [1.0]
    grid = _grid(min(heights), max(heights))
    last = max((scaling.num_layers for scaling in factors.values()), default=1) - 1
    x = alt.X(
        "x:Q",
        title="layer (index, from 0)",
        axis=alt.Axis(format="d", tickMinStep=1, grid=False),
        scale=alt.Scale(domain=[0, max(last, 1)], padding=12, nice=False),
    )
    y = alt.Y(
        "y:Q",
        title="scaling factor s (position / s)",
        axis=alt.Axis(format=".2f", values=grid),
        scale=alt.Scale(domain=[grid[0], grid[-1]], zero=False, nice=False),
    )
    trained = alt.Chart(alt.InlineData(values=[{"y": 1.0}])).mark_rule(color="#888888", strokeDash=[2, 3]).encode(y=y)
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y, color=_colour(names))
    line = base.mark_line(strokeWidth=2)
    points = base.mark_point(filled=True, size=34, opacity=1).encode(shape=_shape(names))
    handles = alt.Chart(alt.InlineData(values=control)).encode(x=x, y=y, color=_colour(names))
    polygon = handles.mark_line(strokeWidth=1, strokeDash=[4, 4], opacity=0.8).encode(order="order:O")
    ends = handles.mark_point(fill="white", shape="circle", size=80, strokeWidth=1.5, opacity=1)
    note = ("dashed: control points of the curve; " if control else "") + "dotted: s = 1, the model as trained"
    return _titled(alt.LayerChart(layer=[trained, polygon, line, points, ends]), "Scaling factor by layer", note)


def _grid(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to above `high`, at most about eight. A tick at the top levels the two titles."""
    step = next((step for step in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / step <= 6), (high - low) / 6)
    first, last = np.floor(low / step - 0.2), np.ceil(high / step + 0.2)
    return [float(value) for value in np.round(np.arange(first, last + 1) * step, 6)]


def _control_rows(name: str, scaling: ScalingFactors) -> Rows:
    """The control points at the layers of their depth; none if the factors don't say them or left the curve."""
    found = scaling.found
    given = found.get("control_points")
    if not given or found.get("offsets"):
        return []
    method = found.get("method")
    space = method.get("space", {}) if isinstance(method, dict) else {}
    points = np.array(given, dtype=np.float64)
    depth = depths(len(points)) if space.get("mode") == "uniform" else points[:, 0]  # there x has no effect
    layers = np.array(scaling.rotary_layers[int(space.get("skip_first", 0)) :], dtype=np.float64)
    at = np.interp(depth, depths(len(layers)), layers)
    return [
        {"arm": name, "x": float(x), "y": float(y), "order": order}
        for order, (x, y) in enumerate(zip(at, points[:, 1], strict=True))
    ]


def _colour(names: list[str]) -> alt.Color:
    return alt.Color("arm:N", scale=alt.Scale(domain=names, range=list(islice(cycle(COLOURS), len(names)))))


def _shape(names: list[str]) -> alt.Shape:
    return alt.Shape("arm:N", scale=alt.Scale(domain=names, range=list(islice(cycle(SHAPES), len(names)))))


def _titled(chart: alt.LayerChart, title: str, note: str) -> alt.LayerChart:
    heading = alt.TitleParams(title, subtitle=note, anchor="start", fontSize=13, subtitleFontSize=11, offset=10)
    return chart.properties(width=WIDTH, height=HEIGHT, title=heading)
