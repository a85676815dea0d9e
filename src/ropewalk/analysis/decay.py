"""How fast attention scores fall with the distance, layer by layer, and whether less of that is what helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ropewalk.analysis.base import Analysis, Json, Subject
from ropewalk.analysis.parts.contributions import contributions
from ropewalk.analysis.parts.effects import cells, difference, direction, effect, size
from ropewalk.analysis.parts.points import point
from ropewalk.analysis.parts.ranks import correlation, in_words
from ropewalk.analysis.parts.readings import Readings, read_arms
from ropewalk.comparison import ALPHA
from ropewalk.errors import DataError
from ropewalk.stats import cluster_bootstrap

if TYPE_CHECKING:
    from ropewalk.report.panel import Panel

Array = NDArray[np.float64]
ARMS = ("vanilla", "factors")
KINDS = ("measured", "theory")
UNIT = "logits a doubling"


@dataclass(frozen=True)
class Options:
    """None: the prompts and the factors say all."""


class Decay(Analysis):
    """The paper's hypothesis (arXiv 2503.04355): q·k decays with distance, and factors above 1 slow that down.

    Decay: the slope of the mean score q·k / sqrt(D) over the logarithm of the distance, in logits lost a doubling, from
    all pairs of tokens of real prompts but the first key; distances in half octaves of equal weight. In theory: the
    same slope of RoFormer's bound (arXiv 2104.09864, section 3.4.3), a share of that at distance 0, from the tables
    that the layer gets. A factor moves such a curve along the logarithm of the distance: what it changes is less the
    slope than the height. So lift: the mean over distances of what the factors add to the curve, above what they add at
    distance 0, which no rotation reaches. If less decay is what helps, the layers with the most lift should carry the
    gain: tested is the rank correlation over layers of the lift with the layer's part in the gain, which is what U of
    the log-likelihood loses when that layer alone is put back to factor 1.
    """

    name: ClassVar[str] = "decay"
    question: ClassVar[str] = (
        "Does attention decay with distance, and does less decay predict a layer's part in the gain?"
    )
    example: ClassVar[str] = "ropewalk analyze decay --model demo --factors runs/demo --keys 10"
    OPTIONS: ClassVar[type] = Options

    def records(self, subject: Subject) -> Json:
        """Curves and decay by layer, before and after; each layer's part in the gain; their rank correlations."""
        given = subject.one_set
        starts, found = read_arms(subject, {"vanilla": None, "factors": given})
        if len(starts) < 4:
            raise DataError("prompts of 3 tokens at most show no decay; expected at least 4 tokens")
        parts = contributions(subject, given)
        decay = {arm: -slope(found[arm].scores, starts) for arm in ARMS}
        theory = {arm: -slope(found[arm].bound, starts) for arm in ARMS}
        lifts = {
            "measured": height(found["factors"].scores) - height(found["vanilla"].scores),
            "theory": np.broadcast_to(
                height(found["factors"].bound) - height(found["vanilla"].bound), parts.values.shape
            ),
        }
        layers: list[Json] = [
            {
                "layer": layer,
                "factor": given[layer],
                "measured": {arm: _mean(decay[arm][:, row]) for arm in ARMS},
                "theory": {arm: float(theory[arm][row]) for arm in ARMS},
                "lift": difference(lifts["measured"][:, row]),
                "lift_in_theory": float(lifts["theory"][0, row]),
                "part": parts.effects[row],
            }
            for row, layer in enumerate(subject.rotary_layers)
        ]
        return {
            "positions": list(parts.vanilla.positions),
            "records": len(parts.vanilla.records),
            "num_layers": subject.num_layers,
            "gain": effect(parts.vanilla, parts.whole),
            "distances": starts,
            "layers": layers,
            "curves": {arm: _curves(found[arm]) for arm in ARMS},
            "decay": {arm: _mean(decay[arm].mean(axis=1)) for arm in ARMS},
            "less_decay": difference((decay["vanilla"] - decay["factors"]).mean(axis=1)),
            "lift": difference(lifts["measured"].mean(axis=1)),
            "falls": int(sum(row["measured"]["vanilla"]["low"] > 0 for row in layers)),
            "predicts": {kind: correlation(lifts[kind], parts.values) for kind in KINDS},
        }

    def answer(self, records: Json) -> str:
        """One sentence that answers the question, with an interval."""
        row = records["predicts"]["measured"]
        verdict = "is not found to predict"
        if row["p"] is not None and row["p"] < ALPHA:
            verdict = "predicts" if row["rho"] > 0 else "goes against"
        mean = records["decay"]["vanilla"]
        return (
            f"Without factors scores fall by {mean['estimate']:.3g} {UNIT} of the distance on average over layers "
            f"(95 % interval {mean['low']:.3g} to {mean['high']:.3g}), and how much the factors lift far scores in a "
            f"layer {verdict} the layer's part in the gain: {in_words(row)}."
        )

    def remarks(self, records: Json) -> list[str]:
        """In how many layers scores fall, what the factors change on average, and what theory predicts."""
        gain = records["gain"]["likelihood"]
        noise = "" if direction(gain) else ", within the noise, so there is little to be predicted"
        less = records["less_decay"]
        ends = {"difference": "difference", "low": "high", "high": "low"}
        more = {part: less[end] if less[end] is None else -less[end] for part, end in ends.items()}
        return [
            f"Scores fall with the distance in {records['falls']} of {len(records['layers'])} layers outside noise; "
            f"on average over layers the factors change the decay by {size(more, unit=UNIT)} and the scores, over all "
            f"distances, by {size(records['lift'], unit='logits')}.",
            "The lift in theory, of RoFormer's bound, and the layer's part in the gain: "
            f"{in_words(records['predicts']['theory'])}.",
            f"The gain to be predicted: on {records['records']} records U of the log-likelihood changes by "
            f"{size(gain)}{noise}.",
        ]

    def panels(self, records: Json) -> list[Panel]:
        """Decay by layer as measured and in theory, the scores by distance, and each layer's part in the gain."""
        return [
            _by_layer_panel(records),
            _theory_panel(records),
            _curve_panel(records),
            *(_prediction_panel(records, kind) for kind in KINDS),
        ]


