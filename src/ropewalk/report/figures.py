"""Figures of a run: accuracy by gold position beside the scaling factors by layer, as SVG or PNG."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence

import altair as alt

from ropewalk import files
from ropewalk.factors import ScalingFactors
from ropewalk.report.layers import Series, accuracy_layers, factor_layers, factors_note
from ropewalk.report.theme import BLUE, GREEN, GREY, LIGHT, ORANGE, PINK, SKY

Chart = alt.HConcatChart | alt.LayerChart

COLOURS = (GREY, ORANGE, BLUE, GREEN, PINK, SKY)  # in the order of arms: vanilla, controls, found
WIDTH, HEIGHT = 380, 280


def curves_figure(
    positions: Sequence[int],
    series: Mapping[str, Series],
    factors: Mapping[str, ScalingFactors],
    title: str,
    metric: str = "accuracy",
) -> alt.HConcatChart:
    """Left: accuracy by gold position with interval bands. Right: scaling factors by layer.

    positions: 0-based gold positions. series: for each arm its accuracies in [0, 1] and their intervals, both by
    position. factors: for some of the arms their factors; where `found` names the control points they are drawn with
    their polygon. metric: how the axis calls the accuracies. Arms take their colours in the order in which they are
    given: vanilla first, then controls, then the factors found. Raises `DataError` for lengths that differ and numbers
    outside [0, 1].
    """
    names = list(dict.fromkeys([*series, *factors]))
    left = _titled(
        accuracy_layers(positions, series, names, metric),
        f"{metric[:1].upper()}{metric[1:]} by position of the evidence",
        "bands: 95 % intervals",
    )
    right = _titled(factor_layers(factors, names), "Scaling factor by layer", factors_note(factors))
    chart: alt.HConcatChart = (
        alt.hconcat(left, right, spacing=48)
        .properties(title=alt.TitleParams(title, anchor="start", fontSize=16, offset=14), padding=16)
        .resolve_scale(color="shared", shape="shared")
    )
    chart.config = {**LIGHT, "range": {**LIGHT["range"], "category": list(COLOURS)}}
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


def _titled(chart: alt.LayerChart, title: str, note: str) -> alt.LayerChart:
    heading = alt.TitleParams(title, subtitle=note, anchor="start", fontSize=13, subtitleFontSize=11, offset=10)
    return chart.properties(width=WIDTH, height=HEIGHT, title=heading)
