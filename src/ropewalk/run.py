"""A search from start to end: the generation loop and the choice among finalists; `final_test` comes after it.

The loop is resumable: a candidate that the study holds is not evaluated again. Factors are written at every
improvement, so that an interrupted run leaves its best so far.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ropewalk.errors import RopewalkError
from ropewalk.evaluate import Evaluator
from ropewalk.events import Evaluated, Event, OnEvent, Scored, Spared, Stage
from ropewalk.factors import ScalingFactors
from ropewalk.heldout import final_test
from ropewalk.identity import base_scheme, model_identity
from ropewalk.ledger import Ledger, Member
from ropewalk.objectives import Objective, position_weights
from ropewalk.provenance import provenance
from ropewalk.race import Rows
from ropewalk.search.base import SearchMethod
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.study import CandidateRecord, open_study

__all__ = [
    "Evaluated",
    "Event",
    "Examples",
    "OnEvent",
    "Scored",
    "SearchPlan",
    "SearchResult",
    "Spared",
    "Stage",
    "check_run",
    "final_test",
    "planned_prompts",
    "search",
]

MAX_FAILED_SHARE = 0.5
MIN_FAILED = 4  # fewer failures than this never stop a search


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
    """What candidates are scored on: an evaluator for each task of the objective, and the short texts' if it has one."""

    tasks: tuple[Evaluator, ...]
    short: Evaluator | None = None

    @property
    def model(self) -> Any:
        """The model, which all of them share."""
        return self.tasks[0].model


@dataclass
class SearchResult:
    """What a search found. `factors` are the winner's: the identity if nothing beat vanilla.

    fitness: on the search examples. validation: one row a finalist, the identity first. evaluations: candidate·prompt
    evaluations of the search, also by the interrupted runs that this one continued; validation_evaluations: those of
    the finalists. failed: candidates without a score. stopped: those that a race ended early.
    """

    factors: ScalingFactors
    candidate: Candidate
    fitness: float
    validation: list[dict[str, Any]]
    evaluations: int
    validation_evaluations: int
    failed: int
    stopped: int
    records: list[CandidateRecord] = field(repr=False, default_factory=list)


def search(
    plan: SearchPlan,
    on: Examples,
    validation: Examples | None,
    out: Path,
    *,
    on_event: OnEvent = lambda event: None,
) -> SearchResult:
    """Search, choose among the finalists on validation records, and leave `factors.json` in `out`.

    on, validation: the model with the search and the validation examples; without validation the method's first
    finalist is taken if it beats vanilla on the search examples. Raises `StudyError` for a run that can't be continued,
    `RopewalkError` if candidates keep failing, and lets KeyboardInterrupt through after everything so far is on disk.
    """
    settings = _settings(plan, on, validation)
    with open_study(out, settings) as study:
        ledger = Ledger(study, "search", on.tasks, plan.space, plan.objective, on_event, short=on.short)
        loop = _Loop(plan, ledger, settings, on_event)
        loop.run()
        finalists = loop.finalists()
        table: list[dict[str, Any]] = []
        spent = 0
        if validation is not None and plan.finalists > 0:
            finals = Ledger(
                study, "validation", validation.tasks, plan.space, plan.objective, on_event, short=validation.short
            )
            chosen, table = _choose(plan, finalists, finals, on_event)
            spent = finals.evaluations
        else:
            chosen = _first_better(finalists, ledger, plan.space)
        factors = loop.write(chosen, validation=table)
        return SearchResult(
            factors=factors,
            candidate=chosen,
            fitness=ledger.record_of(chosen).fitness,
            validation=table,
            evaluations=ledger.evaluations,
            validation_evaluations=spent,
            failed=ledger.failed,
            stopped=sum(record.stopped for record in ledger.records.values()),
            records=[ledger.records[key] for key in sorted(ledger.records)],
        )


def check_run(plan: SearchPlan, on: Examples, validation: Examples | None, out: Path) -> None:
    """Raise what `search` would raise for a run directory that can't be continued, before anything is scored."""
    with open_study(out, _settings(plan, on, validation)):
        pass


