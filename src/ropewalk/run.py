"""A search from start to end: the generation loop and the choice among finalists; `final_test` comes after it.

The loop is resumable: a candidate that the study holds is not evaluated again. Factors are written at every
improvement, so that an interrupted run leaves its best so far.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ropewalk.errors import RopewalkError
from ropewalk.events import Baseline, Evaluated, Event, OnEvent, Scored, Spared, Stage
from ropewalk.factors import ScalingFactors
from ropewalk.heldout import final_test
from ropewalk.ledger import Ledger, Member
from ropewalk.plan import Examples, SearchPlan, planned_prompts, run_settings
from ropewalk.provenance import provenance
from ropewalk.race import Rows
from ropewalk.search.space import Candidate
from ropewalk.study import CandidateRecord, open_study

__all__ = [
    "Baseline",
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

Group = tuple[list[Member], Rows]  # members that are scored together, and on what
FACTORS = "factors.json"  # in the run directory: the best so far, then the winner
MAX_FAILED_SHARE = 0.5
MIN_FAILED = 4  # fewer failures than this never stop a search


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
    settings = run_settings(plan, on, validation)
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
            better = [candidate for candidate in finalists[:1] if loop.fitness(candidate) > 0]
            chosen = better[0] if better else plan.space.identity()
        fitness = loop.fitness(chosen)
        return SearchResult(
            factors=loop.write(chosen, fitness, validation=table),
            candidate=chosen,
            fitness=fitness,
            validation=table,
            evaluations=ledger.evaluations,
            validation_evaluations=spent,
            failed=ledger.failed,
            stopped=sum(record.stopped for record in ledger.records.values()),
            records=[ledger.records[key] for key in sorted(ledger.records)],
        )


def check_run(plan: SearchPlan, on: Examples, validation: Examples | None, out: Path) -> None:
    """Raise what `search` would raise for a run directory that can't be continued, before anything is scored."""
    with open_study(out, run_settings(plan, on, validation)):
        pass


