"""The picture of an extrapolation: perplexity of the far tokens and accuracies by length, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from ropewalk.report.theme import LIGHT

WIDTH, HEIGHT = 620, 190
FACTORS = {"": "no factors", "triangle": "triangle by hand", "searched": "searched factors"}


def lengths_figure(blocks: Sequence[Mapping[str, Any]], title: str, note: str) -> Any:
    """blocks: one a length, as `ropewalk.extrapolate_figures.figures` gives them. Above perplexity, below accuracies.

    Colour tells the base scheme, shape the layer factors; bars are 95 % intervals.
    """
    arms = list(dict.fromkeys(name for block in blocks for name in block["arms"]))
    lengths = [f"{block['length']:,}" for block in blocks]
    panels = [_panel(_far_rows(blocks), arms, lengths, "perplexity of the far tokens", log=True)]
    for task in ("kv", "needle"):
        rows = _accuracy_rows(blocks, task)
        if rows:
            panels.append(_panel(rows, arms, lengths, f"{task} accuracy (%)", log=False))
    heading = alt.TitleParams(
        title, subtitle=note, anchor="start", fontSize=15, subtitleFontSize=12, subtitlePadding=4, offset=12
    )
    chart = alt.vconcat(*panels, spacing=26).properties(title=heading, padding=16)
    chart = chart.resolve_scale(color="shared", shape="shared")
    chart.config = LIGHT
    return chart


def _far_rows(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for block, name, arm in _arms(blocks):
        far = arm["far"]
        if far["nll"] is not None:
            value, low, high = (math.exp(min(far[part], 700.0)) for part in ("nll", "low", "high"))
            rows.append(_row(block, name, value, low, high))
    return rows


def _accuracy_rows(blocks: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    return [
        _row(block, name, 100 * arm[task]["average"], *(100 * end for end in arm[task]["average_interval"]))
        for block, name, arm in _arms(blocks)
        if task in arm
    ]


def _arms(blocks: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    return [(block, name, arm) for block in blocks for name, arm in block["arms"].items()]


def _row(block: Mapping[str, Any], name: str, value: float, low: float, high: float) -> dict[str, Any]:
    scheme, _, factors = name.partition("+")
    facts = {"length": f"{block['length']:,}", "arm": name, "scheme": scheme, "factors": FACTORS[factors]}
    return facts | {"value": value, "low": low, "high": high}


def _panel(rows: list[dict[str, Any]], arms: list[str], lengths: list[str], title: str, *, log: bool) -> alt.LayerChart:
    schemes = list(dict.fromkeys(name.partition("+")[0] for name in arms))
    scale = alt.Scale(type="log", nice=True) if log else alt.Scale(domain=[0, 100])
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("length:N", sort=lengths, title="tokens", axis=alt.Axis(labelAngle=0), scale=alt.Scale(domain=lengths)),
        xOffset=alt.XOffset("arm:N", sort=arms, scale=alt.Scale(domain=arms)),
        color=alt.Color("scheme:N", scale=alt.Scale(domain=schemes), legend=alt.Legend(title=None)),
    )
    y = alt.Y("value:Q", title=title, scale=scale)
    bars = base.mark_rule(strokeWidth=1.8).encode(y=alt.Y("low:Q", scale=scale, title=title), y2="high:Q")
    shape = alt.Shape("factors:N", scale=alt.Scale(domain=list(FACTORS.values())), legend=alt.Legend(title=None))
    points = base.mark_point(filled=True, size=70, opacity=1).encode(y=y, shape=shape)
    return alt.LayerChart(layer=[bars, points], width=WIDTH, height=HEIGHT)
