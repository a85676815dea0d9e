"""A search from start to end: the generation loop and the choice among finalists; `final_test` comes after it.

The loop is resumable: a candidate that the study holds is not evaluated again. Factors are written at every
improvement, so that an interrupted run leaves its best so far.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ropewalk.errors import RopewalkError
from ropewalk.evaluate import Evaluator
from ropewalk.events import Evaluated, Event, OnEvent, Scored, Stage
from ropewalk.factors import ScalingFactors
from ropewalk.heldout import final_test
from ropewalk.identity import base_scheme, model_identity
from ropewalk.ledger import Ledger
from ropewalk.objectives import Utilisation, position_weights
from ropewalk.provenance import provenance
from ropewalk.search.base import SearchMethod
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.study import CandidateRecord, open_study

__all__ = [
    "Evaluated",
    "Event",
    "OnEvent",
    "Scored",
    "SearchPlan",
    "SearchResult",
    "Stage",
    "check_run",
    "final_test",
    "search",
]

MAX_FAILED_SHARE = 0.5
MIN_FAILED = 4  # fewer failures than this never stop a search


@dataclass(frozen=True)
class SearchPlan:
    """All of a search but the model: what proposes, what is maximised, how many finalists meet on validation.

    method: as it was made; `search` works on a copy, so a plan can be used again. candidates: different candidates the
    search will score, the identity among them; for the progress only.
    """

    space: SearchSpace
    method: SearchMethod
    objective: Utilisation
    candidates: int
    finalists: int = 3

    def settings(self) -> dict[str, Any]:
        """As JSON: a run is continued only under equal settings."""
        return {
            "method": self.method.settings(),
            "objective": {"measure": self.objective.measure, "weights": list(self.objective.weights)},
            "finalists": self.finalists,
        }


@dataclass
class SearchResult:
    """What a search found. `factors` are the winner's: the identity if nothing beat vanilla.

    fitness: on the search examples. validation: one row a finalist, the identity first. evaluations: prompts scored,
    validation included, also by the interrupted runs that this one continued. failed: candidates without a score.
    """

    factors: ScalingFactors
    candidate: Candidate
    fitness: float
    validation: list[dict[str, Any]]
    evaluations: int
    failed: int
    records: list[CandidateRecord] = field(repr=False, default_factory=list)


def search(
    plan: SearchPlan,
    evaluator: Evaluator,
    validation: Evaluator | None,
    out: Path,
    *,
    on_event: OnEvent = lambda event: None,
) -> SearchResult:
    """Search, choose among the finalists on validation records, and leave `factors.json` in `out`.

    evaluator, validation: the model with the search and the validation examples; without validation the best of the
    search is taken. Raises `StudyError` for a run that can't be continued, `RopewalkError` if candidates keep failing,
    and lets KeyboardInterrupt through after everything so far is on disk.
    """
    settings = _settings(plan, evaluator, validation)
    with open_study(out, settings) as study:
        ledger = Ledger(study, "search", evaluator, plan.space, plan.objective, on_event)
        loop = _Loop(plan, ledger, settings, on_event)
        loop.run()
        table: list[dict[str, Any]] = []
        chosen, evaluations = ledger.best().candidate, ledger.prompts
        if validation is not None and plan.finalists > 0:
            finals = Ledger(study, "validation", validation, plan.space, plan.objective, on_event)
            chosen, table = _choose(plan, ledger, finals, on_event)
            evaluations += finals.prompts
        factors = loop.write(chosen, validation=table)
        return SearchResult(
            factors=factors,
            candidate=chosen,
            fitness=ledger.record_of(chosen).fitness,
            validation=table,
            evaluations=evaluations,
            failed=ledger.failed,
            records=[ledger.records[key] for key in sorted(ledger.records)],
        )


def check_run(plan: SearchPlan, evaluator: Evaluator, validation: Evaluator | None, out: Path) -> None:
    """Raise what `search` would raise for a run directory that can't be continued, before anything is scored."""
    with open_study(out, _settings(plan, evaluator, validation)):
        pass


