"""What each candidate of a search did at each position, as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import numpy as np

from ropewalk.report.arms import key
from ropewalk.report.convergence import rounded
from ropewalk.report.history import History
from ropewalk.report.layers import Rows
from ropewalk.report.panel import Panel

MOST_COLUMNS, MOST_CELLS = 120, 6000  # candidates beyond are put together
SHOWN = 0.98  # the share of the values that the colours cover: a ruined candidate would fade all others


def heat_panel(history: History, number: int, task: int) -> Panel | None:
    """Candidates in the order of the search by gold positions; None before a candidate has scores."""
    scored = [(index, history.gains(record, task)) for index, record in enumerate(history.candidates, 1)]
    known = [(index, gains) for index, gains in scored if gains is not None]
    if not known:
        return None
    positions = history.positions(task)
    width = math.ceil(len(known) / max(1, min(MOST_COLUMNS, MOST_CELLS // len(positions))))
    steps = [known[first : first + width] for first in range(0, len(known), width)]
    means = [np.mean([gains for _, gains in step], axis=0) for step in steps]
    end = rounded(float(np.quantile(np.abs(means), SHOWN))) or 0.01
    rows: Rows = [
        {"x": first + 0.5, "x2": first + len(step) + 0.5, "position": f"@{position}", "gain": rounded(float(value))}
        for first, step, mean in zip(range(0, len(known), width), steps, means, strict=True)
        for position, value in zip(positions, mean, strict=True)
    ]
    what = "log-likelihood, nats a token" if history.measure(task) == "likelihood" else "accuracy"
    together = f" A column is the mean of {width} candidates." if width > 1 else ""
    name = history.names[task]
    return Panel(
        key=key(number, "heat", name),
        title="Candidates by position" + (f": {name}" if len(history.names) > 1 else ""),
        note=f"{what[:1].upper()}{what[1:]} above vanilla on the same records, in the order of the search.{together} "
        f"Blue gains, orange loses; colours end at ±{end:.3g}.",
        label=f"Heat map of {len(known)} candidates by {len(positions)} gold positions.",
        chart=_heat(rows, positions, end),
        height=max(100, min(360, 36 * len(positions))),
        columns=("candidates", *(f"@{position}" for position in positions)),
        rows=[
            [f"{first + 1}" if len(step) == 1 else f"{first + 1} to {first + len(step)}", *(f"{v:+.4f}" for v in mean)]
            for first, step, mean in zip(range(0, len(known), width), steps, means, strict=True)
        ],
    )


def _heat(rows: Rows, positions: Sequence[int], end: float) -> alt.LayerChart:
    cells = alt.Chart(alt.InlineData(values=rows)).mark_rect().encode(
        x=alt.X(
            "x:Q", title="candidate, in the order of the search", scale=alt.Scale(nice=False, zero=False),
            axis=alt.Axis(format="d", tickMinStep=1, grid=False),
        ),
        x2="x2:Q",
        y=alt.Y("position:O", title="gold position", sort=[f"@{position}" for position in positions]),
        color=alt.Color(
            "gain:Q",
            scale=alt.Scale(domain=[-end, 0, end], range="diverging", clamp=True, interpolate="rgb"),
            legend=alt.Legend(title=None, format="+.2~g", gradientLength=160, gradientThickness=10),
        ),
        tooltip=[alt.Tooltip("position:O"), alt.Tooltip("gain:Q", format="+.4f")],
    )  # fmt: skip
    return alt.LayerChart(layer=[cells])
