"""How spread out attention is, layer by layer, and whether that and a layer's part in the gain tell its factor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ropewalk.analysis.base import Analysis, Json, Subject
from ropewalk.analysis.parts.contributions import contributions
from ropewalk.analysis.parts.effects import cells, difference, effect, size
from ropewalk.analysis.parts.points import point
from ropewalk.analysis.parts.ranks import correlation, in_words
from ropewalk.analysis.parts.readings import Readings, read_arms
from ropewalk.comparison import ALPHA
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors

if TYPE_CHECKING:
    from ropewalk.report.panel import Panel

Array = NDArray[np.float64]
THIRDS = ("first third", "middle third", "last third")
PREDICTORS = {"entropy": "vanilla's entropy", "part": "the layer's part in the gain"}
BUILT = ("searched", "predicted", "their mean")


@dataclass(frozen=True)
class Options:
    """None: the prompts and the factors say all."""


class Entropy(Analysis):
    """Entropy of the answer's attention and its weight on the thirds of the context, without and with factors.

    Then two things known of each layer are tried as predictors of its given factor: vanilla's entropy in it, and its
    part in the gain, which is what U of the log-likelihood loses when it alone is put back to factor 1 (leave one out).
    First by rank correlation over layers. Then factors are built: each layer's by the least-squares plane through all
    OTHER layers' factors over both predictors, within the range of the given ones. Every second record is learnt from;
    the others score what was built against the given factors and against their mean in every layer.
    """

    name: ClassVar[str] = "entropy"
    question: ClassVar[str] = "Do a layer's attention entropy and its part in the gain tell which factor it wants?"
    example: ClassVar[str] = "ropewalk analyze entropy --model demo --factors runs/demo --keys 10"
    OPTIONS: ClassVar[type] = Options

    def records(self, subject: Subject) -> Json:
        """Entropy and thirds by layer, before and after; the predictors; the factors built of them, and their score."""
        given = subject.one_set
        learn, test = halves(subject)
        _, found = read_arms(learn, {"vanilla": None, "factors": given})
        vanilla, factors = found["vanilla"], found["factors"]
        parts = contributions(learn, given)
        layers = subject.rotary_layers
        values = np.array([given[layer] for layer in layers], dtype=np.float64)
        predictors = {"entropy": vanilla.entropy, "part": parts.values}
        built = predicted(values, np.stack([rows.mean(axis=0) for rows in predictors.values()], axis=1))
        arms = {
            "searched": given,
            "predicted": _in_layers(subject, built),
            "their mean": _in_layers(subject, np.full(len(layers), values.mean())),
        }
        scored = test.score({"vanilla": None, **arms}, stage="Test")
        return {
            "positions": list(parts.vanilla.positions),
            "records": {"learnt": len(learn.evaluator.records), "tested": len(test.evaluator.records)},
            "num_layers": subject.num_layers,
            "layers": [
                {"layer": layer, "factor": values[row], "predicted": float(built[row]), "part": parts.effects[row]}
                | _attention(vanilla, factors, row)
                for row, layer in enumerate(layers)
            ],
            "change": {
                "entropy": difference((factors.entropy - vanilla.entropy).mean(axis=1)),
                "thirds": [
                    difference((factors.thirds - vanilla.thirds)[:, :, third].mean(axis=1)) for third in range(3)
                ],
            },
            "predicts": {
                name: correlation(rows, np.broadcast_to(values, rows.shape)) for name, rows in predictors.items()
            },
            "built": {name: effect(scored["vanilla"], scored[name]) for name in BUILT},
            "behind": {name: effect(scored[name], scored["searched"]) for name in BUILT[1:]},
        }

    def answer(self, records: Json) -> str:
        """One sentence that answers the question, with an interval."""
        told = ", and ".join(_told(words, records["predicts"][name]) for name, words in PREDICTORS.items())
        built = {name: size(records["built"][name]["likelihood"]) for name in BUILT}
        return (
            f"A layer's factor {told}; factors built of both change U on other records by "
            f"{built['predicted']}, the searched ones by {built['searched']}."
        )

    def remarks(self, records: Json) -> list[str]:
        """What the factors do to attention, and how far the built ones are behind."""
        change = records["change"]
        thirds = ", ".join(
            f"on the {name} {size(row, 100, 'points')}" for name, row in zip(THIRDS, change["thirds"], strict=True)
        )
        ahead = {name: size(row["likelihood"]) for name, row in records["behind"].items()}
        tests = [row for row in records["predicts"].values() if row["p"] is not None]
        return [
            f"With the factors the entropy of the answer's attention changes by {size(change['entropy'], unit='nats')} "
            f"on average over layers; its weight {thirds}.",
            f"The searched factors are ahead of the built ones by {ahead['predicted']}, and of their own mean in every "
            f"layer by {ahead['their mean']}.",
            f"{len(tests)} rank correlations over {len(records['layers'])} layers were tested, without correction; a "
            "layer's part follows from its factor, so it explains more than it predicts.",
        ]

    def panels(self, records: Json) -> list[Panel]:
        """Entropy and thirds by layer, the factors searched and built, and what they score."""
        return [
            _entropy_panel(records),
            _thirds_panel(records),
            *(_predictor_panel(records, name) for name in PREDICTORS),
            _factors_panel(records),
            _score_panel(records),
        ]


def _told(words: str, row: Json) -> str:
    verb = "goes with" if row["p"] is not None and row["p"] < ALPHA else "is not found to go with"
    return f"{verb} {words}: {in_words(row)}"


def halves(subject: Subject) -> tuple[Subject, Subject]:
    """The records of even places and those of odd ones: what is learnt of the first is scored on the second."""
    (name,) = subject.evaluators
    evaluator = subject.evaluator
    count = len(evaluator.records)
    if count < 4:
        raise DataError(f"{count} records: half of them are learnt from, half are scored; give at least 4 (--limit)")
    learn, test = (evaluator.part(range(first, count, 2)) for first in (0, 1))
    return replace(subject, evaluators={name: learn}), replace(subject, evaluators={name: test})


def predicted(factors: Array, predictors: Array) -> Array:
    """Factors [L] by least squares over predictors [L, P], each from all layers but its own, within the given range.

    Predictors are standardised; the one of a single value in all layers says nothing.
    """
    spread = predictors.std(axis=0)
    scaled = (predictors - predictors.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(factors)), scaled])
    built = np.empty(len(factors))
    for layer in range(len(factors)):
        others = np.arange(len(factors)) != layer
        weights, *_ = np.linalg.lstsq(design[others], factors[others])
        built[layer] = design[layer] @ weights
    return np.clip(built, factors.min(), factors.max())


def _in_layers(subject: Subject, values: Array) -> ScalingFactors:
    """These factors in the rotary layers, null elsewhere."""
    own = dict(zip(subject.rotary_layers, values.tolist(), strict=True))
    return ScalingFactors(own.get(layer) for layer in range(subject.num_layers))


def _attention(vanilla: Readings, factors: Readings, row: int) -> Json:
    """One layer before and after: means over records, changes with their intervals."""
    both = {"vanilla": vanilla, "factors": factors}
    return {
        **{
            name: {arm: getattr(read, name)[:, row].mean(axis=0).tolist() for arm, read in both.items()}
            for name in ("entropy", "thirds", "first", "prompt_entropy", "prompt_thirds")
        },
        "change": {
            "entropy": difference(factors.entropy[:, row] - vanilla.entropy[:, row]),
            "thirds": [difference((factors.thirds - vanilla.thirds)[:, row, third]) for third in range(3)],
        },
    }


def _entropy_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, layer_axis
    from ropewalk.report.panel import Panel

    name = "change of the entropy"
    rows = [one for layer in records["layers"] for one in point(name, layer["layer"], layer["change"]["entropy"])]
    return Panel(
        key="entropy-change",
        title="Entropy of the answer's attention: what the factors change",
        note="Nats, mean over heads and over the tokens that predict the answer, with factors minus without; 95 % "
        "intervals. In the table also the weight on the very first token, and the entropy of the prompt's own tokens.",
        label="Points with intervals: the change of attention entropy by layer.",
        chart=interval_layers(
            rows,
            layer_axis(records["num_layers"] - 1),
            "nats above vanilla",
            ["", name],
            aside=False,
        ),
        columns=("layer", "vanilla", "factors", "change", "interval", "first token", "with factors", "prompt", "after"),
        rows=[
            [
                layer["layer"],
                *(f"{layer['entropy'][arm]:.3f}" for arm in ("vanilla", "factors")),
                *cells(layer["change"]["entropy"])[:2],
                *(f"{layer['first'][arm]:.3f}" for arm in ("vanilla", "factors")),
                *(f"{layer['prompt_entropy'][arm]:.3f}" for arm in ("vanilla", "factors")),
            ]
            for layer in records["layers"]
        ],
    )


def _thirds_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, layer_axis
    from ropewalk.report.panel import Panel

    rows = [
        one
        for layer in records["layers"]
        for name, row in zip(THIRDS, layer["change"]["thirds"], strict=True)
        for one in point(name, layer["layer"], row)
    ]
    return Panel(
        key="entropy-thirds",
        title="Weight on the thirds of the context: what the factors change",
        note="Of the tokens that predict the answer, with factors minus without; 95 % intervals. The first third holds "
        "the very first token, on which many heads rest.",
        label="Points with intervals: the change of the attention weight on each third of the context, by layer.",
        chart=interval_layers(
            rows, layer_axis(records["num_layers"] - 1), "share above vanilla", ["", *THIRDS], aside=False
        ),
        columns=("layer", *(f"{name}, {arm}" for name in THIRDS for arm in ("vanilla", "factors"))),
        rows=[
            [
                layer["layer"],
                *(f"{layer['thirds'][arm][third]:.3f}" for third in range(3) for arm in ("vanilla", "factors")),
            ]
            for layer in records["layers"]
        ],
    )


def _predictor_panel(records: Json, name: str) -> Panel:
    import altair as alt

    from ropewalk.report.layers import arm_colour
    from ropewalk.report.panel import Panel

    def value(layer: Json) -> float:
        return float(layer["entropy"]["vanilla"] if name == "entropy" else layer["part"]["likelihood"]["difference"])

    words = PREDICTORS[name]
    rows = [{"arm": "a layer", "x": value(layer), "y": layer["factor"]} for layer in records["layers"]]
    unit = "nats" if name == "entropy" else "nats a token"
    points = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(filled=True, size=56, opacity=1)
        .encode(
            x=alt.X("x:Q", title=f"{words}, {unit}", scale=alt.Scale(zero=False, padding=12)),
            y=alt.Y("y:Q", title="searched factor", scale=alt.Scale(zero=False)),
            color=arm_colour(["", "a layer"], ["a layer"]),
        )
    )
    return Panel(
        key=f"entropy-{name}-predicts",
        title=f"Does {words} tell the factor?",
        note=f"A point a layer: {in_words(records['predicts'][name])}.",
        label=f"Points: each layer's searched factor by {words}.",
        chart=alt.LayerChart(layer=[points]),
        columns=("layer", words, "factor"),
        rows=[[layer["layer"], f"{value(layer):.4f}", f"{layer['factor']:.3f}"] for layer in records["layers"]],
    )


def _factors_panel(records: Json) -> Panel:
    from ropewalk.report.layers import factor_layers
    from ropewalk.report.panel import Panel

    def full(name: str) -> ScalingFactors:
        own = {layer["layer"]: layer[name] for layer in records["layers"]}
        return ScalingFactors(own.get(layer) for layer in range(records["num_layers"]))

    factors = {"searched": full("factor"), "predicted": full("predicted")}
    return Panel(
        key="entropy-factors",
        title="Factors: searched, and built of both predictors",
        note="Each layer's prediction comes from the other layers alone. Dotted: s = 1, the model as trained.",
        label="Lines: the searched and the predicted factor by layer.",
        chart=factor_layers(factors, ["", *factors], list(factors)),
        columns=("layer", "searched", "predicted"),
        rows=[[layer["layer"], f"{layer['factor']:.3f}", f"{layer['predicted']:.3f}"] for layer in records["layers"]],
    )


def _score_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, named_axis
    from ropewalk.report.panel import Panel

    places = [*(f"@{position}" for position in records["positions"]), "U"]
    rows = [
        one
        for name, found in records["built"].items()
        for place, row in zip(places, [*found["by_position"], found["likelihood"]], strict=True)
        for one in point(name, place, row)
    ]
    return Panel(
        key="entropy-score",
        title="What the built factors score on records that were not learnt from",
        note=f"Log-likelihood above vanilla, {records['records']['tested']} records, 95 % intervals.",
        label="Points with intervals: the change of the log-likelihood by gold position, for each set of factors.",
        chart=interval_layers(rows, named_axis(places, "gold position"), "nats a token above vanilla", ["", *BUILT]),
        columns=("factors", *places, "U, interval", "p", "U of the metric, points", "interval", "p"),
        rows=[
            [
                name,
                *(cells(row)[0] for row in found["by_position"]),
                *cells(found["likelihood"]),
                *cells(found["accuracy"], 100),
            ]
            for name, found in records["built"].items()
        ],
    )


ANALYSIS = Entropy
