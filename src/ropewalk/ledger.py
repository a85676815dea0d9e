"""The ledger of a run: each candidate is scored once, its record is in the study before anything is made of it."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ropewalk.constraints import Scores
from ropewalk.errors import RopewalkError, StudyError
from ropewalk.evaluate import Evaluator
from ropewalk.events import OnEvent, Scored
from ropewalk.factors import ScalingFactors
from ropewalk.objectives import Objective
from ropewalk.race import Rows, is_behind, stages
from ropewalk.results import TaskResult
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.study import CandidateRecord, RecordSplit, Study

BASELINE = (-1, 0)  # generation and slot of the identity, which is scored before all others

Key = tuple[tuple[float | None, ...], Rows]  # two candidates of equal factors on equal records have equal scores


@dataclass(frozen=True)
class Member:
    """A candidate at its place in the search; parents: the places of those it was made of."""

    generation: int
    slot: int
    candidate: Candidate
    parents: tuple[tuple[int, int], ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Generation and slot."""
        return self.generation, self.slot


@dataclass
class _Runner:
    """A member while it is scored: what it found so far, over which records, and whether it is out."""

    member: Member
    factors: ScalingFactors
    found: list[Scores] = field(default_factory=list)
    seen: list[tuple[int, ...]] = field(default_factory=list)
    prompts: int = 0
    seconds: float = 0.0
    behind: float | None = None  # its distance from the rival, below 0, if it was stopped for that
    error: str | None = None

    @property
    def is_out(self) -> bool:
        """Whether there is no sense in scoring it further."""
        return self.behind is not None or self.error is not None

    def take(self, task: int, rows: tuple[int, ...], scores: Scores) -> None:
        """Add what it scored on further records of a task."""
        if task == len(self.found):
            self.found.append(scores)
            self.seen.append(rows)
            return
        known = self.found[task]
        self.found[task] = Scores(
            np.concatenate([known.scores, scores.scores]),
            np.concatenate([known.log_likelihoods, scores.log_likelihoods]),
            known.positions,
        )
        self.seen[task] += rows


