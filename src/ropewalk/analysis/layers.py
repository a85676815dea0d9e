"""Which layers matter for which place: factors in a part of the layers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ropewalk.analysis.base import Analysis, Json, Subject
from ropewalk.analysis.parts.effects import cells, direction, effect, size, too_few, with_holm
from ropewalk.analysis.parts.given import numbers
from ropewalk.factors import ScalingFactors
from ropewalk.options import option
from ropewalk.results import TaskResult
from ropewalk.stats import holm

if TYPE_CHECKING:
    from ropewalk.report.panel import Panel

PARTS = ("all", "first half", "last half", "first third", "middle third", "last third")
FOUND = "given factors"
UNKNOWN = "what the paper says is not shown"
Layers = dict[str, list[int]]


@dataclass(frozen=True)
class Options:
    """How much is scaled, and where."""

    scales: str = option("0.9,1.1", "Factors that a part of the layers gets, the others keep 1; commas between them.")
    singles: bool = option(True, "Also each layer alone and, of given factors, each layer put back to 1.")


class LayersAnalysis(Analysis):
    """Factors in the first or last half, in each third, in each single layer; 1 elsewhere.

    The paper (arXiv 2503.04355) says that early layers help the end and late layers the beginning. Tested as said: the
    first half scaled alone by a factor above 1 changes the log-likelihood at the last gold position, the last half that
    at the first one. Of given factors (`--factors`) each part is kept alone too, and each layer put back to 1.
    """

    name: ClassVar[str] = "layers"
    question: ClassVar[str] = "Which layers matter: do early ones help the end, and late ones the beginning?"
    example: ClassVar[str] = "ropewalk analyze layers --model demo --keys 10 --limit 20"
    OPTIONS: ClassVar[type] = Options

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        self._scales = numbers(self.name, "scales", self.options.scales, low=0.0)

    def records(self, subject: Subject) -> Json:
        """Each part and factor against vanilla, and the given factors without a layer against all of them."""
        parts = parts_of(subject.rotary_layers, singles=self.options.singles)
        arms: dict[tuple[str, str], ScalingFactors] = {
            (f"{scale:g}", part): subject.only(layers, scale)
            for scale in self._scales
            for part, layers in parts.items()
        }
        given = subject.one_set if subject.factors else None
        if given is not None:
            arms |= {(FOUND, part): subject.only(layers, given) for part, layers in parts.items()}
        without = {} if given is None or not self.options.singles else _without(subject, given)
        scored = subject.score(
            {"vanilla": None}
            | {" ".join(arm): factors for arm, factors in arms.items()}
            | {f"{FOUND} without {layer}": factors for layer, factors in without.items()},
            stage="Layers",
        )
        vanilla = scored["vanilla"]
        whole = scored.get(f"{FOUND} all")
        return {
            "positions": list(vanilla.positions),
            "records": len(vanilla.records),
            "metric": vanilla.metric,
            "vanilla": vanilla.summary(),
            "num_layers": subject.num_layers,
            "parts": parts,
            "factors": None if given is None else list(given.values),
            "arms": {
                scale: with_holm({part: effect(vanilla, scored[f"{scale} {part}"]) for part in parts})
                for scale in dict.fromkeys(scale for scale, _ in arms)
            },
            "without": _losses(whole, {str(layer): scored[f"{FOUND} without {layer}"] for layer in without}),
            "claim": self._claim(vanilla, scored),
        }

    def _claim(self, vanilla: TaskResult, scored: Mapping[str, TaskResult]) -> Json | None:
        """What the paper says, for each factor above 1: early layers at the end, late layers at the beginning."""
        above = [scale for scale in self._scales if scale > 1]
        if not above or len(vanilla.positions) < 2:
            return None
        claims: Json = {}
        for scale in above:
            early, late = (effect(vanilla, scored[f"{scale:g} {part}"])["by_position"] for part in PARTS[1:3])
            claims[f"{scale:g}"] = {"early": early[-1], "late": late[0]}
        rows = [row for claim in claims.values() for row in claim.values() if row["p"] is not None]
        for row, p in zip(rows, holm([row["p"] for row in rows]) if rows else [], strict=True):
            row["p_holm"] = float(p)
        return claims

    def answer(self, records: Json) -> str:
        """One sentence that answers the question, with an interval."""
        if records["claim"] is None:
            return _strongest(records)
        scale, claim = next(iter(records["claim"].items()))
        first, last = records["positions"][0], records["positions"][-1]
        words = {1: "help", -1: "hurt", 0: "change nothing beyond the noise at"}
        early, late = (words[direction(claim[part])] for part in ("early", "late"))
        signs = {direction(claim["early"]), direction(claim["late"])}
        verdict = "as the paper says" if signs == {1} else "not as the paper says" if -1 in signs else UNKNOWN
        return (
            f"Scaled alone by {scale}, early layers (the first half) {early} the end (@{last}: "
            f"{_tested(claim['early'])}) and late layers {late} the beginning (@{first}: {_tested(claim['late'])}): "
            f"{verdict}."
        )

    def remarks(self, records: Json) -> list[str]:
        """Of given factors: which part carries them, and which layer."""
        said = too_few(records["records"], max(map(len, records["arms"].values())))
        said += [_strongest(records)] if records["claim"] is not None else []
        if records["factors"] is None:
            return said
        arms = records["arms"][FOUND]
        halves = ", ".join(f"the {part} alone {size(arms[part]['likelihood'])}" for part in PARTS[1:3] if part in arms)
        said.append(f"The given factors change U by {size(arms['all']['likelihood'])}; {halves}.")
        layers = [
            (layer, row["likelihood"]) for layer, row in records["without"].items() if direction(row["likelihood"])
        ]
        if records["without"]:
            worst = min(layers, key=lambda item: item[1]["difference"], default=None)
            said.append(
                "No single layer of the given factors matters beyond the noise: put back to 1, none changes U."
                if worst is None
                else f"Put back to 1, {len(layers)} single layers of the given factors change U outside the noise, "
                f"layer {worst[0]} the most: {size(worst[1])}."
            )
        return said

    def panels(self, records: Json) -> list[Panel]:
        """Parts by position, single layers by their effect on U and by position; the same of given factors."""
        found = [_parts_panel(records, scale) for scale in records["arms"]]
        if any(_single(records, scale) for scale in records["arms"]):
            found.append(_singles_panel(records))
            found += [_heat_panel(records, scale) for scale in records["arms"]]
        return found + ([_without_panel(records)] if records["without"] else [])


def parts_of(rotary: list[int], *, singles: bool) -> Layers:
    """Halves, thirds and single layers of the rotary ones, by name; parts without layers are left out."""
    halves, thirds = np.array_split(rotary, 2), np.array_split(rotary, 3)
    parts = dict(zip(PARTS, [rotary, *(part.tolist() for part in (*halves, *thirds))], strict=True))
    parts |= {f"layer {layer}": [layer] for layer in rotary} if singles else {}
    return {name: layers for name, layers in parts.items() if layers}


def _without(subject: Subject, given: ScalingFactors) -> dict[int, ScalingFactors]:
    """The given factors with one layer put back to 1, for every layer that has another factor."""
    return {
        layer: subject.only(set(subject.rotary_layers) - {layer}, given)
        for layer in subject.rotary_layers
        if given[layer] != 1.0
    }


def _losses(whole: TaskResult | None, without: Mapping[str, TaskResult]) -> Json:
    return {} if whole is None else with_holm({layer: effect(whole, result) for layer, result in without.items()})


def _tested(row: Json) -> str:
    """Its size and the corrected p-value that the verdict goes by, which an interval alone does not show."""
    return size(row) + ("" if row["p"] is None else f", p = {row['p_holm']:.2g} (Holm)")


def _strongest(records: Json) -> str:
    """The part and factor that change U the most, upwards."""
    rows = [
        (scale, part, row) for scale, arms in records["arms"].items() if scale != FOUND for part, row in arms.items()
    ]
    finite = [(scale, part, row["likelihood"]) for scale, part, row in rows if row["likelihood"]["p"] is not None]
    if not finite:
        return "No log-likelihood is finite, so nothing can be said."
    scale, part, row = max(finite, key=lambda item: float(item[2]["difference"]))
    noise = "" if direction(row) else ", within the noise after Holm's correction"
    where = "all layers" if part == "all" else part if part.startswith("layer") else f"the {part} of the layers"
    return f"Of {len(finite)} ways to scale, U gains most with {where} scaled by {scale}: {size(row)}{noise}."


def _title(scale: str) -> str:
    return "Given factors kept" if scale == FOUND else f"Factor {scale}"


def _parts_panel(records: Json, scale: str) -> Panel:
    from ropewalk.report.intervals import interval_layers, named_axis
    from ropewalk.report.panel import Panel

    positions = [f"@{position}" for position in records["positions"]]
    arms = {part: records["arms"][scale][part] for part in PARTS if part in records["arms"][scale]}
    rows: list[dict[str, Any]] = [
        {"arm": part, "x": at, "y": row["difference"], "low": row["low"], "high": row["high"]}
        for part, found in arms.items()
        for at, row in zip(positions, found["by_position"], strict=True)
        if row["difference"] is not None
    ]
    return Panel(
        key=f"layers-parts-{scale.replace(' ', '-')}",
        title=f"{_title(scale)} in a part of the layers",
        note=f"Log-likelihood above vanilla by gold position, {records['records']} records, 95 % intervals. In the "
        "table also U of it, and U of the metric in points.",
        label="Points with intervals: the change of the log-likelihood by gold position, for each part of the layers.",
        chart=interval_layers(rows, named_axis(positions, "gold position"), "nats a token above vanilla", PARTS),
        columns=("part", "U", "95 % interval", "p (Holm)", "points", *positions),
        rows=[
            [
                part,
                *cells(found["likelihood"]),
                cells(found["accuracy"], 100)[0],
                *(cells(row)[0] for row in found["by_position"]),
            ]
            for part, found in arms.items()
        ],
    )


def _single(records: Json, scale: str) -> list[tuple[int, Json]]:
    arms = records["arms"][scale].items()
    return [(int(part.removeprefix("layer ")), row) for part, row in arms if part.startswith("layer ")]


def _singles_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, layer_axis
    from ropewalk.report.panel import Panel

    scales = list(records["arms"])
    rows: list[dict[str, Any]] = [
        {"arm": _title(scale), "x": layer, "y": row["difference"], "low": row["low"], "high": row["high"]}
        for scale in scales
        for layer, found in _single(records, scale)
        if (row := found["likelihood"])["difference"] is not None
    ]
    return Panel(
        key="layers-single",
        title="One layer scaled alone",
        note="Change of U of the log-likelihood, with 95 % intervals; p-values of the table are Holm-corrected.",
        label="Points with intervals: the change of U by the layer that is scaled alone.",
        chart=interval_layers(
            rows,
            layer_axis(records["num_layers"] - 1),
            "U above vanilla, nats a token",
            ["", *map(_title, scales)],
            aside=False,
        ),
        columns=("factor", "layer", "U", "interval", "p (Holm)"),
        rows=[
            [scale, layer, *cells(found["likelihood"])] for scale in scales for layer, found in _single(records, scale)
        ],
    )


def _heat_panel(records: Json, scale: str) -> Panel:
    from ropewalk.report.intervals import heat_layers, named_axis
    from ropewalk.report.panel import Panel

    positions, single = [f"@{position}" for position in records["positions"]], _single(records, scale)
    rows: list[dict[str, Any]] = [
        {"x": str(layer), "y": at, "value": row["difference"] or 0.0}
        for layer, found in single
        for at, row in zip(positions, found["by_position"], strict=True)
    ]
    axis = named_axis([str(layer) for layer, _ in single], "layer that is scaled alone")
    return Panel(
        key=f"layers-heat-{scale.replace(' ', '-')}",
        title=f"{_title(scale)} in one layer: where it helps",
        note="Log-likelihood above vanilla, nats a token: blue gains, orange loses.",
        label="Heat map of the change in log-likelihood by layer and gold position.",
        chart=heat_layers(rows, axis, "gold position", positions),
        height=max(100, 36 * len(positions)),
        columns=("layer", *positions),
        rows=[[layer, *(cells(row)[0] for row in found["by_position"])] for layer, found in single],
    )


def _without_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, layer_axis
    from ropewalk.report.panel import Panel

    name = "one layer put back to 1"
    rows: list[dict[str, Any]] = [
        {"arm": name, "x": int(layer), "y": row["difference"], "low": row["low"], "high": row["high"]}
        for layer, found in records["without"].items()
        if (row := found["likelihood"])["difference"] is not None
    ]
    return Panel(
        key="layers-without",
        title="The given factors with one layer put back to 1",
        note="Change of U of the log-likelihood against all given factors: below 0 the layer's factor was needed.",
        label="Points with intervals: the change of U by the layer that is put back to 1.",
        chart=interval_layers(
            rows, layer_axis(records["num_layers"] - 1), "U above the given factors", ["", name], aside=False
        ),
        columns=("layer", "factor", "U", "interval", "p (Holm)"),
        rows=[
            [layer, f"{records['factors'][int(layer)]:.3f}", *cells(found["likelihood"])]
            for layer, found in records["without"].items()
        ],
    )


ANALYSIS = LayersAnalysis
