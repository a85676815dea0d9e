"""How fitness grew in a search, by evaluations and by time.

Scores of single candidates are compared only where all saw the same records. Where a method shows each candidate a few
records in turn, the best score is the luckiest one: then a generation's mean and spread are drawn, and no best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import altair as alt
import numpy as np

from ropewalk.report.arms import key
from ropewalk.report.history import BASELINE, History
from ropewalk.report.layers import Rows
from ropewalk.report.panel import Panel
from ropewalk.study import CandidateRecord

MOST_POINTS = 600  # candidates that are drawn one by one; of more every k-th
MOST_STEPS = 120  # generations; of more neighbours are put together
SHOWN = 0.98  # the share of the candidates that the axis covers: a ruined one would hide the others

ONE, MEAN, BEST, FINAL = "one candidate", "mean of a generation", "best so far", "on validation records"
By = Literal["evaluations", "time"]


@dataclass(frozen=True)
class Point:
    """A candidate that was scored: after how many evaluations and seconds of the search."""

    record: CandidateRecord
    evaluations: int
    seconds: float


At = Callable[[Point], float]


def points(history: History) -> list[Point]:
    """All candidates that have a fitness, in the order of the search."""
    evaluations, seconds, found = 0, 0.0, []
    for record in history.search:
        evaluations, seconds = evaluations + record.prompts, seconds + record.seconds
        if not record.failed and record.generation != BASELINE:
            found.append(Point(record, evaluations, seconds))
    return found


def convergence_panels(history: History, number: int) -> list[Panel]:
    """By evaluations and by time; none before a candidate was scored."""
    scored = points(history)
    if not scored:
        return []
    return [_convergence(history, number, scored, by) for by in ("evaluations", "time")]


def fitness_words(history: History) -> str:
    """What is maximised, with its unit."""
    parts = history.settings["objective"]["parts"]
    kinds = {"utilisation": "U", "mean": "mean", "worst": "worst position"}
    if len(parts) > 1:
        return "fitness above vanilla, in spreads of vanilla over prompts"
    measure = "log-likelihood, nats a token" if parts[0]["measure"] == "likelihood" else "accuracy"
    return f"{kinds[parts[0]['kind']]} of {measure}, above vanilla"


def generations(history: History) -> list[list[Point]]:
    """The candidates by generation; of very many generations neighbours together."""
    groups: dict[int, list[Point]] = {}
    for point in points(history):
        groups.setdefault(point.record.generation, []).append(point)
    found = [groups[generation] for generation in sorted(groups)]
    width = math.ceil(len(found) / MOST_STEPS)
    return [[*chain(*found[first : first + width])] for first in range(0, len(found), width)]


def finalists(history: History) -> list[CandidateRecord]:
    """Who met on the validation records, without vanilla."""
    return [record for record in history.validation if record.generation >= 0 and not record.failed]


def _convergence(history: History, number: int, scored: list[Point], by: By) -> Panel:
    unit, scale = ("evaluations", 1.0) if by == "evaluations" else _time_unit(scored[-1].seconds)

    def at(point: Point) -> float:
        return point.evaluations if by == "evaluations" else round(point.seconds / scale, 4)

    words = fitness_words(history)
    groups = generations(history)
    single = scored[:: math.ceil(len(scored) / MOST_POINTS)]
    rows: Rows = [{"series": ONE, "x": at(point), "y": point.record.fitness} for point in single]
    means: Rows = [
        {"series": MEAN, "x": rounded(float(np.mean([at(point) for point in group]))), **_spread(group)}
        for group in groups
    ]
    last = at(scored[-1])
    finals: Rows = [{"series": FINAL, "x": last, "y": record.fitness} for record in finalists(history)]
    best: Rows = _best(scored, at) if history.alike else []
    title = "evaluations (candidate·prompt)" if by == "evaluations" else f"{unit} of scoring"
    chart = _layers(rows, means, best, finals, title, words)
    low = _low([row["y"] for row in rows + finals])
    hidden = sum(point.record.fitness < low for point in scored)
    return Panel(
        key=key(number, "convergence", by),
        title="Convergence by evaluations" if by == "evaluations" else "Convergence by time",
        note=_note(history, scored, hidden),
        label=f"{words} of {len(scored)} candidates in {len(groups)} generations by {title}.",
        chart=chart,
        columns=("generation", unit, "candidates", "mean", "lowest tenth", "highest tenth", *(["best"] * bool(best))),
        rows=[_table_row(group, at, scored, bool(best)) for group in groups],
    )


def _layers(rows: Rows, means: Rows, best: Rows, finals: Rows, title: str, words: str) -> alt.LayerChart:
    low, high = _low([row["y"] for row in rows + finals]), max(row["y"] for row in rows + finals + [{"y": 0.0}])
    margin = 0.05 * (high - low) or 0.01
    x = alt.X(
        "x:Q",
        title=title,
        axis=alt.Axis(grid=False),
        scale=alt.Scale(domain=[0, 1.02 * max(row["x"] for row in rows + means + finals)], nice=False),
    )
    y = alt.Y(
        "y:Q",
        title=words,
        scale=alt.Scale(domain=[low - margin, high + margin], nice=True),
        axis=alt.Axis(format="+.3~g"),
    )
    names = [MEAN, *([BEST] if best else []), ONE, *([FINAL] if finals else [])]
    colour = alt.Color(
        "series:N",
        scale=alt.Scale(domain=[ONE, BEST, FINAL, MEAN]),
        legend=alt.Legend(title=None, values=names),
    )
    zero = alt.Chart(alt.InlineData(values=[{"y": 0.0}])).mark_rule(style="rule-soft", strokeDash=[2, 3]).encode(y=y)

    def layer(data: Rows) -> alt.Chart:
        return alt.Chart(alt.InlineData(values=data)).encode(x=x, y=y, color=colour)

    single = layer(rows).mark_point(filled=True, size=14, opacity=0.35, clip=True)
    band = layer(means).mark_area(opacity=0.16, clip=True).encode(y=alt.Y("low:Q"), y2="high:Q")
    mean = layer(means).mark_line(strokeWidth=2, strokeJoin="round", clip=True, point={"size": 26, "filled": True})
    layers = [zero, single, band, mean]
    if best:
        layers.append(layer(best).mark_line(strokeWidth=2, strokeJoin="round", interpolate="step-after"))
    if finals:
        layers.append(layer(finals).mark_point(filled=True, shape="diamond", size=110, opacity=1, clip=True))
    return alt.LayerChart(layer=layers)


def _note(history: History, scored: list[Point], hidden: int) -> str:
    total = len(history.search[0].rows[0]) if history.search and history.search[0].rows else 0
    if history.alike:
        text = (
            "Every candidate was scored on the same records, so they can be ranked; the best of many is still partly "
            "lucky, which is why finalists meet again on validation records."
        )
    else:
        few = sorted({len(point.record.rows[0]) for point in scored if point.record.rows})
        seen = f"{few[0]} to {few[-1]}" if few and few[0] != few[-1] else f"{few[0] if few else 0}"
        text = (
            f"Each candidate saw {seen} of {total} records, which take turns: a single score is mostly luck, so no "
            "best so far is drawn. The method ranks by a model of all scores; validation has the last word."
        )
    text += " Band: the middle 80 % of a generation. Dotted: vanilla."
    if finalists(history):
        text += " Diamonds: the finalists on validation records, at the end."
    lie = "1 candidate lies" if hidden == 1 else f"{hidden} candidates lie"
    return text + (f" {lie} below the frame." if hidden else "")


def _spread(group: list[Point]) -> dict[str, float]:
    fitness = [point.record.fitness for point in group]
    low, high = np.quantile(fitness, [0.1, 0.9])
    return {"y": rounded(float(np.mean(fitness))), "low": rounded(float(low)), "high": rounded(float(high))}


def _best(scored: list[Point], at: At) -> Rows:
    """Steps of the best so far, which begins with vanilla's 0."""
    best, rows = 0.0, [{"series": BEST, "x": 0, "y": 0.0}]
    for point in scored:
        if not point.record.stopped and point.record.fitness > best:
            best = point.record.fitness
            rows.append({"series": BEST, "x": at(point), "y": best})
    return [*rows, {"series": BEST, "x": at(scored[-1]), "y": best}]


def _table_row(group: list[Point], at: At, scored: list[Point], with_best: bool) -> list[object]:
    first, last = group[0].record.generation, group[-1].record.generation
    spread = _spread(group)
    cells: list[object] = [f"{first}" if first == last else f"{first} to {last}", f"{at(group[-1]):,.4g}", len(group)]
    cells += [f"{spread[name]:+.4f}" for name in ("y", "low", "high")]
    if with_best:
        until = [point.record.fitness for point in scored if point.evaluations <= group[-1].evaluations]
        cells.append(f"{max(0.0, *until):+.4f}")
    return cells


def _low(values: Sequence[float]) -> float:
    """The lower end of the axis: all values, but for a few ruined candidates far below the others."""
    low = float(np.quantile(values, 1 - SHOWN))
    return min(0.0, *(value for value in values if value >= low))


def _time_unit(seconds: float) -> tuple[str, float]:
    for name, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return name, size
    return "seconds", 1.0


def rounded(value: float) -> float:
    """Six figures: more of them only make the page larger."""
    return float(f"{value:.6g}")
