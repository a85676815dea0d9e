"""The report's charts of what was evaluated, drawn here as SVG: the page needs no program for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import altair as alt

from ropewalk.comparison import compare, metric_words
from ropewalk.report.intervals import interval_layers, named_axis
from ropewalk.report.layers import POSITION, accuracy_layers
from ropewalk.report.theme import DARK, LIGHT
from ropewalk.results import TaskResult

Arms = Mapping[str, TaskResult]  # vanilla first
MOST_ARMS = 6  # colours that can be told apart
HEIGHT = 250
SMALLEST, LARGEST = 240, 1200  # width in pixels
AXES = 90  # pixels beside the plot


def accuracy_chart(arms: Arms) -> alt.LayerChart:
    """The U of each arm: accuracy by gold position with 95 % intervals."""
    first = next(iter(arms.values()))
    series = {name: (result.accuracy.tolist(), result.intervals) for name, result in arms.items()}
    return accuracy_layers(first.positions, series, list(arms), metric_words(first.metric))


def likelihood_chart(arms: Arms) -> alt.LayerChart | None:
    """What each arm gains over vanilla in log-likelihood by position, with intervals; None where nothing is finite."""
    names = list(arms)
    rows: list[dict[str, Any]] = [
        {"arm": name, "x": f"@{position}", "y": gain["difference"], "low": gain["low"], "high": gain["high"]}
        for name in names[1:]
        for position, gain in zip(
            arms[name].positions, paired(arms[names[0]], arms[name])["log_likelihood"], strict=True
        )
        if gain["difference"] is not None
    ]
    if not rows:
        return None
    axis = named_axis([f"@{position}" for position in arms[names[0]].positions], POSITION)
    return interval_layers(rows, axis, f"nats a token above {names[0]}", names)


def svg(chart: alt.LayerChart, width: int, *, dark: bool) -> str:
    """The chart as SVG of about that many pixels in the report's colours."""
    import vl_convert

    inner = min(max(width, SMALLEST), LARGEST) - AXES
    spec = chart.properties(width=inner, height=HEIGHT).to_dict()
    theme = DARK if dark else LIGHT | {"background": "transparent"}
    legend = {**theme["legend"], "columns": 2 if width < 520 else 4}
    return str(vl_convert.vegalite_to_svg(spec, config={**theme, "legend": legend}))


def table(arms: Arms, reference: str) -> list[dict[str, Any]]:
    """For each arm its averages with intervals, and what it gains over the reference, paired by record."""
    rows = []
    for name, result in arms.items():
        figures = _summary(result)
        row = {
            "name": name,
            "average": [figures["average"], *figures["average_interval"]],
            "utilisation": [figures["utilisation"], *figures["utilisation_interval"]],
            "gain": None,
            "accuracy_gain": None,
        }
        if name != reference:
            gains = paired(arms[reference], result)
            row |= {"gain": gains["utilisation_log_likelihood"], "accuracy_gain": gains["utilisation"]}
        rows.append(row)
    return rows


def positions_table(arms: Arms) -> dict[str, Any]:
    """The numbers of the charts, for those who don't see them."""
    first = next(iter(arms.values()))
    return {
        "positions": list(first.positions),
        "rows": [
            {"name": name, "accuracy": result.accuracy.tolist(), "interval": [list(one) for one in result.intervals]}
            for name, result in arms.items()
        ],
    }


def chosen(arms: Mapping[str, TaskResult | None], hidden: Sequence[str] = ()) -> dict[str, TaskResult]:
    """The arms that were evaluated and are to be seen, as many as have colours; the first, vanilla, always."""
    there = {name: result for name, result in arms.items() if result is not None and name not in hidden}
    return dict(list(there.items())[:MOST_ARMS])


_SUMMARIES: dict[int, tuple[TaskResult, dict[str, Any]]] = {}


def _summary(result: TaskResult) -> dict[str, Any]:
    known = _SUMMARIES.get(id(result))
    if known is None:
        known = _SUMMARIES[id(result)] = (result, result.summary())
    return known[1]


class _Pair:
    """Two results that are known by being themselves: arrays have no hash."""

    def __init__(self, reference: TaskResult, other: TaskResult) -> None:
        self.reference, self.other = reference, other

    def __eq__(self, another: object) -> bool:
        return isinstance(another, _Pair) and self._ids() == another._ids()

    def __hash__(self) -> int:
        return hash(self._ids())

    def _ids(self) -> tuple[int, int]:
        return id(self.reference), id(self.other)


def paired(reference: TaskResult, other: TaskResult) -> dict[str, Any]:
    """`compare`, once for each pair: its ten thousand resamples take a moment."""
    return _compared(_Pair(reference, other))


@lru_cache(maxsize=256)
def _compared(pair: _Pair) -> dict[str, Any]:
    return compare(pair.reference, pair.other)
