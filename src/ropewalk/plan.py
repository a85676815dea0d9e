"""All of a search but the model: what proposes, on what it is scored, what it may cost, and what may not change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ropewalk.errors import RopewalkError
from ropewalk.evaluate import Evaluator
from ropewalk.identity import base_scheme, model_identity
from ropewalk.objectives import Objective, position_weights
from ropewalk.provenance import provenance
from ropewalk.race import Rows
from ropewalk.search.base import SearchMethod
from ropewalk.search.space import SearchSpace


@dataclass(frozen=True)
class SearchPlan:
    """All of a search but the model: what proposes, what is maximised, how long, how many finalists meet on validation.

    method: as it was made; `search` works on a copy, so a plan can be used again. racing: whether candidates that are
    clearly behind stop early. at_once: candidates scored together; one at a time loses least at a kill, several use a
    GPU better. budget: candidate·prompt evaluations of the search, which ends before the group of candidates that would
    exceed it. seconds: of scoring, after which no new group begins; 0 or None: no such end.
    """

    space: SearchSpace
    method: SearchMethod
    objective: Objective
    finalists: int = 4
    racing: bool = False
    at_once: int = 1
    budget: int | None = None
    seconds: float | None = None

    def settings(self) -> dict[str, Any]:
        """As JSON: a run is continued only under equal settings."""
        return {
            "method": self.method.settings(),
            "objective": self.objective.settings(),
            "racing": self.racing,
            "finalists": self.finalists,
            "budget": self.budget,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Examples:
    """What candidates are scored on: one evaluator per task of the objective, and the short texts' if it has one."""

    tasks: tuple[Evaluator, ...]
    short: Evaluator | None = None

    @property
    def model(self) -> Any:
        """The model, which all of them share."""
        return self.tasks[0].model


def planned_prompts(plan: SearchPlan, all_rows: Rows, cost: Callable[[Rows], int]) -> int:
    """Candidate·prompt evaluations of a whole search that stops no candidate early, the baseline among them."""
    sizes = plan.method.sizes([len(own) for own in all_rows])
    prompts = cost(all_rows) + sum(count * cost(rows) for count, rows in sizes)
    return prompts if plan.budget is None else min(prompts, max(plan.budget, cost(all_rows)))


def run_settings(plan: SearchPlan, on: Examples, validation: Examples | None) -> dict[str, Any]:
    """All that a run's records depend on, as JSON.

    Raises `RopewalkError` for weights that do not fit the positions, and for a budget that does not pay for vanilla.
    """
    for part, evaluator in zip(plan.objective.parts, on.tasks, strict=True):
        position_weights(len(evaluator.task.positions), part.weights)
    if plan.objective.short and not all(examples.short for examples in (on, validation) if examples):
        raise ValueError("the objective has a short-text limit: give the short texts among the examples")
    vanilla = sum(len(evaluator.examples) for evaluator in (*on.tasks, *([on.short] if on.short else [])))
    if plan.budget is not None and plan.budget < vanilla:
        raise RopewalkError(
            f"a budget of {plan.budget} evaluations does not pay for vanilla on these records: give more than {vanilla}"
        )
    return {
        "model": model_identity(on.model),
        "base": base_scheme(on.model),
        "dtype": provenance(on.model)["dtype"],
        "tasks": [examples_settings(evaluator) for evaluator in on.tasks],
        "short": None if on.short is None else examples_settings(on.short),
        "validation": None if validation is None else [examples_settings(evaluator) for evaluator in validation.tasks],
        **plan.settings(),
    }


def examples_settings(evaluator: Evaluator) -> dict[str, Any]:
    """What the candidates are scored on: the task and the prompt's format, and the examples themselves.

    The split and the tokenizer decide too what they are; records of other prompts must never be mixed.
    """
    digest = hashlib.sha256()
    for example in evaluator.examples:
        content = [example.id, example.prompt, example.opening, *example.answers, example.closing]
        digest.update(json.dumps(content).encode())
    found = {"examples": len(evaluator.examples), "tokens": evaluator.prompt_tokens, "sha256": digest.hexdigest()}
    return {**evaluator.settings, **found}
