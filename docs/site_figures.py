"""The figures of the documentation, drawn by the project's own code each time the site is built.

`python docs/site_figures.py DIR` writes them as SVG files, each for a light page and (`-dark`) for a dark one.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

from ropewalk.bezier import curve_factors, depths
from ropewalk.factors import ScalingFactors
from ropewalk.report.figures import curves_figure
from ropewalk.report.theme import DARK, LIGHT
from ropewalk.stats import wilson
from ropewalk.tasks.base import gold_positions

RUNS = Path(__file__).parent.parent / "benchmarks" / "results" / "search-efficiency-qwen-kv75-h200.jsonl"
ARMS = ("default", "default, quarter")
CONTROL_POINTS = ((0.0, 0.9), (0.25, 1.25), (0.7, 1.15), (1.0, 0.8))
LAYERS = 24
FACTORS = (1.0, 0.8, 1.3)
DISTANCES = 300
WIDTH, HEIGHT = 460, 260  # narrow enough that a phone shows readable letters
THEMES = {"": LIGHT, "-dark": DARK}

Spec = dict[str, Any]  # of a chart, without its configuration


def draw() -> dict[str, str]:
    """All figures as SVG, by name."""
    charts = {**measured(), "attention": attention(), "curve": curve()}
    return {name + end: _svg(chart, theme) for name, chart in charts.items() for end, theme in THEMES.items()}


def measured() -> dict[str, Spec]:
    """The U of a real model as it is and with the factors of two default searches, as the benchmark wrote them."""
    runs = [json.loads(line) for line in RUNS.read_text().splitlines()]
    found = {
        f"after {run['evaluations']:,} evaluations": run
        for run in sorted(runs, key=lambda run: run["evaluations"])
        if run["arm"] in ARMS and run["seed"] == 0
    }
    run = next(iter(found.values()))
    shares = {"vanilla": run["vanilla"]} | {name: run["accuracy"] for name, run in found.items()}
    series = {
        name: (means, [wilson(round(mean * run["test_records"]), run["test_records"]) for mean in means])
        for name, means in shares.items()
    }
    factors = {name: ScalingFactors(run["factors"]) for name, run in found.items()}
    positions = gold_positions(run["positions"], run["keys"])
    both = curves_figure(positions, series, factors, "", metric="exact match").to_dict()
    # Apart, so that a page can stack them where the screen is narrow.
    shared = {"datasets": both.get("datasets", {})}
    return {name: {**shared, **part} for name, part in zip(("accuracy", "factors"), both["hconcat"], strict=True)}


def attention() -> Spec:
    """How the rotary part of an attention score goes with the distance, for three factors.

    Query and key have the same value in every component, so the score is the mean of cos(distance / s * inv_freq).
    """
    rows = [
        {"x": distance, "y": float(score), "line": f"s = {factor}"}
        for factor, scores in zip(FACTORS, rotary_scores(FACTORS, DISTANCES), strict=True)
        for distance, score in enumerate(scores)
    ]
    names = [f"s = {factor}" for factor in FACTORS]
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("x:Q", title="distance in tokens", axis=alt.Axis(grid=False, tickCount=6)),
            y=alt.Y("y:Q", title="rotary part of the score (1 at distance 0)"),
            color=alt.Color("line:N", title=None, scale=alt.Scale(domain=names)),
            strokeDash=alt.StrokeDash("line:N", scale=alt.Scale(domain=names, range=[[1, 0], [6, 3], [2, 2]])),
        )
    )
    return _sized(chart, "A factor stretches or compresses distances")


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


def curve() -> Spec:
    """Four control points, the curve they pull, and the factor that each layer takes from it."""
    last, fine = LAYERS - 1, 200
    smooth = [
        {"x": float(x) * last, "y": float(y), "what": "factors of the layers"}
        for x, y in zip(depths(fine), curve_factors(CONTROL_POINTS, fine), strict=True)
    ]
    layers = [
        {"x": layer, "y": float(y), "what": "factors of the layers"}
        for layer, y in enumerate(curve_factors(CONTROL_POINTS, LAYERS))
    ]
    points = [
        {"x": x * last, "y": y, "what": "control points", "name": f"P{number}", "order": number}
        for number, (x, y) in enumerate(CONTROL_POINTS)
    ]
    kinds = alt.Scale(domain=["control points", "factors of the layers"])
    channels = {
        "x": alt.X(
            "x:Q",
            title="layer (index, from 0)",
            axis=alt.Axis(grid=False),
            scale=alt.Scale(domain=[0, last], padding=14, nice=False),
        ),
        "y": alt.Y("y:Q", title="scaling factor s (position / s)", scale=alt.Scale(domain=[0.7, 1.3], zero=False)),
        "color": alt.Color("what:N", title=None, scale=kinds),
    }
    line = alt.Chart(alt.InlineData(values=smooth)).mark_line(strokeWidth=2).encode(**channels)
    dots = alt.Chart(alt.InlineData(values=layers)).mark_point(filled=True, size=40, opacity=1).encode(**channels)
    handles = alt.Chart(alt.InlineData(values=points)).encode(**channels)
    polygon = handles.mark_line(strokeDash=[4, 4], strokeWidth=1).encode(order="order:O")
    ends = handles.mark_point(style="handle", size=90, opacity=1)
    names = handles.mark_text(dx=-14, dy=-10, fontSize=12).encode(text="name:N")
    return _sized(alt.layer(polygon, line, dots, ends, names), "Four points, one factor a layer")


def _sized(chart: Any, title: str) -> Spec:
    heading = alt.TitleParams(title, anchor="start", fontSize=14, offset=10)
    spec: Spec = chart.properties(width=WIDTH, height=HEIGHT, title=heading).to_dict()
    return {name: value for name, value in spec.items() if name != "config"}


def _svg(spec: Spec, theme: dict[str, Any]) -> str:
    text = io.StringIO()
    alt.Chart.from_dict({**spec, "config": theme, "padding": 8}).save(text, format="svg")
    return text.getvalue()


def main() -> None:
    """Write the figures into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in draw().items():
        (folder / f"{name}.svg").write_text(svg)


if __name__ == "__main__":
    main()
