"""What `ropewalk lm-eval` prints: the table of both arms, what was cut, and every record's scores as lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from ropewalk.cli import console
from ropewalk.harness.verdict import label

if TYPE_CHECKING:
    from ropewalk.harness.running import Results, TaskPlan

DIRECTIONS = {True: "more is better", False: "less is better", None: "no direction"}
FEW_PARTS = 12  # tasks of a group with one number for all that are shown one by one
NAME_WIDTH = 27
OWN_FIELDS = ("doc_id", "filter", "target", "arguments", "resps", "filtered_resps", "metrics", "doc")


def notes(plans: Mapping[str, TaskPlan], asked_shots: int | None, limit: int) -> list[str]:
    """What the user should know of the requests before the results: what is cut off, and what was not followed."""
    lines = []
    for name, plan in plans.items():
        if plan.cut:
            lines.append(
                f"Warning: {name}: {plan.cut} of {plan.prompts} prompts are longer than the {limit} tokens that the "
                "model takes, and lose their beginning; --max-length or shorter records would change that"
            )
        if plan.texts_split:
            lines.append(f"{name}: {plan.texts_split} of {plan.records} texts are scored in windows of {limit} tokens")
        if asked_shots is not None and plan.shots != asked_shots:
            lines.append(f"{name}: asks without examples whatever --num-fewshot says, for its YAML says so")
    return lines


def plan_table(plans: Mapping[str, TaskPlan]) -> Table:
    """What would be asked in each arm."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in ("in each arm", "records", "prompts", "tokens", "longest", "cut"):
        table.add_column(name, justify="left" if name == "in each arm" else "right")
    for name, plan in plans.items():
        values = (plan.records, plan.prompts, plan.tokens, plan.longest, plan.cut)
        table.add_row(Text(name), *map(str, values))
    return table


def show(model: str, figures: Mapping[str, Any]) -> None:
    """The table, then the sentence that closes it, then remarks."""
    rows = figures["results"]
    shown, left_out = _shown(rows)
    tasks = len(figures["tasks"])
    console.say(f"{model}: {tasks} task{'s' * (tasks > 1)}, lm-eval {figures['settings']['lm_eval']}")
    console.output().print(result_table(shown), "")
    console.say(figures["verdict"])
    if left_out:
        console.say(f"{left_out} results of single tasks within groups are in --json only.")
    for note in figures["notes"]:
        console.say(Text(note, style="bold yellow" if note.startswith("Warning") else ""))


def result_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Two lines a result: the values and their difference, and below them the 95 % intervals and the test."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("task and metric", overflow="fold", max_width=NAME_WIDTH)
    for name in ("vanilla", "factors", "difference", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        difference = row["difference"]
        table.add_row(
            Text(label(row), overflow="fold"),
            _number(row["vanilla"]["value"]),
            _number(row["factors"]["value"]),
            _number(difference["value"], "+"),
            "–" if difference["p"] is None else f"{difference['p']:.2g}",
        )
        table.add_row(
            Text(f"  n = {row['records']}, {DIRECTIONS[row['higher_is_better']]}", style="dim"),
            *[Text(_interval(row[part], sign), style="dim") for part, sign in _PARTS],
            Text(difference["test"], style="dim"),
        )
    return table


def sample_lines(results: Mapping[str, Results]) -> str:
    """Every record of every task in both arms, a JSON object a line."""
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in _samples(results))


def _samples(results: Mapping[str, Results]) -> Iterator[dict[str, Any]]:
    for arm, outcome in results.items():
        for task, samples in outcome["samples"].items():
            for sample in samples:
                scores = {metric: plain(sample[metric]) for metric in sample["metrics"]}
                fields = {name: plain(sample[name]) for name in OWN_FIELDS if name != "metrics"}
                yield {"arm": arm, "task": task, **fields, "scores": scores}


def plain(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are none become null, what it does not know becomes a text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


_PARTS = (("vanilla", ""), ("factors", ""), ("difference", "+"))


def _shown(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], int]:
    """The rows for the terminal: single tasks of large groups that have one number are left out."""
    parts = [row for row in rows if not row["asked"] and row["kind"] == "task"]
    if len(parts) <= FEW_PARTS:
        return list(rows), 0
    return [row for row in rows if row["asked"] or row["kind"] == "group"], len(parts)


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:{sign}.4f}" if abs(value) < 1000 else f"{value:{sign}.4g}"


def _interval(part: Mapping[str, Any], sign: str) -> str:
    if part["low"] is None:
        return ""
    ends = [f"{part[end]:{sign}.3f}" if abs(part[end]) < 1000 else f"{part[end]:{sign}.3g}" for end in ("low", "high")]
    return (", " if sign else "–").join(ends)