def slope(curves: Array, starts: list[int]) -> Array:
    """Least-squares slope over log2 of the distance, [...], of curves [..., distances], without distance 0 and NaN."""
    x = np.log2(np.asarray(starts[1:], dtype=np.float64))
    there = np.isfinite(curves[..., 1:])
    count = there.sum(axis=-1)
    y = np.where(there, curves[..., 1:], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x_gap = there * (x - ((there * x).sum(axis=-1) / count)[..., None])
        return np.asarray((x_gap * y).sum(axis=-1) / (x_gap * x_gap).sum(axis=-1))


def height(curves: Array) -> Array:
    """Mean over distances, [...], of how far curves [..., distances] lie above their value at distance 0."""
    return np.asarray(np.nanmean(curves[..., 1:] - curves[..., :1], axis=-1))


def _mean(values: Array) -> Json:
    found = cluster_bootstrap(values[:, None], lambda means: means[..., 0])
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


def _curves(read: Readings) -> Json:
    """By layer: mean score above that at distance 0, null where there is no pair; and the bound."""
    scores = read.scores.mean(axis=0)
    above = scores - scores[:, :1]
    measured = [[float(value) if np.isfinite(value) else None for value in row] for row in above]
    return {"measured": measured, "theory": read.bound.tolist()}


def _by_layer_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, layer_axis
    from ropewalk.report.panel import Panel

    rows: list[dict[str, Any]] = [
        {"arm": arm, "x": row["layer"], "y": found["estimate"], "low": found["low"], "high": found["high"]}
        for row in records["layers"]
        for arm in ARMS
        for found in [row["measured"][arm]]
    ]
    return Panel(
        key="decay-measured",
        title="Decay by layer, measured from q·k",
        note="Logits that the mean score loses as the distance doubles, with 95 % intervals; below 0 it grows. Lift: "
        "what the factors add to the scores over distances, above what they add at distance 0.",
        label="Points with intervals: the decay of attention scores by layer, without and with factors.",
        chart=interval_layers(rows, layer_axis(records["num_layers"] - 1), UNIT, ARMS, form=".3~g", aside=False),
        columns=("layer", "factor", "vanilla", "factors", "lift", "interval", "part in the gain"),
        rows=[
            [
                row["layer"],
                f"{row['factor']:.3f}",
                *(f"{row['measured'][arm]['estimate']:.4f}" for arm in ARMS),
                *cells(row["lift"])[:2],
                cells(row["part"]["likelihood"])[0],
            ]
            for row in records["layers"]
        ],
    )


def _theory_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, layer_axis
    from ropewalk.report.panel import Panel

    rows: list[dict[str, Any]] = [
        {"arm": arm, "x": row["layer"], "y": row["theory"][arm], "low": row["theory"][arm], "high": row["theory"][arm]}
        for row in records["layers"]
        for arm in ARMS
    ]
    return Panel(
        key="decay-theory",
        title="Decay by layer in theory, from the frequencies",
        note="What RoFormer's bound loses as the distance doubles, as a share of the bound at distance 0.",
        label="Points: the decay of RoFormer's bound by layer, without and with factors.",
        chart=interval_layers(
            rows, layer_axis(records["num_layers"] - 1), "share a doubling", ARMS, form=".3~g", aside=False
        ),
        columns=("layer", "factor", "vanilla", "factors"),
        rows=[
            [row["layer"], f"{row['factor']:.3f}", *(f"{row['theory'][arm]:.4f}" for arm in ARMS)]
            for row in records["layers"]
        ],
    )


def _curve_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import heat_layers, named_axis
    from ropewalk.report.panel import Panel

    layers, starts = [row["layer"] for row in records["layers"]], [str(start) for start in records["distances"]]
    before, after = (records["curves"][arm]["measured"] for arm in ARMS)
    rows: list[dict[str, Any]] = [
        {"x": start, "y": str(layer), "value": b - a}
        for layer, old, new in zip(layers, before, after, strict=True)
        for start, a, b in zip(starts, old, new, strict=True)
        if a is not None and b is not None
    ]
    return Panel(
        key="decay-curves",
        title="Scores by distance: what the factors change",
        note="Mean score above that at distance 0, with factors minus without, in half octaves of distance: blue where "
        "far tokens gain. In the table both curves.",
        label="Heat map of the change of the mean score by layer and distance in tokens.",
        chart=heat_layers(
            rows, named_axis(starts, "distance, from … tokens"), "layer", [str(layer) for layer in layers]
        ),
        height=max(160, 13 * len(layers)),
        columns=("layer", "arm", *starts),
        rows=[
            [layer, arm, *("–" if value is None else f"{value:.3f}" for value in values)]
            for layer, *both in zip(layers, before, after, strict=True)
            for arm, values in zip(ARMS, both, strict=True)
        ],
    )


def _prediction_panel(records: Json, kind: str) -> Panel:
    import altair as alt

    from ropewalk.report.intervals import interval_layers
    from ropewalk.report.panel import Panel

    def lift(row: Json) -> float:
        return float(row["lift"]["difference"] if kind == "measured" else row["lift_in_theory"])

    rows = [one for row in records["layers"] for one in point("a layer", lift(row), row["part"]["likelihood"])]
    unit = "measured, logits" if kind == "measured" else "in theory, share of the bound"
    x = alt.X(
        "x:Q",
        title=f"lift, {unit}",
        axis=alt.Axis(format="+.2~g", grid=False),
        scale=alt.Scale(zero=False, padding=12),
    )
    return Panel(
        key=f"decay-{kind}-prediction",
        title=f"Does the lift {'as measured' if kind == 'measured' else 'in theory'} predict the gain?",
        note=f"A point a layer, with 95 % intervals: {in_words(records['predicts'][kind])}.",
        label="Points with intervals: each layer's part in the gain by what the factors add to far scores in it.",
        chart=interval_layers(rows, x, "part in the gain, nats a token", ["", "a layer"]),
        columns=("layer", "lift", "part in the gain", "interval"),
        rows=[[row["layer"], f"{lift(row):+.4f}", *cells(row["part"]["likelihood"])[:2]] for row in records["layers"]],
    )


ANALYSIS = Decay
