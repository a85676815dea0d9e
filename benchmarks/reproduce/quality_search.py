"""One search of quality.py: as `ropewalk search` makes it, on records that no test sees."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from quality_settings import CONTROLS, Recipe, Search, Subject
from steps import Json

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the benchmarks share

from reporting import progress
from ropewalk.cli import console
from ropewalk.cli.search_options import SearchOptions
from ropewalk.events import OnEvent
from ropewalk.objectives import Objective
from ropewalk.provenance import provenance
from ropewalk.run import Examples, SearchPlan, SearchResult, search
from ropewalk.search import method_class
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.search_plan import control_plan, has_generations, within_budget

MANY = 10_000  # generations of a method that the budget ends


@contextmanager
def shown() -> Iterator[OnEvent]:
    """What reports a step's progress with the time left."""
    with console.StageProgress() as bar:
        yield console.follow(bar)


def one_search(subject: Subject, task: Search, recipe: Recipe, asked: Json, out: Path) -> Json:
    """Winner and finalists as factors, the best on the search's own validation records first.

    asked: search, recipe, method, seed, budget (evaluations), records, validation (records) and, for a control,
    control_budget. out: the study's folder, from which an interrupted search goes on.
    """
    method, seed = asked["method"], asked["seed"]
    progress(f"search {asked['search']}: {asked['recipe']}, {method}, seed {seed}")
    options = SearchOptions(method=method, budget=asked["budget"])
    objective = _objective(task, recipe, method)

    def examples(split: Any, records: int, candidates: int) -> Examples:
        return Examples(tuple(
            subject.searched(one, split, records, seed, part.measure, candidates)
            for one, part in zip(task.tasks, objective.parts, strict=True)
        ))  # fmt: skip

    def plan(generations: int | None) -> SearchPlan:
        knobs = dict(recipe.knobs) if method == "default" else {}
        more = {} if generations is None else {"generations": generations}
        return options.plan(subject.model, seed, objective, knobs | more)

    records = asked["records"] or options.search_records()
    on = examples("search", records, max(1, asked["budget"] // (5 * records)))
    validation = examples("validation", asked["validation"], 5)
    chosen = plan(None)
    if method in CONTROLS:  # whole, on as many of the records as are paid for
        finalists = chosen.finalists
        chosen, on = control_plan(method, chosen, seed, on, asked["control_budget"])
        chosen = replace(chosen, finalists=finalists)
    elif method == "default":
        chosen = within_budget(chosen, on, plan if has_generations(chosen) else None)
    else:
        chosen = within_budget(plan(MANY), on, None)
    started = time.perf_counter()
    with shown() as on_event:
        found = search(chosen, on, validation, out, on_event=on_event)
    return {
        "factors": list(found.factors.values), "finalists": _finalists(found, chosen.space),
        "evaluations": found.evaluations, "validation_evaluations": found.validation_evaluations,
        "failed": found.failed, "seconds": round(time.perf_counter() - started, 1),
        "objective": objective.settings(), "provenance": provenance(subject.model),
    }  # fmt: skip


def _objective(task: Search, recipe: Recipe, method: str) -> Objective:
    """The recipe's; the paper's setting has a measure of its own."""
    objective = recipe.objective(task.tasks)
    if method_class(method).MEASURE != "accuracy":
        return objective
    return replace(objective, parts=tuple(replace(part, measure="accuracy") for part in objective.parts))


def _finalists(found: SearchResult, space: SearchSpace) -> list[list[float | None]]:
    """Factors of all finalists but vanilla, by falling fitness on the search's validation records."""
    scored = [row for row in found.validation if row["fitness"] is not None]
    ranked = sorted(scored, key=lambda row: -row["fitness"])
    factors = [space.factors(Candidate.from_json(row["candidate"])) for row in ranked]
    return [list(one.values) for one in factors if not one.is_identity]
