"""Additive or redundant: does what factors gain depend on how deep vanilla's U is? From results that are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ropewalk import files
from ropewalk.analysis.base import Analysis, Json, Subject
from ropewalk.analysis.parts.effects import cells, counted, size
from ropewalk.analysis.parts.ranks import permutation_p, spearman
from ropewalk.comparison import ALPHA
from ropewalk.errors import DataError
from ropewalk.results import PERPLEXITY_METRIC
from ropewalk.stats import CONFIDENCE

if TYPE_CHECKING:
    from ropewalk.report.panel import Panel

FEWEST = 5  # of fewer settings not even a perfect order has a permutation p below 0.05


@dataclass(frozen=True)
class Options:
    """None: the results say all."""


class Posttraining(Analysis):
    """The gain of factors against the depth of vanilla's U, a point for each model, length and task.

    Training flattens the U too. If factors do the same work again (redundant), they gain in proportion to the depth; if
    they add to it (additive), the gain does not depend on it. Depth: the mean of the first and last position's accuracy
    less that of the inner ones. Gain: of the accuracy averaged over ALL positions, for the
    gain in the middle would share the depth's noise with the opposite sign and so seem to follow it.
    Reads what `eval --json` and searches write (result.json) and the matrix of `analyze transfer`; scores nothing.
    """

    name: ClassVar[str] = "posttraining"
    question: ClassVar[str] = "Is the gain additive to a flatter U, or redundant with it?"
    example: ClassVar[str] = "ropewalk analyze posttraining runs/kv runs/mdqa eval.json"
    form: ClassVar[Any] = "files"
    OPTIONS: ClassVar[type] = Options

    def records(self, subject: Subject) -> Json:
        """A point for each result, and how the gain follows the depth."""
        if not subject.files:
            raise DataError("no results given: name files that eval --json wrote, or run directories")
        settings: list[Json] = []
        flat = 0
        for path in subject.files:
            found = [_setting(*block) for block in _blocks(path)]
            settings += [one for one in found if one is not None]
            flat += found.count(None)
        if not settings:
            raise DataError("no result has a U: expected three positions or more, and a task with answers")
        depth = np.array([one["depth"] for one in settings])
        gain = np.array([one["gain"]["difference"] for one in settings])
        return {
            "settings": settings,
            "left_out": flat,
            "models": len({one["model"] for one in settings}),
            "mean": _mean(gain),
            **_relation(depth, gain),
        }

    def answer(self, records: Json) -> str:
        """One sentence that answers the question, with an interval."""
        count, mean = len(records["settings"]), records["mean"]
        average = "" if mean is None else f", on average {size(mean, 100, 'points')}"
        if count < FEWEST or records["slope"] is None:
            return (
                f"{counted(count, 'setting')} can't tell whether the gain is additive or redundant (at least {FEWEST} "
                f"of different depth are needed); the gain was {_gains(records)}{average}."
            )
        follows = (
            f"Over {count} settings the gain changes by {size(records['slope'], 1, 'points')} for each point by which "
            f"vanilla's U is deeper (rank correlation {records['rho']:+.2f}, permutation p = {records['p']:.2g})"
        )
        if records["p"] < ALPHA:
            kind = "redundant with a flatter U" if records["rho"] > 0 else "larger where the U is flatter"
            return f"{follows}: the gain is {kind}{average}."
        if mean is not None and mean["low"] > 0:
            proportional = mean["difference"] / np.mean([one["depth"] for one in records["settings"]])
            excluded = not 0 < proportional <= records["slope"]["high"]
            kind = "so it is additive" if excluded else "which fits additive, but does not exclude redundant"
            return f"{follows}: no relation beyond the noise{average}, {kind}."
        return f"{follows}: neither a relation nor a gain beyond the noise{average}."

    def remarks(self, records: Json) -> list[str]:
        """What was left out, and what the points share."""
        shared = f"{counted(len(records['settings']), 'setting')} of {counted(records['models'], 'model')}"
        left_out = f"{counted(records['left_out'], 'result')} left out: no U without three positions and answers."
        return [left_out] * bool(records["left_out"]) + [
            f"{shared}: those of one model are not independent, so intervals and p-values over settings are too narrow "
            "where models are few."
        ]

    def panels(self, records: Json) -> list[Panel]:
        """The gain by depth."""
        return [_scatter(records)]


def _blocks(path: Path) -> Iterator[tuple[str, Mapping[str, Any], str | None]]:
    """(name, figures of one task, model) of a result. Raises `DataError` for a file of another kind."""
    for file in _files(path):
        document = files.read_json(file)
        found = list(_of_document(document, file)) if isinstance(document, dict) else []
        if not found:
            raise DataError(
                f"{file}: holds no test of factors, expected what eval --json wrote, a run's result.json or the "
                "analysis.json of a transfer"
            )
        yield from found


def _files(path: Path) -> list[Path]:
    """The file itself, or a folder's results."""
    if not path.is_dir():
        return [path]
    known = [path / "result.json", path / "search" / "result.json", path / "analysis.json"]
    found = [file for file in known if file.exists()][:1] or sorted(path.glob("*.json"))
    if not found:
        raise DataError(f"{path}: holds no results, expected result.json or files that eval --json wrote")
    return found


