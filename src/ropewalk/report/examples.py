"""Which examples turned right or wrong under the factors, with their prompts where these can be made again.

Prompts are not stored. Those of generated records follow from the task's settings; whether they are the ones that were
scored is checked by the digest that the run recorded, so a later version of a task can't pass off other prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.errors import RopewalkError
from ropewalk.report import task_settings
from ropewalk.report.runs import Run
from ropewalk.results import TaskResult
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example

SHOWN = 6  # of each kind and task
AROUND = 160  # characters of the prompt on either side of the evidence
LONGEST = 600  # characters of a text
MOST_TOKENS = 3_000_000  # of prompts that are made again to show a few of them


@dataclass(frozen=True)
class Turned:
    """One example whose score changed. before, after: vanilla and the factors.

    place: of its gold position among those tested. gold: prompt text before, at and after the evidence, and the
    question; None where the prompt can't be made again.
    """

    record: str
    position: int
    place: int
    places: int
    scores: tuple[float, float]
    log_likelihoods: tuple[float, float]
    texts: tuple[str, str] | None
    prompt: tuple[str, str, str] | None
    question: str
    answer: str


@dataclass(frozen=True)
class Changes:
    """Of a task: how many examples turned at each position, and the clearest ones."""

    positions: tuple[int, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    examples: int
    graded: bool
    turned_right: list[Turned]
    turned_wrong: list[Turned]


def changes(run: Run, task: str) -> Changes | None:
    """What turned on a task; None where the scores are gone."""
    results = None if run.scores is None else run.scores.get(task)
    if not results or not {"vanilla", "factors"} <= set(results):
        return None
    vanilla, factors = results["vanilla"], results["factors"]
    difference = factors.scores - vanilla.scores
    prompts = _prompts(run, task)
    return Changes(
        positions=vanilla.positions,
        right=tuple(int(count) for count in (difference > 0).sum(axis=0)),
        wrong=tuple(int(count) for count in (difference < 0).sum(axis=0)),
        examples=difference.size,
        graded=vanilla.graded,
        turned_right=_clearest(vanilla, factors, difference, prompts),
        turned_wrong=_clearest(vanilla, factors, -difference, prompts),
    )


def _clearest(vanilla: TaskResult, factors: TaskResult, gain: Any, prompts: Mapping[str, Example]) -> list[Turned]:
    """Those with the largest gain; of equal ones those whose likelihood moved most."""
    moved = np.nan_to_num(np.abs(factors.log_likelihoods - vanilla.log_likelihoods))
    places = [(int(row), int(column)) for row, column in np.argwhere(gain > 0)]
    places.sort(key=lambda place: (-gain[place], -moved[place]))
    return [_turned(vanilla, factors, place, prompts) for place in places[:SHOWN]]


def _turned(vanilla: TaskResult, factors: TaskResult, place: tuple[int, int], prompts: Mapping[str, Example]) -> Turned:
    row, column = place
    record, position = vanilla.records[row], vanilla.positions[column]
    example = prompts.get(f"{record}@{position}")
    texts = None
    if vanilla.texts is not None and factors.texts is not None:
        texts = (_cut(vanilla.texts[row][column]), _cut(factors.texts[row][column]))
    return Turned(
        record=record,
        position=position,
        place=column,
        places=len(vanilla.positions),
        scores=(float(vanilla.scores[place]), float(factors.scores[place])),
        log_likelihoods=(float(vanilla.log_likelihoods[place]), float(factors.log_likelihoods[place])),
        texts=texts,
        prompt=None if example is None else _around_gold(example),
        question="" if example is None else _question(example),
        answer="" if example is None else _cut(example.answers[0]),
    )


def _prompts(run: Run, task: str) -> dict[str, Example]:
    """The test's examples by id, if they can be made again cheaply and are the ones that were scored; else none."""
    if run.result is None:
        return {}
    settings = run.result["provenance"]["data"]["test"].get(task)
    if settings is None or task_settings.has_file(settings) or settings["tokens"] > MOST_TOKENS:
        return {}
    try:
        examples = make_task(settings["task"], task_settings.options(settings)).examples("test")
    except (RopewalkError, KeyError, TypeError, ValueError):  # a task or an option that this version does not know
        return {}
    digest = hashlib.sha256()
    for example in examples:
        content = [example.id, example.prompt, example.opening, *example.answers, example.closing]
        digest.update(json.dumps(content).encode())
    return {example.id: example for example in examples} if digest.hexdigest() == settings["sha256"] else {}


def _around_gold(example: Example) -> tuple[str, str, str] | None:
    """Prompt text before, at and after the evidence; None for a prompt without any."""
    places = [index for index, piece in enumerate(example.pieces) if piece.kind == "gold"]
    if not places:
        return None
    before = "".join(piece.text for piece in example.pieces[: places[0]])
    gold = "".join(piece.text for piece in example.pieces[places[0] : places[-1] + 1])
    after = "".join(piece.text for piece in example.pieces[places[-1] + 1 :] if piece.kind != "query")
    start = f"… {before[-AROUND:]}" if len(before) > AROUND else before
    end = f"{after[:AROUND]} …" if len(after) > AROUND else after
    return start, _cut(gold), end


def _question(example: Example) -> str:
    return _cut("".join(piece.text for piece in example.pieces if piece.kind == "query").strip())


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
