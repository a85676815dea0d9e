"""A chart with all that stands around it on the page: caption, description for those who can't see it, its numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import altair as alt

from ropewalk.report.figures import save_png, save_svg
from ropewalk.report.theme import LIGHT

TITLE_LETTERS = 90  # of a line; a longer one would make the file wider than its figure, or no file at all
FILE_WIDTH = 620  # of a figure in a file of its own; on the page it is as wide as its box


@dataclass(frozen=True)
class Panel:
    """key: unique on the page, and the name of its files. label: what is to be seen, in a sentence or two.

    chart: layers without size and title. columns, rows: its numbers as a table; cells are text or HTML numbers.
    """

    key: str
    title: str
    note: str
    label: str
    chart: alt.LayerChart
    height: int = 300
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = field(default=(), repr=False)

    def spec(self) -> dict[str, Any]:
        """As vega-lite for the page, which brings width and colours."""
        chart = self.chart.properties(width="container", height=self.height)
        spec: dict[str, Any] = chart.to_dict()
        spec.pop("config", None)  # altair's own; the theme is the page's
        return spec | {"autosize": {"type": "fit-x", "contains": "padding"}}

    def save(self, folder: Path, title: str) -> list[Path]:
        """The figure as SVG and PNG in a folder, under a title. Returns their paths."""
        heading = alt.TitleParams(
            textwrap.wrap(title, TITLE_LETTERS),
            subtitle=self.title,
            anchor="start",
            fontSize=14,
            subtitleFontSize=12,
            offset=10,
        )
        chart = self.chart.properties(width=FILE_WIDTH, height=self.height, title=heading, padding=16)
        chart.config = LIGHT
        paths = [folder / f"{self.key}.svg", folder / f"{self.key}.png"]
        save_svg(chart, paths[0])
        save_png(chart, paths[1])
        return paths