class _Loop:
    """The generation loop: asks the method, has the ledger score, tells the method, writes what is better."""

    def __init__(self, plan: SearchPlan, ledger: Ledger, settings: dict[str, Any], on_event: OnEvent) -> None:
        self.plan, self.ledger, self.settings, self.on_event = plan, ledger, settings, on_event
        self.method = copy.deepcopy(plan.method)  # an interrupted search leaves it halfway through a generation
        self._places: dict[Candidate, tuple[int, int]] = {}

    def run(self) -> None:
        """All generations, or as many as the budget and the time allow."""
        planned = planned_prompts(self.plan, self.ledger.all_rows, self.ledger.cost)
        self.on_event(Stage("Search", max(0, planned - self.ledger.evaluations)))
        self.ledger.score_baseline()
        self.write(self.ledger.best().candidate)  # also after a kill between a record and its file
        while candidates := self.method.ask():
            rows = tuple(tuple(self.method.records(len(own))) for own in self.ledger.all_rows)
            scores: list[float] = []
            for group in self._groups(candidates):
                if self._is_spent(group, rows):
                    return
                scores += self._step(group, rows)
            self.method.tell(candidates, scores)

    def finalists(self) -> list[Candidate]:
        """The method's, the identity left out; those of a search that ended in its first generation by fitness."""
        found = self.method.finalists()
        if not found:
            fittest = sorted(self.ledger.records.values(), key=lambda record: (record.failed, -record.fitness))
            found = [record.candidate for record in fittest if not record.failed]
        others = [candidate for candidate in found if not self.plan.space.factors(candidate).is_identity]
        return others[: max(1, self.plan.finalists)]

    def write(self, candidate: Candidate, **more: Any) -> ScalingFactors:
        """Write `factors.json` for a candidate, with all that led to it."""
        factors = self.plan.space.factors(candidate).with_provenance(
            model=self.settings["model"],
            base=self.settings["base"],
            found={
                "candidate": candidate.to_json(),
                "fitness": self.ledger.record_of(candidate).fitness,
                "evaluations": self.ledger.evaluations,
                "seconds": round(self.ledger.seconds, 1),
                **{name: self.settings[name] for name in ("method", "objective", "racing", "tasks")},
                **provenance(self.ledger.evaluators[0].model),
                **more,
            },
        )
        factors.save(self.ledger.study.directory / "factors.json")
        return factors

    def _groups(self, candidates: list[Candidate]) -> list[list[Member]]:
        """The members of a generation as they are scored together. A rival among them comes first, alone."""
        generation = self.method.generation
        for slot, candidate in enumerate(candidates):
            self._places.setdefault(candidate, (generation, slot))
        members = [
            Member(generation, slot, candidate, tuple(self._places[one] for one in self.method.parents(candidate)))
            for slot, candidate in enumerate(candidates)
        ]
        first = 1 if self.plan.racing and self.method.rival() == candidates[0] else 0
        size = self.plan.at_once
        return [members[:first]] * first + [members[start : start + size] for start in range(first, len(members), size)]

    def _is_spent(self, group: list[Member], rows: Rows) -> bool:
        """Whether budget or time end the search before this group; what the study holds is free."""
        new = sum(member.place not in self.ledger.records for member in group)
        budget, seconds = self.plan.budget, self.plan.seconds
        over = budget is not None and self.ledger.evaluations + new * self.ledger.cost(rows) > budget
        return new > 0 and (over or (bool(seconds) and self.ledger.seconds >= (seconds or 0)))

    def _step(self, group: list[Member], rows: Rows) -> list[float]:
        best = self.ledger.best().fitness
        new = {member.place for member in group if member.place not in self.ledger.records}
        records = self.ledger.score(group, rows, self.method.rival() if self.plan.racing else None)
        for record in records:
            if (record.generation, record.slot) not in new:
                continue
            self._stop_if_failing(record)
            if record.fitness > best:
                best = record.fitness
                self.write(record.candidate)
            spared = self.ledger.cost(rows) - record.prompts
            if spared > 0:
                self.on_event(Spared(spared))
            self.on_event(Evaluated(record, best))
        return [record.fitness for record in records]

    def _stop_if_failing(self, record: CandidateRecord) -> None:
        failed, tried = self.ledger.failed, len(self.ledger.records)
        if record.failed and failed >= MIN_FAILED and failed > MAX_FAILED_SHARE * tried:
            raise RopewalkError(
                f"{failed} of {tried} candidates failed, so the search stops. The last reason: {_reason(record)}. "
                "Try narrower bounds or --dtype float32"
            )