class Ledger:
    """Fitness of candidates on one split's examples, from the study or by scoring them now.

    evaluators: one a task of the objective. short: the short texts of its constraint, if it has one. records: all
    records by (generation, slot). The identity, the model as it is, is the first one: likelihoods are measured against
    it, and where it can't be scored nothing can.
    """

    def __init__(
        self,
        study: Study,
        split: RecordSplit,
        evaluators: Sequence[Evaluator],
        space: SearchSpace,
        objective: Objective,
        on_event: OnEvent,
        *,
        short: Evaluator | None = None,
    ) -> None:
        self.study, self.split, self.evaluators, self.short = study, split, tuple(evaluators), short
        self.space, self.objective, self.on_event = space, objective, on_event
        self.all_rows: Rows = tuple(tuple(range(len(evaluator.records))) for evaluator in self.evaluators)
        self.records = study.records(split)
        self._first: dict[Key, CandidateRecord] = {}  # the first record of the same factors on the same records
        for record in self.records.values():
            self._first.setdefault(self._key(record.candidate, record.rows), record)
        self._listener_error: Exception | None = None
        self.scales: tuple[float, ...] = ()

    @property
    def evaluations(self) -> int:
        """Candidate·prompt evaluations so far, in this run and in those it continues."""
        return sum(record.prompts for record in self.records.values())

    @property
    def seconds(self) -> float:
        """Seconds that they took."""
        return sum(record.seconds for record in self.records.values())

    @property
    def failed(self) -> int:
        """Records of candidates that could not be scored."""
        return sum(record.failed for record in self.records.values())

    @property
    def vanilla(self) -> tuple[Scores, ...]:
        """What the model as it is scores on all records; needs the baseline."""
        return self.records[BASELINE].found[: len(self.evaluators)]

    def cost(self, rows: Rows) -> int:
        """Prompts of one candidate on these records."""
        own = sum(
            len(part) * len(evaluator.task.positions) for part, evaluator in zip(rows, self.evaluators, strict=True)
        )
        return own + (0 if self.short is None else len(self.short.examples))

    def score_baseline(self) -> None:
        """Score the identity; raises `RopewalkError`, and records nothing, if the model as it is can't be scored."""
        member = Member(*BASELINE, self.space.identity())
        self._same_candidate(member)
        if BASELINE not in self.records:
            runner = self._run([member], self.all_rows, None)[0]
            if runner.error is not None:
                raise RopewalkError(
                    f"the model as it is can't be scored on the {self.split} prompts "
                    f"({runner.error.strip().splitlines()[-1]}); try --dtype float32, or see what ropewalk doctor says"
                )
            self._add(self._record(runner, fitness=0.0))
        self.scales = self.objective.scales(self.vanilla)

    def score(self, members: Sequence[Member], rows: Rows, rival: Candidate | None = None) -> list[CandidateRecord]:
        """The record of each member on these records: from the study, or by scoring together those that it lacks.

        rival: whom they race against; it must have been scored on these records, else there is no race. Raises
        `StudyError` if the study holds another candidate at the place of one.
        """
        for member in members:
            self._same_candidate(member)
        twins = {member.place: self._twin(member, rows) for member in members}
        fresh = [member for member in members if twins[member.place] is None]
        if any(member.place not in self.records for member in fresh):
            # All of them, also those that the study has: in another company a score may differ by rounding.
            ahead = self._rival(rival, rows)
            for runner in self._run(fresh, rows, ahead):
                if runner.member.place not in self.records:
                    self._add(self._judged(runner, ahead))
        for member in members:
            twin = twins[member.place]
            if twin is not None and member.place not in self.records:
                self._add(_repeated(twin, member))
        return [self.records[member.place] for member in members]

    def record_of(self, candidate: Candidate) -> CandidateRecord:
        """The first complete record of a candidate's factors, on whatever records; it must have been scored."""
        values = self.space.factors(candidate).values
        return next(record for (factors, _), record in self._first.items() if factors == values)

    def best(self) -> CandidateRecord:
        """The fittest record so far; of equal ones the earliest, so the identity wins ties. Needs the baseline."""
        scored = (self.records[key] for key in sorted(self.records) if not self.records[key].failed)
        return max(scored, key=lambda record: record.fitness)

    def _same_candidate(self, member: Member) -> None:
        known = self.records.get(member.place)
        if known is not None and known.candidate != member.candidate:
            raise StudyError(
                f"{self.study.directory}: the study was made by another version of the search method (generation "
                f"{member.generation}, slot {member.slot} differs) and can't be continued by this one; use another "
                "--out"
            )

    def _twin(self, member: Member, rows: Rows) -> CandidateRecord | None:
        """The record of the same factors on the same records at an earlier place."""
        twin = self._first.get(self._key(member.candidate, rows))
        return None if twin is None or (twin.generation, twin.slot) == member.place else twin

    def _rival(self, rival: Candidate | None, rows: Rows) -> CandidateRecord | None:
        """Its record with scores on these records, or None."""
        record = None if rival is None else self._first.get(self._key(rival, rows))
        return None if record is None or record.failed or record.stopped else record

    def _run(self, members: Sequence[Member], rows: Rows, rival: CandidateRecord | None) -> list[_Runner]:
        """Score members together, stage by stage where there is a rival; those behind it leave the race."""
        runners = [_Runner(member, self.space.factors(member.candidate)) for member in members]
        for stage in [rows] if rival is None else stages(rows):
            running = [runner for runner in runners if not runner.is_out]
            for task, (evaluator, own) in enumerate(zip(self.evaluators, stage, strict=True)):
                part = evaluator.part(own)
                for runner, result in zip(running, self._results(running, part), strict=True):
                    if result is not None:
                        runner.take(task, own, _scores(result))
                running = [runner for runner in running if not runner.is_out]
            for runner in running:
                if rival is not None and tuple(runner.seen) != rows:
                    self._stop_if_behind(runner, rival)
        if self.short is not None:
            running = [runner for runner in runners if not runner.is_out]
            for runner, result in zip(running, self._results(running, self.short), strict=True):
                if result is not None:
                    runner.found.append(_scores(result))
        return runners

    def _results(self, runners: Sequence[_Runner], evaluator: Evaluator) -> list[TaskResult | None]:
        """One result a runner; None where scoring it raised, which becomes its error.

        If scoring them together raises, each is scored alone, to see whose fault it is.
        """
        if not runners:
            return []
        started = time.perf_counter()
        results: list[TaskResult | None]
        try:
            factors = [runner.factors for runner in runners]
            results = list(evaluator.score_many(factors, on_progress=self._progress))
        except RopewalkError:
            raise  # the model or the prompts can't be used at all, which another candidate would not change
        except Exception as error:
            if error is self._listener_error:
                raise  # the screen broke, not the candidate
            if len(runners) > 1:
                return [self._results([runner], evaluator)[0] for runner in runners]
            runners[0].error = traceback.format_exc()
            results = [None]
        seconds = (time.perf_counter() - started) / len(runners)
        for runner, result in zip(runners, results, strict=True):
            runner.prompts += len(evaluator.examples)
            runner.seconds += seconds
            if result is not None and result.failures:
                runner.error = f"{result.failures} of {result.scores.size} log-likelihoods are not finite"
        return results

    def _stop_if_behind(self, runner: _Runner, rival: CandidateRecord) -> None:
        """Take a runner out of the race whose rival, on the same records, is ahead beyond doubt."""
        theirs = [
            found.rows([rows.index(row) for row in seen])
            for found, rows, seen in zip(rival.found, rival.rows, runner.seen, strict=False)
        ]
        difference = self.objective.difference(runner.found, theirs, self.scales)
        if is_behind(difference, [len(rows) for rows in runner.seen]):
            runner.behind = difference[0] if difference else None

    def _judged(self, runner: _Runner, rival: CandidateRecord | None) -> CandidateRecord:
        """The record with its fitness: relative to vanilla's on the same records."""
        if runner.error is not None:
            return self._record(runner, fitness=math.nan)
        tasks = len(self.evaluators)
        vanilla = [found.rows(rows) for found, rows in zip(self.vanilla, runner.seen, strict=False)]
        base = self.records[BASELINE].found[tasks:]  # of short texts
        mine = runner.found[tasks:] or base  # one that was stopped did not read them
        short = (mine[0], base[0]) if base else None
        found = self.objective.fitness(runner.found[:tasks], vanilla, self.scales, short)
        level = self.objective.fitness(vanilla, vanilla, self.scales, (base[0], base[0]) if base else None)
        fitness = found.value - level.value
        if rival is not None and runner.behind is not None:
            fitness = min(fitness, rival.fitness + runner.behind)  # the paired estimate is the better one
        return self._record(runner, fitness=fitness, penalties=found.penalties)

    def _record(
        self, runner: _Runner, *, fitness: float, penalties: Mapping[str, float] | None = None
    ) -> CandidateRecord:
        return CandidateRecord(
            *runner.member.place,
            runner.member.candidate,
            fitness,
            found=tuple(runner.found),
            rows=tuple(runner.seen),
            parents=runner.member.parents,
            stopped=runner.behind is not None,
            penalties=penalties or {},
            prompts=runner.prompts,
            seconds=runner.seconds,
            error=runner.error,
        )

    def _add(self, record: CandidateRecord) -> None:
        self.study.add(record, self.split)
        self.records[record.generation, record.slot] = record
        self._first.setdefault(self._key(record.candidate, record.rows), record)

    def _progress(self, prompts: int) -> None:
        try:
            self.on_event(Scored(prompts))
        except Exception as error:
            self._listener_error = error
            raise

    def _key(self, candidate: Candidate, rows: Rows) -> Key:
        return self.space.factors(candidate).values, rows


def _scores(result: TaskResult) -> Scores:
    return Scores(result.scores, result.log_likelihoods, result.positions)


def _repeated(twin: CandidateRecord, member: Member) -> CandidateRecord:
    """The record of a member whose factors were scored before: it cost nothing and has no scores of its own."""
    return replace(
        twin,
        generation=member.generation,
        slot=member.slot,
        candidate=member.candidate,
        parents=member.parents,
        found=(),
        prompts=0,
        seconds=0.0,
    )
