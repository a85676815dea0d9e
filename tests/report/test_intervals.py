"""Charts of differences: every interval is drawn, and the line at 0 can be seen on a dark ground too."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import altair as alt
import pytest
import vl_convert

from ropewalk.report.intervals import heat_layers, interval_layers, layer_axis, named_axis
from ropewalk.report.theme import DARK, LIGHT

ROWS: list[dict[str, Any]] = [
    {"arm": arm, "x": x, "y": y, "low": y - 0.1, "high": y + 0.1}
    for arm, y in (("one", 0.2), ("two", -0.3))
    for x in ("@0", "@9")
]


def drawn(chart: alt.LayerChart, theme: dict[str, Any]) -> str:
    chart = chart.properties(width=300, height=200)
    chart.config = theme
    text: str = vl_convert.vegalite_to_svg(chart.to_dict())
    ElementTree.fromstring(text)
    return text


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_the_line_at_zero_has_the_themes_soft_colour(theme: dict[str, Any]) -> None:
    chart = interval_layers(ROWS, named_axis(["@0", "@9"], None), "nats", ["", "one", "two"])
    dashed = re.findall(r'<line [^>]*stroke-dasharray="2,3"[^>]*>', drawn(chart, theme))
    assert dashed
    assert all(f'stroke="{theme["axis"]["domainColor"]}"' in line for line in dashed)


def test_arms_stand_aside_in_the_palettes_order_and_the_first_colour_is_vanillas() -> None:
    chart = interval_layers(ROWS, named_axis(["@0", "@9"], None), "nats", ["", "one", "two"])
    text = drawn(chart, LIGHT)
    grey, blue, orange = LIGHT["range"]["category"][:3]
    marks = text[text.index("mark-symbol") : text.index("role-legend")]
    assert (marks.count(blue), marks.count(orange), marks.count(grey)) == (2, 2, 0)
    assert text.count('aria-roledescription="rule mark"') == 5  # an interval each, and zero


@pytest.mark.parametrize(("joined", "lines"), [(True, 2), (False, 0)])
def test_points_over_layers_are_joined_if_they_are_to_be(joined: bool, lines: int) -> None:
    rows = [row | {"x": 9 * (row["x"] == "@9")} for row in ROWS]
    chart = interval_layers(rows, layer_axis(9), "nats", ["", "one", "two"], aside=False, joined=joined)
    assert drawn(chart, LIGHT).count('aria-roledescription="line mark"') == lines


def test_a_heat_map_has_a_cell_a_row_also_where_all_are_nothing() -> None:
    rows: list[dict[str, Any]] = [{"x": x, "y": y, "value": 0.0} for x in "ab" for y in "cde"]
    chart = heat_layers(rows, named_axis(["a", "b"], None), "y", ["c", "d", "e"])
    assert drawn(chart, LIGHT).count('aria-roledescription="rect mark"') == 6