class _Loop:
    """The generation loop: asks the method, has the ledger score, tells the method, writes what is better."""

    def __init__(self, plan: SearchPlan, ledger: Ledger, settings: dict[str, Any], on_event: OnEvent) -> None:
        self.plan, self.ledger, self.settings, self.on_event = plan, ledger, settings, on_event
        self.method = copy.deepcopy(plan.method)  # an interrupted search leaves it halfway through a generation

    def run(self) -> None:
        waiting = max(0, self.plan.candidates - self.ledger.evaluated)
        self.on_event(Stage("Search", waiting * len(self.ledger.evaluator.examples)))
        self.ledger.score_baseline()
        self.write(self.ledger.best().candidate)  # also after a kill between a record and its file
        generation = 0
        while candidates := self.method.ask():
            scores = [self._step(generation, slot, candidate) for slot, candidate in enumerate(candidates)]
            self.method.tell(candidates, scores)
            generation += 1

    def write(self, candidate: Candidate, **more: Any) -> ScalingFactors:
        """Write `factors.json` for a candidate, with all that led to it."""
        factors = self.plan.space.factors(candidate).with_provenance(
            model=self.settings["model"],
            base=self.settings["base"],
            found={
                "control_points": [list(point) for point in candidate.control_points],
                "fitness": self.ledger.record_of(candidate).fitness,
                "evaluations": self.ledger.prompts,
                **{name: self.settings[name] for name in ("method", "objective", "search")},
                **provenance(self.ledger.evaluator.model),
                **more,
            },
        )
        factors.save(self.ledger.study.directory / "factors.json")
        return factors

    def _step(self, generation: int, slot: int, candidate: Candidate) -> float:
        is_new = (generation, slot) not in self.ledger.records
        best = self.ledger.best().fitness
        record = self.ledger.record(generation, slot, candidate)
        if is_new:
            self._stop_if_failing(record)
            if record.fitness > best:
                self.write(candidate)
            self.on_event(Evaluated(record, self.ledger.best().fitness))
        return record.fitness

    def _stop_if_failing(self, record: CandidateRecord) -> None:
        failed, tried = self.ledger.failed, len(self.ledger.records)
        if record.failed and failed >= MIN_FAILED and failed > MAX_FAILED_SHARE * tried:
            raise RopewalkError(
                f"{failed} of {tried} candidates failed, so the search stops. The last reason: {_reason(record)}. "
                "Try narrower bounds or --dtype float32"
            )


def _choose(
    plan: SearchPlan, ledger: Ledger, finals: Ledger, on_event: OnEvent
) -> tuple[Candidate, list[dict[str, Any]]]:
    """The winner on validation records among the fittest of the search and the identity, and how each one did."""
    identity = plan.space.identity()
    fittest = [record.candidate for record in ledger.ranked()]
    others = [candidate for candidate in fittest if not plan.space.factors(candidate).is_identity]
    finalists = others[: plan.finalists]
    waiting = max(0, 1 + len(finalists) - finals.evaluated)
    on_event(Stage("Finalists", waiting * len(finals.evaluator.examples)))
    finals.score_baseline()
    for slot, candidate in enumerate(finalists):
        finals.record(0, slot, candidate)
    prompts = len(finals.evaluator.examples)
    table = []
    for candidate in (identity, *finalists):
        record = finals.record_of(candidate)
        fitness = None if record.failed else record.fitness
        table.append(
            {"candidate": candidate.to_json(), "fitness": fitness, "error": _reason(record), "prompts": prompts}
        )
    return finals.best().candidate, table


def _reason(record: CandidateRecord) -> str | None:
    """Why a candidate failed, in one line; the study has the whole traceback."""
    return record.error.strip().splitlines()[-1] if record.error else None


def _settings(plan: SearchPlan, evaluator: Evaluator, validation: Evaluator | None) -> dict[str, Any]:
    """All that a run's records depend on, as JSON. Weights that do not fit the positions are a `RopewalkError`."""
    position_weights(len(evaluator.task.positions), plan.objective.weights)
    return {
        "model": model_identity(evaluator.model),
        "base": base_scheme(evaluator.model),
        "dtype": provenance(evaluator.model)["dtype"],
        "search": _examples_settings(evaluator),
        "validation": None if validation is None else _examples_settings(validation),
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