def planned_prompts(plan: SearchPlan, all_rows: Rows, cost: Callable[[Rows], int]) -> int:
    """Candidate·prompt evaluations of a whole search that stops no candidate early, the baseline among them."""
    sizes = plan.method.sizes([len(own) for own in all_rows])
    prompts = cost(all_rows) + sum(count * cost(rows) for count, rows in sizes)
    return prompts if plan.budget is None else min(prompts, max(plan.budget, cost(all_rows)))


def _choose(
    plan: SearchPlan, finalists: list[Candidate], finals: Ledger, on_event: OnEvent
) -> tuple[Candidate, list[dict[str, Any]]]:
    """The winner on validation records among the finalists and the identity, and how each one did."""
    identity = plan.space.identity()
    cost = finals.cost(finals.all_rows)
    on_event(Stage("Finalists", max(0, (1 + len(finalists)) * cost - finals.evaluations)))
    finals.score_baseline()
    for slot, candidate in enumerate(finalists):
        finals.score([Member(0, slot, candidate)], finals.all_rows)
    table = []
    for candidate in (identity, *finalists):
        record = finals.record_of(candidate)
        table.append({
            "candidate": candidate.to_json(),
            "fitness": None if record.failed else record.fitness,
            "penalties": dict(record.penalties),
            "error": _reason(record),
            "prompts": cost,
        })  # fmt: skip
    return finals.best().candidate, table


def _first_better(finalists: list[Candidate], ledger: Ledger, space: SearchSpace) -> Candidate:
    """The method's first finalist if it beats vanilla on what it was scored on, else the identity."""
    for candidate in finalists[:1]:
        if ledger.record_of(candidate).fitness > 0:
            return candidate
    return space.identity()


def _reason(record: CandidateRecord) -> str | None:
    """Why a candidate failed, in one line; the study has the whole traceback."""
    return record.error.strip().splitlines()[-1] if record.error else None


def _settings(plan: SearchPlan, on: Examples, validation: Examples | None) -> dict[str, Any]:
    """All that a run's records depend on, as JSON. Weights that do not fit the positions are a `RopewalkError`."""
    for part, evaluator in zip(plan.objective.parts, on.tasks, strict=True):
        position_weights(len(evaluator.task.positions), part.weights)
    return {
        "model": model_identity(on.model),
        "base": base_scheme(on.model),
        "dtype": provenance(on.model)["dtype"],
        "tasks": [_examples_settings(evaluator) for evaluator in on.tasks],
        "short": None if on.short is None else _examples_settings(on.short),
        "validation": None if validation is None else [_examples_settings(evaluator) for evaluator in validation.tasks],
        **plan.settings(),
    }


def _examples_settings(evaluator: Evaluator) -> dict[str, Any]:
    """What the candidates are scored on: the task and the prompt's format, and the examples themselves.

    The split and the tokenizer decide too what they are; records of other prompts must never be mixed.
    """
    digest = hashlib.sha256()
    for example in evaluator.examples:
        content = [example.id, example.prompt, example.opening, *example.answers, example.closing]
        digest.update(json.dumps(content).encode())
    found = {"examples": len(evaluator.examples), "tokens": evaluator.prompt_tokens, "sha256": digest.hexdigest()}
    return {**evaluator.settings, **found}
