"""The tasks of a search: one, or several that its objective mixes. `--task NAME` or `--task NAME:key=value,…`."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args

from cyclopts import Parameter

from ropewalk.cli.options import TASK, DataFile, Keys, OwnOptions, Positions, Seed, TaskChoice, described, number
from ropewalk.errors import RopewalkError
from ropewalk.objectives import Kind, Measure, Part
from ropewalk.tasks import make_task, task_names
from ropewalk.tasks.base import TaskOptions

KEYS = ("share", "measure", "keys", "data", "positions", "limit")  # of every task; others are the task's own options


@dataclass(frozen=True)
class MixedTask:
    """One task of a search. name: unlike all others'. share: its weight. measure: None leaves it to --measure."""

    name: str
    choice: TaskChoice
    share: float = 1.0
    measure: Measure | None = None

    def part(self, measure: Measure, kind: Kind, weights: tuple[float, ...]) -> Part:
        """What it contributes to the objective."""
        return Part(self.measure or measure, kind, weights, self.share, self.name)


@Parameter(name="*", group=TASK)
@dataclass(frozen=True)
class TaskMix:
    """Which prompts are searched on."""

    task: Annotated[
        tuple[str, ...],
        described(
            "What the prompts ask for; again for a mix. NAME, or NAME:key=value,key=value with share, measure, keys, "
            "data, positions (0+18+37), limit and the task's own options. Default kv.",
            negative="",
            show_default=False,
            metavar="NAME[:…]",
        ),
    ] = ()
    keys: Keys = None
    positions: Positions = None
    data: DataFile = None
    option: OwnOptions = ()
    limit: Annotated[int | None, number("Search records of each task, each at every position. Default: by method.")] = (
        None
    )
    seed: Seed = 0

    def tasks(self) -> tuple[MixedTask, ...]:
        """One for each --task, with what the other flags say."""
        texts = self.task or ("kv",)
        if len(texts) > 1:
            for name in ("keys", "data", "option"):
                if getattr(self, name):
                    raise RopewalkError(
                        f"--{name} is for a single task; of several say it of each: --task {texts[0].split(':')[0]}:…"
                    )
        found: list[MixedTask] = []
        for text in texts:
            one = self._task(text)
            same = sum(other.choice.task == one.choice.task for other in found)
            found.append(replace(one, name=f"{one.name} {same + 1}") if same else one)
        return tuple(found)

    def _task(self, text: str) -> MixedTask:
        name, given = _spec(text)
        where = f"--task {text}"
        own = _own_options(name)
        for key in given:
            if key not in (*KEYS, *own):
                near = difflib.get_close_matches(key, [*KEYS, *own], n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise RopewalkError(f"{where}: no key {key!r}, expected one of: {', '.join([*KEYS, *own])}{hint}")
        choice = TaskChoice(
            task=name,
            keys=_number(where, "keys", int, given.get("keys", self.keys)),
            positions=_positions(given.get("positions", self.positions)),
            data=_text(given.get("data", self.data)),
            option=(*self.option, *(f"{key}={_text(given[key])}" for key in own if key in given)),
            limit=_number(where, "limit", int, given.get("limit", self.limit)),
            seed=self.seed,
        )
        measure = given.get("measure")
        if measure is not None and measure not in get_args(Measure):
            raise RopewalkError(f"{where}: measure {measure!r}, expected one of: {', '.join(get_args(Measure))}")
        return MixedTask(name, choice, _number(where, "share", float, given.get("share", 1.0)), measure)


def _spec(text: str) -> tuple[str, Mapping[str, Any]]:
    """Name and keys of `NAME:key=value,…`, where what follows a comma without "=" belongs to the value before it.

    A table of a TOML file comes as JSON.
    """
    if text.startswith("{"):
        given = json.loads(text)
        name = given.pop("task", None)
        if not isinstance(name, str):
            raise RopewalkError(f'a table of tasks without its name: {text}; expected task = "kv" in it')
        return name, {key.replace("-", "_"): value for key, value in given.items()}
    name, _, rest = text.partition(":")
    pairs: list[tuple[str, str]] = []
    for piece in rest.split(",") if rest else ():
        key, equals, value = piece.partition("=")
        if equals:
            pairs.append((key.strip().replace("-", "_"), value))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{piece}")
        else:
            raise RopewalkError(f"--task {text}: expected NAME or NAME:key=value,key=value")
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise RopewalkError(f"--task {text}: {key} was given twice")
    return name, dict(pairs)


def _own_options(task: str) -> list[str]:
    """Names of a task's own options."""
    if task not in task_names():
        make_task(task, TaskOptions())  # raises
    kind = importlib.import_module(f"ropewalk.tasks.{task}").TASK.OPTIONS
    return [entry.name for entry in dataclasses.fields(kind)]


def _number(where: str, name: str, kind: type, value: Any) -> Any:
    """The number that a text or a TOML value is; a whole one never loses a fraction."""
    if value is None:
        return None
    good = not isinstance(value, bool) and (kind is float or not isinstance(value, float))
    try:
        if good:
            return kind(value)
    except (TypeError, ValueError):
        pass
    what = "a whole number" if kind is int else "a number"
    raise RopewalkError(f"{where}: {name} is {value!r}, expected {what}")


def _text(value: Any) -> str | None:
    """A TOML value as it would stand on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return None if value is None else str(value)


def _positions(value: Any) -> str | None:
    """A list of one position ends in a comma, for without it would be a count."""
    text = _text(value)
    return f"{text}," if isinstance(value, list) and len(value) == 1 else text
