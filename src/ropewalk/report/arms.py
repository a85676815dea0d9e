"""The charts of a run's test: accuracy by position, what is gained in likelihood, factors by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
from markupsafe import Markup

from ropewalk.comparison import metric_words
from ropewalk.factors import ScalingFactors
from ropewalk.report.layers import (
    POSITION,
    Rows,
    Series,
    accuracy_layers,
    arm_colour,
    arm_shape,
    change_rows,
    control_rows,
    factor_layers,
    factors_note,
)
from ropewalk.report.numbers import NOTHING, Numbers
from ropewalk.report.panel import Panel
from ropewalk.report.runs import Run
from ropewalk.verdict import LABELS

FIRST = ("vanilla", "factors")  # in the palette: grey and blue


def ordered(arms: Sequence[str]) -> list[str]:
    """Arms in the palette's order: vanilla and the factors, then the controls."""
    return [*(arm for arm in FIRST if arm in arms), *(arm for arm in arms if arm not in FIRST)]


def accuracy_panel(run: Run, number: int, task: str, numbers: Numbers) -> Panel:
    """Accuracy by position of every arm."""
    at = ("runs", number, "result", "tasks", task)
    block = numbers.value(at)
    arms = ordered(run.arms(task))
    series: dict[str, Series] = {LABELS[arm]: (block[arm]["accuracy"], block[arm]["interval"]) for arm in arms}
    metric = metric_words(block["vanilla"]["metric"])
    shown = ", ".join(f"{LABELS[arm]} {_percents(block[arm]['accuracy'])}" for arm in FIRST)
    return Panel(
        key=key(number, "accuracy", task),
        title=f"{metric[:1].upper()}{metric[1:]} by position of the evidence",
        note=f"Bands: 95 % intervals at each position, {block['vanilla']['records']} test records. Two bands that "
        "overlap may still differ: the arms answer the same records, and the paired tests in the table use that.",
        label=f"Line chart of {metric} in % by gold position {', '.join(map(str, block['positions']))}: {shown}.",
        chart=accuracy_layers(block["positions"], series, list(series), metric, list(series)[2:]),
        columns=("position", *(LABELS[arm] for arm in arms)),
        rows=[
            [f"@{position}", *(_with_interval(numbers, (*at, arm), row) for arm in arms)]
            for row, position in enumerate(block["positions"])
        ],
    )


def likelihood_panel(run: Run, number: int, task: str, numbers: Numbers) -> Panel | None:
    """What each arm gains over vanilla in log-likelihood, in pairs; None where a likelihood is not finite."""
    at = ("runs", number, "result", "tasks", task)
    block = numbers.value(at)
    gains: Mapping[str, Any] = block["gain"]
    arms = [arm for arm in ordered(list(gains)) if all(row["p"] is not None for row in gains[arm]["log_likelihood"])]
    if not arms:
        return None
    rows: Rows = [
        {"arm": LABELS[arm], "x": position, "y": row["difference"], "low": row["low"], "high": row["high"]}
        for arm in arms
        for position, row in zip(block["positions"], gains[arm]["log_likelihood"], strict=True)
    ]
    paths = {arm: (*at, "gain", arm, "log_likelihood") for arm in arms}
    return Panel(
        key=key(number, "likelihood", task),
        title="Log-likelihood of the answer above vanilla",
        note="Paired differences on the same prompts with 95 % intervals, in nats a token. Above the dotted line the "
        "right answer became likelier, which shows before verdicts change.",
        label="Points with intervals: the gain in log-likelihood over vanilla by gold position, with intervals.",
        chart=_gain_layers(block["positions"], rows, [LABELS["vanilla"], *(LABELS[arm] for arm in arms)]),
        columns=("position", *(LABELS[arm] for arm in arms)),
        rows=[
            [f"@{position}", *(_difference(numbers, (*paths[arm], row)) for arm in arms)]
            for row, position in enumerate(block["positions"])
        ],
    )


