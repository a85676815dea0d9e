"""Differences with their intervals, and as colours: charts without size, title or colours of their own."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from ropewalk.report.layers import LAYER, Rows, arm_colour, arm_shape


def interval_layers(
    rows: Rows,
    x: alt.X,
    y_title: str,
    names: Sequence[str],
    *,
    form: str = "+.3~g",
    aside: bool = True,
    joined: bool = True,
) -> alt.LayerChart:
    """A point with its interval for each row {arm, x, y, low, high}, and a dotted line at 0.

    names: the arms in the palette's order, of which the first is grey; those without a row stay out of the legend.
    aside: arms stand side by side, where x is a list of names; else the points of an arm are joined, if they are to be.
    """
    order = list(names)
    shown = [name for name in order if any(row["arm"] == name for row in rows)]
    y = alt.Y("y:Q", title=y_title, axis=alt.Axis(format=form))
    zero = alt.Chart(alt.InlineData(values=[{"y": 0.0}])).mark_rule(style="rule-soft", strokeDash=[2, 3]).encode(y=y)
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, color=arm_colour(order, shown))
    if aside and len(shown) > 1:
        base = base.encode(xOffset=alt.XOffset("arm:N", sort=order))
    marks = [base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q"), y2="high:Q")]
    if joined and not aside:
        marks.append(base.mark_line(strokeWidth=1.2, opacity=0.7).encode(y=y))
    marks.append(base.mark_point(filled=True, size=56, opacity=1).encode(y=y, shape=arm_shape(order, shown)))
    return alt.LayerChart(layer=[zero, *marks])


def heat_layers(rows: Rows, x: alt.X, y_title: str, names: Sequence[str]) -> alt.LayerChart:
    """A coloured cell for each row {x, y, value}: blue above 0, orange below. names: of y, from above."""
    end = max((abs(row["value"]) for row in rows), default=0.0) or 0.01
    cells = alt.Chart(alt.InlineData(values=rows)).mark_rect().encode(
        x=x,
        y=alt.Y("y:O", title=y_title, sort=list(names)),
        color=alt.Color(
            "value:Q",
            scale=alt.Scale(domain=[-end, 0, end], range="diverging", clamp=True, interpolate="rgb"),
            legend=alt.Legend(title=None, format="+.2~g", gradientLength=160, gradientThickness=10),
        ),
        tooltip=[alt.Tooltip("x:O"), alt.Tooltip("y:O"), alt.Tooltip("value:Q", format="+.4f")],
    )  # fmt: skip
    return alt.LayerChart(layer=[cells])


def named_axis(names: Sequence[str], title: str | None) -> alt.X:
    """An axis of names, in their order; long ones are aslant."""
    long = sum(len(name) + 2 for name in names) > 120
    return alt.X("x:O", title=title, sort=list(names), axis=alt.Axis(labelAngle=-40 if long else 0, labelLimit=220))


def layer_axis(last: int) -> alt.X:
    """Layers 0 to `last`."""
    axis = alt.Axis(format="d", tickMinStep=1, grid=False)
    return alt.X("x:Q", title=LAYER, axis=axis, scale=alt.Scale(domain=[0, max(last, 1)], padding=12, nice=False))
