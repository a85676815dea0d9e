"""The pictures of a model card: the factors by layer, and what the test found of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.export.parts import evidence
from ropewalk.factors import ScalingFactors

Json = Mapping[str, Any]


def picture_names(test: Sequence[Json]) -> tuple[str, ...]:
    """One picture a task of the test; one of the factors alone where there was no test."""
    if len(test) < 2:
        return ("factors.png",)
    return tuple(f"factors-{''.join(c if c.isalnum() else '-' for c in block['task'])}.png" for block in test)


def draw_pictures(folder: Path, factors: ScalingFactors, test: Sequence[Json], model: str) -> None:
    """Write the pictures into a folder, as PNG: a hub shows those, and no SVG of a stranger."""
    from ropewalk.report.figures import curves_figure, save_png
    from ropewalk.report.theme import BLUE, GREY, LIGHT

    if not test:
        save_png(_factors_chart(factors, model), folder / "factors.png")
        return
    for name, block in zip(picture_names(test), test, strict=True):
        gold, (vanilla, scaled) = evidence.positions(block)
        chart = curves_figure(
            gold,
            {"vanilla": vanilla, "factors": scaled},
            {"factors": factors},
            f"{model}: {_title(block)}",
            block["metric"],
        )
        chart.config = {**LIGHT, "range": {**LIGHT["range"], "category": [GREY, BLUE]}}
        save_png(chart, folder / name)


def _title(block: Json) -> str:
    keys = f", {block['keys']} keys" if block.get("keys") else ""
    return f"{block['task']}{keys}, {block['records']} test records"


def _factors_chart(factors: ScalingFactors, model: str) -> Any:
    import altair as alt

    from ropewalk.report.figures import HEIGHT, WIDTH
    from ropewalk.report.layers import factor_layers, factors_note
    from ropewalk.report.theme import BLUE, LIGHT

    named = {"factors": factors}
    title = alt.TitleParams(f"{model}: scaling factor by layer", subtitle=factors_note(named), offset=10)
    chart = factor_layers(named, ["factors"]).properties(width=WIDTH * 3 // 2, height=HEIGHT, title=title, padding=16)
    chart.config = {**LIGHT, "range": {**LIGHT["range"], "category": [BLUE]}}
    return chart