def factors_panel(run: Run, number: int, numbers: Numbers) -> Panel | None:
    """Factors by layer, of the found ones and of the controls that the run kept; None without any."""
    if run.factors is None:
        return None
    found, controls = LABELS["factors"], {LABELS[arm]: scaling for arm, scaling in run.controls.items()}
    shown = {found: run.factors, **controls}
    values = [value for value in run.factors.values if value is not None]
    curve = control_rows(found, run.factors)
    kind = "a Bézier curve with its control points" if curve else "a free factor in every layer, on no curve"
    if change_rows(found, run.factors):
        kind = "a Bézier curve, and what a second stage changed in single layers"
    path = ("runs", number, "factors", "values")
    return Panel(
        key=key(number, "factors"),
        title="Scaling factor by layer",
        note=f"{found[:1].upper()}{found[1:]}: {kind}. {sentence(factors_note(shown))}",
        label=f"Scaling factors of {len(run.factors)} layers, from {min(values):.3f} to {max(values):.3f}; {kind}.",
        chart=factor_layers(shown, [LABELS["vanilla"], *shown], list(shown)),
        columns=("layer", *shown, *(["curve"] if run.factors.found.get("offsets") and curve else [])),
        rows=_factor_rows(run.factors, controls, numbers, path),
    )


def key(number: int, *words: str) -> str:
    """Of a panel: unique on the page, and fit for a file's name."""
    text = "-".join(words)
    return f"run{number + 1}-" + "".join(letter if letter.isalnum() else "-" for letter in text)


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def _factor_rows(
    found: ScalingFactors, controls: Mapping[str, ScalingFactors], numbers: Numbers, path: tuple[str | int, ...]
) -> list[list[object]]:
    before = {row["x"]: f"{row['from']:.3f}" for row in change_rows("", found)}
    rows: list[list[object]] = []
    for layer, value in enumerate(found):
        others = [control[layer] for control in controls.values()]
        cells: list[object] = [layer, numbers((*path, layer), "factor") if value is not None else NOTHING]
        cells += [NOTHING if other is None else f"{other:.3f}" for other in others]
        rows.append(cells + ([before.get(layer, "")] if before else []))
    return rows


def _gain_layers(positions: Sequence[int], rows: Rows, names: list[str]) -> alt.LayerChart:
    """A point with its interval for each arm, side by side at each position."""
    x = alt.X("x:O", title=POSITION, sort=list(positions), axis=alt.Axis(labelAngle=0, labelExpr="'@' + datum.label"))
    y = alt.Y("y:Q", title="nats a token above vanilla", axis=alt.Axis(format="+.3~g"))
    zero = alt.Chart(alt.InlineData(values=[{"y": 0.0}])).mark_rule(style="rule-soft", strokeDash=[2, 3]).encode(y=y)
    side = alt.XOffset("arm:N", sort=names)
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, xOffset=side, color=arm_colour(names, names[1:]))
    bars = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q"), y2="high:Q")
    points = base.mark_point(filled=True, size=64, opacity=1).encode(y=y, shape=arm_shape(names, names[1:]))
    return alt.LayerChart(layer=[zero, bars, points])


def _with_interval(numbers: Numbers, path: tuple[str | int, ...], row: int) -> object:
    accuracy = numbers((*path, "accuracy", row), "percent1")
    return Markup("{} <span class=soft>[{}]</span>").format(
        accuracy, numbers.interval((*path, "interval", row), "percent")
    )


def _difference(numbers: Numbers, path: tuple[str | int, ...]) -> object:
    shown = [numbers((*path, part), "nats") for part in ("difference", "low", "high")]
    return Markup("{} <span class=soft>[{} to {}]</span>").format(*shown)


def _percents(accuracy: Sequence[float]) -> str:
    return " ".join(f"{100 * value:.0f}" for value in accuracy)
