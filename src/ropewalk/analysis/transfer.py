"""Are factors good for what they were not found on: every set of factors on every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ropewalk.analysis.base import Analysis, Json, Subject
from ropewalk.analysis.parts.effects import (
    cells,
    counted,
    difference,
    direction,
    effect,
    pooled,
    size,
    too_few,
    with_holm,
)
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors
from ropewalk.objectives import position_weights
from ropewalk.results import TaskResult

if TYPE_CHECKING:
    from ropewalk.report.panel import Panel

SAME = ("task", "variant", "keys", "data", "options")  # settings that make two tasks the same, whatever the records are


@dataclass(frozen=True)
class Options:
    """None: the tasks and the factors say all."""


class Transfer(Analysis):
    """A matrix: what each set of factors (`--factors`, again for more) changes on each task (`--task`, again for more).

    A cell is at home where the factors' file says that they were found on a task of the same settings; positions,
    records and seed may differ. P-values are corrected for the number of cells (Holm).
    """

    name: ClassVar[str] = "transfer"
    question: ClassVar[str] = "Are factors good for tasks and lengths that they were not found on?"
    example: ClassVar[str] = "ropewalk analyze transfer --model M --factors kv --task kv --task mdqa"
    form: ClassVar[Any] = "tasks"
    OPTIONS: ClassVar[type] = Options

    def records(self, subject: Subject) -> Json:
        """Every cell against vanilla, and the mean of those at home and of those away."""
        if not subject.factors:
            raise DataError("no factors to transfer: give --factors FILE, again for further ones")
        names = dict(zip(_labels(list(subject.factors)), subject.factors.values(), strict=True))
        scored = {task: subject.score({"vanilla": None, **names}, task, stage=f"{task}") for task in subject.evaluators}
        home = {name: _own_tasks(factors, subject.settings["tasks"]) for name, factors in names.items()}
        places = [(name, task) for name in names for task in scored]
        flat = with_holm(
            {f"{name} @ {task}": _cell(scored[task]["vanilla"], scored[task][name]) for name, task in places}
        )
        return {
            "tasks": {
                task: {
                    "positions": list(found["vanilla"].positions),
                    "records": len(found["vanilla"].records),
                    "vanilla": found["vanilla"].summary(),
                }
                for task, found in scored.items()
            },
            "factors": {name: {"values": list(factors.values), "home": home[name]} for name, factors in names.items()},
            "cells": {name: {task: flat[f"{name} @ {task}"] for task in scored} for name in names},
            "home": _mean(scored, [(name, task) for name, task in places if task in home[name]]),
            "away": _mean(scored, [(name, task) for name, task in places if home[name] and task not in home[name]]),
            "all": _mean(scored, places),
        }

    def answer(self, records: Json) -> str:
        """One sentence that answers the question, with an interval."""
        home, away = records["home"], records["away"]
        if away is None:
            known = "the task their own" if home else "the task none that they are known to be found on"
            mean = f"{size(records['all'])} on average"
            where = counted(records["all"]["cells"], "cell")
            return f"In {where} of factors and task, {known}, the factors change U by {mean}."
        signs = [
            direction(row["likelihood"])
            for name, found in records["cells"].items()
            for task, row in found.items()
            if (known := records["factors"][name]["home"]) and task not in known
        ]
        at_home = f", and by {size(home)} on what they were found on" if home else ""
        return (
            f"On tasks or lengths that they were not found on, factors gain outside the noise in {signs.count(1)} of "
            f"{counted(len(signs), 'cell')} and lose in {signs.count(-1)}; U changes there by {size(away)} on "
            f"average{at_home}."
        )

    def remarks(self, records: Json) -> list[str]:
        """How many cells are outside the noise."""
        rows = [row["likelihood"] for found in records["cells"].values() for row in found.values()]
        signs = [direction(row) for row in rows]
        unknown = [name for name, one in records["factors"].items() if not one["home"]]
        fewest = min(task["records"] for task in records["tasks"].values())
        return [
            *too_few(fewest, len(rows)),
            f"Of {counted(len(rows), 'cell')} {signs.count(1)} gain outside the noise, {signs.count(-1)} lose, "
            f"{signs.count(0)} change nothing beyond it (Holm).",
            *(
                [f"Not found on any of these tasks, as far as their file says: {', '.join(unknown)}."]
                if unknown
                else []
            ),
        ]

    def panels(self, records: Json) -> list[Panel]:
        """The matrix, and its cells with their intervals."""
        return [_cells_panel(records), _matrix_panel(records)]


def _labels(names: list[str]) -> list[str]:
    """The file's name or, for a factors.json, its folder's; the whole path where that would not tell them apart."""
    paths = [Path(name) for name in names]
    short = [path.parent.name or path.name if path.name == "factors.json" else path.stem for path in paths]
    return short if len(set(short)) == len(short) else names


def _own_tasks(factors: ScalingFactors, tasks: Mapping[str, Json]) -> list[str]:
    """The tasks that these factors were found on."""
    found = factors.found.get("tasks") or factors.found.get("task") or []
    known = [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]
    return [
        name
        for name, settings in tasks.items()
        if any(all(one[key] == settings.get(key) for key in SAME if key in one) for one in known if "task" in one)
    ]


def _cell(vanilla: TaskResult, result: TaskResult) -> Json:
    average = difference((result.scores - vanilla.scores).mean(axis=1))
    return {**effect(vanilla, result), "average": average}


def _mean(scored: Mapping[str, Mapping[str, TaskResult]], places: list[tuple[str, str]]) -> Json | None:
    """The mean of U of the log-likelihood over these cells, the tasks alike; None without any."""
    by_task: dict[str, list[Any]] = {}
    for name, task in places:
        vanilla, result = scored[task]["vanilla"], scored[task][name]
        gaps = (result.log_likelihoods - vanilla.log_likelihoods) @ position_weights(len(vanilla.positions))
        by_task.setdefault(task, []).append(gaps)
    if not by_task:
        return None
    return {**pooled([np.mean(own, axis=0) for own in by_task.values()]), "cells": len(places)}


def _cells_panel(records: Json) -> Panel:
    from ropewalk.analysis.parts.points import point
    from ropewalk.report.intervals import interval_layers, named_axis
    from ropewalk.report.panel import Panel

    tasks, found = list(records["tasks"]), records["cells"]
    rows = [one for name in found for task in tasks for one in point(name, task, found[name][task]["likelihood"])]
    homes = {name: one["home"] for name, one in records["factors"].items()}
    return Panel(
        key="transfer-cells",
        title="Every set of factors on every task",
        note="U of the log-likelihood above vanilla on the same records, with 95 % intervals; points: U of the metric. "
        "Home: the factors were found on such a task.",
        label="Points with intervals: the change of U by task, for each set of factors.",
        chart=interval_layers(rows, named_axis(tasks, "task"), "nats a token above vanilla", ["", *found]),
        columns=("factors", "task", "U", "95 % interval", "p (Holm)", "points", "home"),
        rows=[
            [
                name,
                task,
                *cells(found[name][task]["likelihood"]),
                cells(found[name][task]["accuracy"], 100)[0],
                "home" if task in homes[name] else "",
            ]
            for name in found
            for task in tasks
        ],
    )


def _matrix_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import heat_layers, named_axis
    from ropewalk.report.panel import Panel

    tasks, found = list(records["tasks"]), records["cells"]
    rows = [
        {"x": task, "y": name, "value": found[name][task]["likelihood"]["difference"] or 0.0}
        for name in found
        for task in tasks
    ]
    return Panel(
        key="transfer-matrix",
        title="The same as a matrix",
        note="U of the log-likelihood above vanilla, nats a token: blue gains, orange loses.",
        label="Heat map of the change of U by task and set of factors.",
        chart=heat_layers(rows, named_axis(tasks, "task"), "factors", list(found)),
        height=max(100, 48 * len(found)),
        columns=("factors", *tasks),
        rows=[[name, *(cells(found[name][task]["likelihood"])[0] for task in tasks)] for name in found],
    )


ANALYSIS = Transfer