class _Loop:
    """The generation loop: asks the method, has the ledger score, tells the method, writes what is better."""

    def __init__(self, plan: SearchPlan, ledger: Ledger, settings: dict[str, Any], on_event: OnEvent) -> None:
        self.plan, self.ledger, self.settings, self.on_event = plan, ledger, settings, on_event
        self.method = copy.deepcopy(plan.method)  # an interrupted search leaves it halfway through a generation
        self._places: dict[Candidate, tuple[int, int]] = {}
        self._best, self._written = 0.0, plan.space.identity()

    def run(self) -> None:
        """All generations, or as many as the budget and the time allow."""
        planned = planned_prompts(self.plan, self.ledger.all_rows, self.ledger.cost)
        self.on_event(Stage("Search", max(0, planned - self.ledger.evaluations)))
        self.ledger.score_baseline()
        self.on_event(Baseline(self.ledger.vanilla))
        if not (self.ledger.study.directory / FACTORS).exists():
            self.write(self._written, self._best)
        while candidates := self.method.ask():
            records: list[CandidateRecord] = []
            groups = self._groups(candidates)
            while wave := self._wave(groups):
                groups = groups[len(wave) :]
                records += self._scored(wave)
            left = len(candidates) - len(records)  # the method's finalists may be of an unfinished generation
            scores = [record.fitness for record in records] + [math.nan] * left
            details = [self.ledger.detail(record) for record in records] + [None] * left
            self.method.tell(candidates, scores, details)
            self._write_first()
            if left:
                return

    def finalists(self) -> list[Candidate]:
        """The method's, without the identity and those that failed or were stopped."""
        found = self.method.finalists()
        others = (candidate for candidate in found if not self.plan.space.factors(candidate).is_identity)
        return list(islice(filter(self._is_complete, others), max(1, self.plan.finalists)))

    def _is_complete(self, candidate: Candidate) -> bool:
        """Whether it neither failed nor was stopped; a method may propose one that was not scored itself."""
        record = self.ledger.record_of(candidate)
        return candidate not in self._places if record is None else not record.failed

    def fitness(self, candidate: Candidate) -> float:
        """Of the identity 0, of a finalist what the method holds it to be."""
        return 0.0 if self.plan.space.factors(candidate).is_identity else self.method.estimate(candidate)

    def _write_first(self) -> None:
        """Write what the method would propose now, if it is new and better than vanilla."""
        for candidate in self.finalists()[:1]:
            estimate = self.fitness(candidate)
            if estimate > 0 and candidate != self._written:
                self._best = estimate
                self.write(candidate, estimate)

    def write(self, candidate: Candidate, fitness: float, **more: Any) -> ScalingFactors:
        """Write `factors.json` for a candidate, with all that led to it."""
        factors = self.plan.space.factors(candidate).with_provenance(
            model=self.settings["model"],
            base=self.settings["base"],
            found={
                **candidate.to_json(),
                "fitness": fitness,
                "evaluations": self.ledger.evaluations,
                "seconds": round(self.ledger.seconds, 1),
                **{name: self.settings[name] for name in ("method", "objective", "racing", "tasks")},
                **provenance(self.ledger.evaluators[0].model),
                **more,
            },
        )
        factors.save(self.ledger.study.directory / FACTORS)
        self._written = candidate
        return factors

    def _groups(self, candidates: list[Candidate]) -> list[Group]:
        """The members of a generation as they are scored together: neighbours on the same records.

        A rival among them comes first, alone.
        """
        generation = self.method.generation
        for slot, candidate in enumerate(candidates):
            self._places.setdefault(candidate, (generation, slot))
        members = [
            Member(generation, slot, candidate, tuple(self._places[one] for one in self.method.parents(candidate)))
            for slot, candidate in enumerate(candidates)
        ]
        alone = 1 if self.plan.racing and self.method.rival() == candidates[0] else 0
        groups: list[Group] = []
        for member in members:
            rows = tuple(tuple(self.method.records(member.slot, len(own))) for own in self.ledger.all_rows)
            is_full = groups and (len(groups[-1][0]) == self.plan.at_once or member.slot == alone)
            if not groups or is_full or groups[-1][1] != rows:
                groups.append(([], rows))
            groups[-1][0].append(member)
        return groups

    def _wave(self, groups: list[Group]) -> list[Group]:
        """The next groups to be scored beside one another; none if they are spent or none is left.

        One, where the model is in this process. Workers get all that would be scored one after another whatever came of
        those before: as far as the budget pays for all of them in full, and up to the rival or a repeated candidate.
        """
        if not groups or self._is_spent(*groups[0], 0):
            return []
        wave, planned, factors = [groups[0]], self._price(*groups[0]), self._factors(groups[0])
        rival = self.method.rival() if self.plan.racing else None
        for group in groups[1:] if self.ledger.holders is not None else []:
            own = self._factors(group)
            runs_first = rival is not None and self.plan.space.factors(rival).values in factors
            if runs_first or factors & own or self._is_spent(*group, planned):
                break
            wave.append(group)
            planned, factors = planned + self._price(*group), factors | own
        return wave

    def _factors(self, group: Group) -> set[tuple[float | None, ...]]:
        return {self.plan.space.factors(member.candidate).values for member in group[0]}

    def _price(self, group: list[Member], rows: Rows) -> int:
        return len(self.ledger.missing(group, rows)) * self.ledger.cost(rows)

    def _is_spent(self, group: list[Member], rows: Rows, planned: int) -> bool:
        """Whether budget or time end the search before this group; what the study holds is free.

        planned: evaluations that groups before it may still take. A group that a kill left half written is finished
        whatever the time, or the kill would have changed the result.
        """
        price = self._price(group, rows)
        if not price:
            return False
        budget, seconds = self.plan.budget, self.plan.seconds
        if budget is not None and self.ledger.evaluations + planned + price > budget:
            return True
        first = group[0].place
        begun = any(place[0] == first[0] and place >= first for place in self.ledger.records)
        return bool(seconds) and not begun and self.ledger.seconds >= (seconds or 0)

    def _scored(self, wave: list[Group]) -> list[CandidateRecord]:
        new = {member.place for group, _ in wave for member in group if member.place not in self.ledger.records}
        found: list[CandidateRecord] = []
        scored = self.ledger.score_all(wave, self.method.rival() if self.plan.racing else None)
        for (_, rows), records in zip(wave, scored, strict=True):
            self._take(records, rows, new)
            found += records
        return found

    def _take(self, records: list[CandidateRecord], rows: Rows, new: set[tuple[int, int]]) -> None:
        """Write what is better, and tell of the records that are new."""
        for record in records:
            if rows == self.ledger.all_rows and record.fitness > self._best:  # else it saw too little to be compared
                self._best = record.fitness
                self.write(record.candidate, record.fitness)  # a known one too: a kill may have come before its file
            if (record.generation, record.slot) not in new:
                continue
            self._stop_if_failing(record)
            spared = self.ledger.cost(rows) - record.prompts
            if spared > 0 and not self.plan.space.factors(record.candidate).is_identity:  # which was never planned
                self.on_event(Spared(spared))
            self.on_event(Evaluated(record, self._best))

    def _stop_if_failing(self, record: CandidateRecord) -> None:
        if not record.failed:
            return
        place = record.generation, record.slot  # workers may have scored later ones already
        tried_so_far = [one for other, one in self.ledger.records.items() if other <= place]
        failed, tried = sum(one.failed for one in tried_so_far), len(tried_so_far)
        if failed >= MIN_FAILED and failed > MAX_FAILED_SHARE * tried:
            raise RopewalkError(
                f"{failed} of {tried} candidates failed, so the search stops. The last reason: {_reason(record)}. "
                "Try narrower bounds or --dtype float32"
            )


def _choose(
    plan: SearchPlan, finalists: list[Candidate], finals: Ledger, on_event: OnEvent
) -> tuple[Candidate, list[dict[str, Any]]]:
    """The winner on validation records among the finalists and the identity, and how each one did."""
    identity = plan.space.identity()
    cost = finals.cost(finals.all_rows)
    on_event(Stage("Finalists", max(0, (1 + len(finalists)) * cost - finals.evaluations)))
    finals.score_baseline()
    list(
        finals.score_all([([Member(0, slot, candidate)], finals.all_rows) for slot, candidate in enumerate(finalists)])
    )
    table = []
    for record in map(finals.record_of, (identity, *finalists)):
        if record is None:
            continue  # all of them were scored just now
        table.append({
            "candidate": record.candidate.to_json(),
            "fitness": None if record.failed else record.fitness,
            "penalties": dict(record.penalties),
            "error": _reason(record),
            "prompts": cost,
        })  # fmt: skip
    return finals.best().candidate, table


def _reason(record: CandidateRecord) -> str | None:
    """Why a candidate failed, in one line; the study has the whole traceback."""
    return record.error.strip().splitlines()[-1] if record.error else None
