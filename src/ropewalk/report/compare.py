"""Several runs on one page: what they found, on charts that hold all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import altair as alt

from ropewalk.comparison import metric_words
from ropewalk.report.arms import sentence
from ropewalk.report.convergence import fitness_words, generations, rounded
from ropewalk.report.layers import Rows, factor_layers, factors_note, position_axis
from ropewalk.report.numbers import NOTHING, Numbers
from ropewalk.report.panel import Panel
from ropewalk.report.runs import Run

VANILLA = "vanilla"
FOUND = "found factors"


def comparison_panels(runs: Sequence[Run], numbers: Numbers) -> list[Panel]:
    """Accuracy on each task that several runs were tested on, factors, convergence; nothing that only one run has."""
    panels = [_accuracy(number, group, numbers) for number, group in enumerate(_same_tests(runs), 1) if len(group) > 1]
    with_factors = {run.name: run.factors for run in runs if run.factors is not None}
    if len(with_factors) > 1:
        names = [VANILLA, *(run.name for run in runs)]
        panels.append(
            Panel(
                key="all-factors",
                title="Scaling factor by layer, all runs",
                note=sentence(factors_note(with_factors)),
                label=f"Scaling factors by layer of {', '.join(with_factors)}.",
                chart=factor_layers(with_factors, names, list(with_factors)),
                columns=("layer", *with_factors),
                rows=_factor_rows(runs, numbers),
            )
        )
    return [*panels, *_convergence(runs)]


def _same_tests(runs: Sequence[Run]) -> list[list[tuple[int, Run, str]]]:
    """Runs and their tasks, together where the test's prompts are the same."""
    groups: dict[str, list[tuple[int, Run, str]]] = {}
    for number, run in enumerate(runs):
        if run.result is None:
            continue
        for task in run.tasks:
            test = run.result["provenance"]["data"]["test"][task]
            groups.setdefault(json.dumps([test["task"], test["positions"], test["sha256"]]), []).append(
                (number, run, task)
            )
    return list(groups.values())


def _accuracy(group_number: int, group: Sequence[tuple[int, Run, str]], numbers: Numbers) -> Panel:
    blocks = [numbers.value(("runs", number, "result", "tasks", task)) for number, _, task in group]
    shared = all(block[VANILLA]["accuracy"] == blocks[0][VANILLA]["accuracy"] for block in blocks)
    rows: Rows = []
    for index, ((_, run, _), block) in enumerate(zip(group, blocks, strict=True)):
        arms = ["factors"] if shared and index else [VANILLA, "factors"]
        rows += [
            {
                "arm": VANILLA if shared and arm == VANILLA else run.name,
                "kind": VANILLA if arm == VANILLA else FOUND,
                "x": position,
                "y": value,
                "low": low,
                "high": high,
            }
            for arm in arms
            for position, value, (low, high) in zip(
                block["positions"], block[arm]["accuracy"], block[arm]["interval"], strict=True
            )
        ]
    names = [VANILLA, *dict.fromkeys(run.name for _, run, _ in group)]
    metric, task = metric_words(blocks[0][VANILLA]["metric"]), group[0][2]
    return Panel(
        key=f"all-accuracy-{group_number}",
        title=f"{metric[:1].upper()}{metric[1:]} by position, {task}",
        note="The same test records for all of them. Bands: 95 % intervals. Dashed: vanilla.",
        label=f"{metric} by gold position of vanilla and of the factors of {', '.join(names[1:])}.",
        chart=_overlay(blocks[0]["positions"], rows, names if shared else names[1:], names, metric),
        columns=("position", *(f"{run.name}, {arm}" for _, run, _ in group for arm in (VANILLA, "found"))),
        rows=[
            [
                f"@{position}",
                *(
                    numbers(("runs", number, "result", "tasks", own, arm, "accuracy", row), "percent1")
                    for number, _, own in group
                    for arm in (VANILLA, "factors")
                ),
            ]
            for row, position in enumerate(blocks[0]["positions"])
        ],
    )


def _overlay(positions: Sequence[int], rows: Rows, shown: list[str], names: list[str], metric: str) -> alt.LayerChart:
    percent = alt.Axis(labelExpr="round(datum.value * 100)")
    y = alt.Y("y:Q", title=f"{metric} (%)", axis=percent, scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=position_axis(positions),
        color=alt.Color("arm:N", scale=alt.Scale(domain=names), legend=alt.Legend(title=None, values=shown)),
        detail="kind:N",
    )
    dash = alt.StrokeDash("kind:N", scale=alt.Scale(domain=[FOUND, VANILLA], range=[[1, 0], [5, 4]]), legend=None)
    band = base.mark_area(opacity=0.1).encode(y=alt.Y("low:Q"), y2="high:Q")
    line = base.mark_line(strokeWidth=2, strokeJoin="round", point={"size": 50, "filled": True}).encode(
        y=y, strokeDash=dash
    )
    return alt.LayerChart(layer=[band, line])


def _factor_rows(runs: Sequence[Run], numbers: Numbers) -> list[list[object]]:
    having = [(number, run.factors) for number, run in enumerate(runs) if run.factors is not None]
    return [
        [
            layer,
            *(
                numbers(("runs", number, "factors", "values", layer), "factor") if layer < len(factors) else NOTHING
                for number, factors in having
            ),
        ]
        for layer in range(max(len(factors) for _, factors in having))
    ]


def _convergence(runs: Sequence[Run]) -> list[Panel]:
    """A generation's mean by evaluations, for the runs that maximise the same."""
    words = [fitness_words(run.history) for run in runs if run.history]
    same = [run for run in runs if run.history and fitness_words(run.history) == words[0]]
    rows: Rows = [
        {
            "arm": run.name,
            "x": group[-1].evaluations,
            "y": rounded(sum(point.record.fitness for point in group) / len(group)),
        }
        for run in same
        if run.history is not None
        for group in generations(run.history)
    ]
    if len({row["arm"] for row in rows}) < 2:
        return []
    names = [VANILLA, *(run.name for run in runs)]
    shown = [run.name for run in same]
    x = alt.X("x:Q", title="evaluations (candidate·prompt)", axis=alt.Axis(grid=False), scale=alt.Scale(zero=True))
    y = alt.Y("y:Q", title=words[0], axis=alt.Axis(format="+.3~g"))
    zero = alt.Chart(alt.InlineData(values=[{"y": 0.0}])).mark_rule(style="rule-soft", strokeDash=[2, 3]).encode(y=y)
    color = alt.Color("arm:N", scale=alt.Scale(domain=names), legend=alt.Legend(title=None, values=shown))
    lines = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y, color=color)
    return [
        Panel(
            key="all-convergence",
            title="Mean of a generation by evaluations, all runs",
            note="On each run's own search records. A method that explores widely has a lower mean; what counts is "
            "the test.",
            label=f"Mean fitness of a generation by evaluations of {', '.join(shown)}.",
            chart=alt.LayerChart(
                layer=[zero, lines.mark_line(strokeWidth=2, strokeJoin="round", point={"size": 30, "filled": True})]
            ),
            columns=("run", "evaluations", "mean"),
            rows=[[row["arm"], f"{row['x']:,}", f"{row['y']:+.4f}"] for row in rows],
        )
    ]
