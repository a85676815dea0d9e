"""How charts look, on a light ground and on a dark one. Charts name no colours of their own, so that a page can turn.

Okabe and Ito's colours, which colour-blind readers tell apart; on the dark ground lighter ones of the same hues. Marks
differ in shape too, so that a figure survives grey printing. Vanilla is grey, the factors found are blue.
"""

from __future__ import annotations

from typing import Any

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
GREY, BLUE, ORANGE, GREEN, PINK, SKY = "#595959", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"

Config = dict[str, Any]


def _config(
    *, background: str, ground: str, text: str, soft: str, grid: str, category: list[str], diverging: list[str]
) -> Config:
    axis = {"labelColor": text, "titleColor": text, "gridColor": grid, "domainColor": soft, "tickColor": soft}
    sizes = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 10}
    return {
        "background": background,
        "font": FONT,
        "axis": {**axis, **sizes},
        "legend": {
            "labelColor": text, "titleColor": text, "labelFontSize": 12, "titleFontSize": 12, "symbolSize": 90,
            "symbolOpacity": 1, "orient": "top", "offset": 12, "labelLimit": 260, "titleFontWeight": "normal",
        },
        "title": {"color": text, "subtitleColor": soft, "fontWeight": "bold", "anchor": "start"},
        "view": {"stroke": None},
        "range": {"category": category, "symbol": list(SHAPES), "diverging": diverging},
        "style": {"handle": {"fill": ground}, "rule-soft": {"color": soft}},
    }  # fmt: skip


LIGHT = _config(
    background="white",
    ground="white",
    text="#24292f",
    soft="#6e7781",
    grid="#e6e8eb",
    category=[GREY, BLUE, ORANGE, GREEN, PINK, SKY],
    diverging=["#a63603", "#e6550d", "#fdae6b", "#f4f4f4", "#9ecae1", "#3182bd", "#08519c"],
)
DARK = _config(
    background="transparent",
    ground="#171b21",
    text="#d9dee5",
    soft="#8b949e",
    grid="#2d333b",
    category=["#b4bac2", "#4fa8e8", "#f0883e", "#3fc79a", "#e39ac6", "#e3d64b"],
    diverging=["#ffa657", "#d9772b", "#7a4218", "#22272e", "#1f4f7d", "#3d8fd1", "#79c0ff"],
)
