"""The figures of the documentation, drawn by the project's own code each time the site is built.

`python docs/site_figures.py DIR` writes them as SVG files.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

from ropewalk.bezier import curve_factors, depths
from ropewalk.factors import ScalingFactors
from ropewalk.report.figures import COLOURS, FONT, GREYS, HEIGHT, SHAPES, WIDTH, curves_figure
from ropewalk.stats import wilson
from ropewalk.tasks.base import gold_positions

RUNS = Path(__file__).parent.parent / "benchmarks" / "results" / "search-efficiency-qwen-kv75-h200.jsonl"
CONTROL_POINTS = ((0.0, 0.9), (0.25, 1.25), (0.7, 1.15), (1.0, 0.8))
LAYERS = 24
FACTORS = (0.8, 1.0, 1.3)
DISTANCES = 300


def draw() -> dict[str, str]:
    """All figures as SVG, by name."""
    return {name: _svg(chart()) for name, chart in CHARTS.items()}


def measured() -> Any:
    """The U of a real model as it is and with the factors of the default search, as the benchmark wrote them."""
    runs = [json.loads(line) for line in RUNS.read_text().splitlines()]
    run = next(run for run in runs if run["arm"] == "default" and run["seed"] == 0)
    records = run["test_records"]
    series = {
        name: (shares, [wilson(round(share * records), records) for share in shares])
        for name, shares in (("vanilla", run["vanilla"]), ("factors found", run["accuracy"]))
    }
    return curves_figure(
        gold_positions(run["positions"], run["keys"]),
        series,
        {"factors found": ScalingFactors(run["factors"])},
        f"{run['model']}, one of {run['keys']} keys asked for, {records} test records at each position",
        metric="exact match",
    )


def attention() -> Any:
    """How the rotary part of an attention score falls with the distance, for three factors.

    Query and key have the same value in every component, so the score is the mean of cos(distance / s * inv_freq).
    """
    return _lines(
        [
            {"x": distance, "y": float(score), "line": f"s = {factor}"}
            for factor, scores in zip(FACTORS, rotary_scores(FACTORS, DISTANCES), strict=True)
            for distance, score in enumerate(scores)
        ],
        x="distance in tokens",
        y="rotary part of the score, at distance 0: 1",
        title="A factor stretches or compresses distances",
    )


def rotary_scores(factors: tuple[float, ...], distances: int) -> np.ndarray[Any, Any]:
    """Mean cosine at each distance, [factors, distances], from the tables that the patch gives each layer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ropewalk.rotary import Installation

    config = LlamaConfig(
        hidden_size=64, num_attention_heads=1, num_hidden_layers=len(factors), intermediate_size=8, vocab_size=8,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    installed = Installation(model)
    installed.install()
    installed.set_factors(factors)
    tables = model.model.rotary_emb(torch.zeros(1, distances, 64), torch.arange(distances)[None])
    return np.stack([cos[0].mean(dim=-1).numpy() for cos, _ in tables])


def curve() -> Any:
    """Four control points, the curve they pull, and the factor that each layer takes from it."""
    fine = 200
    depth = np.array([x for x, _ in CONTROL_POINTS])
    rows = [
        {"x": float(x) * (LAYERS - 1), "y": float(y)}
        for x, y in zip(depths(fine), curve_factors(CONTROL_POINTS, fine), strict=True)
    ]
    layers = [{"x": layer, "y": float(y)} for layer, y in enumerate(curve_factors(CONTROL_POINTS, LAYERS))]
    points = [
        {"x": float(x) * (LAYERS - 1), "y": y, "name": f"P{number}", "order": number}
        for number, (x, (_, y)) in enumerate(zip(depth, CONTROL_POINTS, strict=True))
    ]
    x = alt.X("x:Q", title="layer (index, from 0)", axis=alt.Axis(grid=False), scale=alt.Scale(domain=[0, LAYERS - 1], padding=12, nice=False))  # noqa: E501
    y = alt.Y("y:Q", title="scaling factor s (position / s)", scale=alt.Scale(domain=[0.7, 1.3], zero=False))
    smooth = alt.Chart(alt.InlineData(values=rows)).mark_line(color=COLOURS[2], strokeWidth=2).encode(x=x, y=y)
    dots = alt.Chart(alt.InlineData(values=layers)).mark_point(filled=True, size=40, color=COLOURS[2], opacity=1)
    handles = alt.Chart(alt.InlineData(values=points)).encode(x=x, y=y)
    polygon = handles.mark_line(strokeDash=[4, 4], strokeWidth=1, color=COLOURS[1]).encode(order="order:O")
    ends = handles.mark_point(fill="white", color=COLOURS[1], size=90, opacity=1)
    names = handles.mark_text(dx=14, dy=-10, color=COLOURS[1], fontSize=12).encode(text="name:N")
    layered = alt.layer(polygon, smooth, dots.encode(x=x, y=y), ends, names)
    return _configured(layered.properties(width=2 * WIDTH * 0.75, height=HEIGHT, title=_title("Four points, one factor a layer")))  # noqa: E501


def _lines(rows: list[dict[str, Any]], x: str, y: str, title: str) -> Any:
    names = list(dict.fromkeys(row["line"] for row in rows))
    colour = alt.Color("line:N", scale=alt.Scale(domain=names, range=[COLOURS[2], COLOURS[0], COLOURS[1]]))
    dash = alt.StrokeDash("line:N", scale=alt.Scale(domain=names, range=[[6, 3], [1, 0], [2, 2]]))
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("x:Q", title=x, axis=alt.Axis(grid=False)),
            y=alt.Y("y:Q", title=y),
            color=colour,
            strokeDash=dash,
        )
    )
    return _configured(chart.properties(width=2 * WIDTH * 0.75, height=HEIGHT, title=_title(title)))


def _title(text: str) -> alt.TitleParams:
    return alt.TitleParams(text, anchor="start", fontSize=14, offset=10)


def _configured(chart: Any) -> Any:
    return (
        chart.configure(background="white", font=FONT)
        .properties(padding=12)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", titlePadding=10, **GREYS)
        .configure_legend(labelFontSize=12, orient="top", title=None)
        .configure_view(stroke=None)
    )


def _svg(chart: Any) -> str:
    text = io.StringIO()
    chart.save(text, format="svg")
    return text.getvalue()


CHARTS: dict[str, Callable[[], Any]] = {"measured": measured, "attention": attention, "curve": curve}


def main() -> None:
    """Write the figures into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in draw().items():
        (folder / f"{name}.svg").write_text(svg)


if __name__ == "__main__":
    main()