def _of_document(document: Json, file: Path) -> Iterator[tuple[str, Mapping[str, Any], str | None]]:
    named = document.get("model") or document.get("provenance", {}).get("model")
    model = named.get("name") if isinstance(named, dict) else None
    if document.get("settings", {}).get("analysis") == "transfer":
        model, found = document["settings"]["model"]["name"], document["records"]
        for name, row in found["cells"].items():
            for task, cell in row.items():
                known = found["tasks"][task]
                block = {"positions": known["positions"], "vanilla": known["vanilla"]}
                yield f"{name} on {task}", block | {"gain": {"factors": {"average": cell["average"]}}}, model
    elif isinstance(document.get("tasks"), dict):
        home = file.parent.parent.name if file.parent.name == "search" else file.parent.name
        for task, block in document["tasks"].items():
            yield f"{home}: {task}", block, model
    elif "factors" in document.get("gain", {}):
        yield file.stem, document, model


def _setting(name: str, block: Mapping[str, Any], model: str | None) -> Json | None:
    """One point; None where there is no U."""
    vanilla, gain = block["vanilla"], block["gain"]["factors"]["average"]
    accuracy = vanilla["accuracy"]
    if len(accuracy) < 3 or vanilla["metric"] == PERPLEXITY_METRIC or gain["difference"] is None:
        return None
    depth = (accuracy[0] + accuracy[-1]) / 2 - sum(accuracy[1:-1]) / (len(accuracy) - 2)
    kept = {part: gain[part] for part in ("difference", "low", "high", "p")}
    return {
        "name": name,
        "model": model or "model not named",
        "depth": depth,
        "gain": kept,
        "records": vanilla["records"],
    }


def _mean(gain: Any) -> Json | None:
    """The mean over settings with its interval by Student's t; None for a single one."""
    from scipy.stats import t

    if len(gain) < 2:
        return None
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)))
    mean = float(gain.mean())
    return {"difference": mean, "low": mean - half, "high": mean + half, "p": None}


def _relation(depth: Any, gain: Any) -> Json:
    """Slope by least squares with Student's interval, rank correlation with its permutation p; null where undefined."""
    from scipy.stats import linregress, t

    if len(depth) < 3 or np.ptp(depth) == 0 or np.ptp(gain) == 0:
        return {"slope": None, "intercept": None, "rho": None, "p": None}
    line = linregress(depth, gain)
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(depth) - 2) * line.stderr)
    slope = float(line.slope)
    return {
        "slope": {"difference": slope, "low": slope - half, "high": slope + half, "p": None},
        "intercept": float(line.intercept),
        "rho": float(spearman(depth, gain)),
        "p": permutation_p(depth, gain),
    }


def _gains(records: Json) -> str:
    shown = [100 * one["gain"]["difference"] for one in records["settings"]]
    return ", ".join(f"{value:+.1f}" for value in shown) + " points"


def _scatter(records: Json) -> Panel:
    import altair as alt

    from ropewalk.report.intervals import interval_layers
    from ropewalk.report.panel import Panel

    settings = records["settings"]
    models = list(dict.fromkeys(one["model"] for one in settings))
    rows = [
        {"arm": one["model"], "x": 100 * one["depth"]} | {
            shown: 100 * one["gain"][part] for shown, part in (("y", "difference"), ("low", "low"), ("high", "high"))
        }
        for one in settings
    ]  # fmt: skip
    x = alt.X("x:Q", title="depth of vanilla's U, points", scale=alt.Scale(zero=False, padding=12))
    chart = interval_layers(rows, x, "gain of the factors, points", ["", *models], aside=False, joined=False)
    if records["slope"] is not None:
        ends = [min(row["x"] for row in rows), max(row["x"] for row in rows)]
        heights = [100 * records["intercept"] + records["slope"]["difference"] * at for at in ends]
        line = [{"x": ends[0], "x2": ends[1], "y": heights[0], "y2": heights[1]}]
        base = alt.Chart(alt.InlineData(values=line)).encode(x=x, x2="x2:Q", y=alt.Y("y:Q"), y2="y2:Q")
        fitted = base.mark_rule(style="rule-soft")
        chart = alt.LayerChart(layer=[*chart.layer, fitted])
    return Panel(
        key="posttraining",
        title="Gain of the factors by the depth of vanilla's U",
        note="Each point is one model, length and task; gains of the accuracy averaged over positions with their 95 % "
        "intervals; the line is that of least squares.",
        label="Points with intervals: the gain of factors by the depth of vanilla's U.",
        chart=chart,
        columns=("result", "depth", "gain", "95 % interval", "p", "records", "model"),
        rows=[
            [one["name"], f"{100 * one['depth']:+.1f}", *cells(one["gain"], 100), one["records"], one["model"]]
            for one in settings
        ],
    )


ANALYSIS = Posttraining
