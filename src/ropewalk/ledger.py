"""The ledger of a run: each candidate is scored once, its record is in the study before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ropewalk.answers import Answerers
from ropewalk.constraints import Scores
from ropewalk.elsewhere import holders_of
from ropewalk.errors import RopewalkError, StudyError
from ropewalk.evaluate import Evaluator
from ropewalk.events import OnEvent
from ropewalk.group import Course, GroupScorer, Member, Runner, finish, finish_all
from ropewalk.objectives import Objective
from ropewalk.race import Rows, is_behind, stages
from ropewalk.search.base import Detail
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.study import CandidateRecord, RecordSplit, Study

__all__ = ["BASELINE", "Ledger", "Member"]

BASELINE = (-1, 0)  # generation and slot of the identity, which is scored before all others

Key = tuple[tuple[float | None, ...], Rows]  # two candidates of equal factors on equal records have equal scores


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
        self.space, self.objective = space, objective
        self.all_rows: Rows = tuple(tuple(range(len(evaluator.records))) for evaluator in self.evaluators)
        self.records: dict[tuple[int, int], CandidateRecord] = {}
        self.scales: tuple[float, ...] = ()
        self._first: dict[Key, CandidateRecord] = {}  # of the same factors on the same records; none that was stopped
        self._of: dict[tuple[float | None, ...], CandidateRecord] = {}  # of the same factors, on whatever records
        self.on_event = on_event
        self.holders: Answerers | None = holders_of(self.evaluators[0].model)
        for record in study.records(split).values():
            self._keep(record)

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
            runner = Runner(member, self.space.factors(member.candidate))
            course = GroupScorer(self.evaluators, self.short, self.on_event).score([runner], [self.all_rows])
            finish(course)
            if isinstance(runner.raised, RopewalkError):
                raise runner.raised  # it says itself what to do
            if runner.error is not None:
                raise RopewalkError(
                    f"the model as it is can't be scored on the {self.split} prompts "
                    f"({runner.error.strip().splitlines()[-1]}); try --dtype float32, or see what ropewalk doctor says"
                ) from runner.raised
            self._add(_record(runner, fitness=0.0))
        self.scales = self.objective.scales(self.vanilla)

    def missing(self, members: Sequence[Member], rows: Rows) -> list[Member]:
        """Those that the study lacks and that would have to be scored."""
        return [member for member in members if member.place not in self.records and self._known(member, rows) is None]

    def score(self, members: Sequence[Member], rows: Rows, rival: Candidate | None = None) -> list[CandidateRecord]:
        """`course`, run to its end in this process or by those who hold the model."""
        return next(self.score_all([(members, rows)], rival))

    def score_all(
        self, groups: Sequence[tuple[Sequence[Member], Rows]], rival: Candidate | None = None
    ) -> Iterator[list[CandidateRecord]]:
        """The records of each group in turn; beside one another if others hold the model, else one after another."""
        courses = [self.course(members, rows, rival) for members, rows in groups]
        return map(finish, courses) if self.holders is None else finish_all(courses, self.holders)

    def course(
        self, members: Sequence[Member], rows: Rows, rival: Candidate | None = None
    ) -> Course[list[CandidateRecord]]:
        """The record of each member on these records: from the study, or by scoring together those that it lacks.

        rival: whom they race against; it must have been scored on these records, else there is no race. Raises
        `StudyError` if the study holds another candidate at the place of one.
        """
        for member in members:
            self._same_candidate(member)
        known = {member.place: self._known(member, rows) for member in members}
        fresh = [member for member in members if known[member.place] is None]
        if any(member.place not in self.records for member in fresh):
            # All of them, also those that the study has: in another company a score may differ by rounding.
            for record in (yield from self._scored(fresh, rows, self._rival(rival, rows))):
                if (record.generation, record.slot) not in self.records:
                    self._add(record)
        for member in members:
            record_known = known[member.place]
            if record_known is not None and member.place not in self.records:
                self._add(record_known)
        return [self.records[member.place] for member in members]

    def record_of(self, candidate: Candidate) -> CandidateRecord | None:
        """The first record of a candidate's factors, on whatever records; a failed one only if there is no other.

        None if they were never scored, or were stopped in a race.
        """
        return self._of.get(self.space.factors(candidate).values)

    def detail(self, record: CandidateRecord) -> Detail | None:
        """What a record's fitness is made of; None if it failed or was stopped."""
        own = record if record.found else self._first.get(self._key(record.candidate, record.rows))
        if own is None or own.failed or own.stopped:
            return None
        tasks, base = len(self.evaluators), self.records[BASELINE].found
        vanilla = [scores.rows(rows) for scores, rows in zip(self.vanilla, own.rows, strict=True)]
        short = (own.found[tasks], base[tasks]) if self.short is not None else None
        losses = self.objective.losses(own.found[:tasks], vanilla, short)
        return Detail(
            gain=own.fitness + sum(own.penalties.values()),
            losses=tuple(loss for loss, _ in losses),
            limits=tuple(limit for _, limit in losses),
        )

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

    def _known(self, member: Member, rows: Rows) -> CandidateRecord | None:
        """The record of a member whose scores are known: those of its factors at an earlier place, or vanilla's own."""
        twin = self._first.get(self._key(member.candidate, rows))
        if twin is not None and (twin.generation, twin.slot) != member.place:
            return _repeated(twin, member)
        factors = self.space.factors(member.candidate)
        if not factors.is_identity or member.place == BASELINE:
            return None
        short = self.records[BASELINE].found[len(self.evaluators) :]
        found = [scores.rows(own) for scores, own in zip(self.vanilla, rows, strict=True)]
        return self._judged(Runner(member, factors, [*found, *short], list(rows)), None)

    def _rival(self, rival: Candidate | None, rows: Rows) -> CandidateRecord | None:
        """Its record with scores on these records, or None."""
        record = None if rival is None else self._first.get(self._key(rival, rows))
        return None if record is None or record.failed else record

    def _scored(
        self, members: Sequence[Member], rows: Rows, rival: CandidateRecord | None
    ) -> Course[list[CandidateRecord]]:
        """Score members together, and let them race where there is a rival."""
        runners = [Runner(member, self.space.factors(member.candidate)) for member in members]
        scorer = GroupScorer(self.evaluators, self.short, self.on_event)
        if rival is None:
            yield from scorer.score(runners, [rows])
        else:
            yield from scorer.score(runners, stages(rows), lambda runner: self._behind(runner, rival, rows))
        return [self._judged(runner, rival) for runner in runners]

    def _behind(self, runner: Runner, rival: CandidateRecord, rows: Rows) -> float | None:
        """By how much a runner's fitness is below its rival's, if that is beyond doubt for all of `rows`; else None.

        What the rival's penalties cost is granted to the runner, whose own can only make it worse: they are no mean
        over records, so the test can't take them in.
        """
        theirs = [
            found.rows([own.index(row) for row in seen])
            for found, own, seen in zip(rival.found, rival.rows, runner.seen, strict=False)  # not the short texts
        ]
        difference = self.objective.difference(runner.found, theirs, self.scales)
        if difference is None:
            return None
        mean, error = difference[0] + sum(rival.penalties.values()), difference[1]
        seen, of = [len(own) for own in runner.seen], [len(own) for own in rows]
        return mean if is_behind((mean, error), seen, of) else None

    def _judged(self, runner: Runner, rival: CandidateRecord | None) -> CandidateRecord:
        """The record with its fitness: relative to vanilla's on the same records."""
        if runner.error is not None:
            return _record(runner, fitness=math.nan)
        tasks = len(self.evaluators)
        vanilla = [found.rows(rows) for found, rows in zip(self.vanilla, runner.seen, strict=True)]
        base = self.records[BASELINE].found[tasks:]  # of short texts
        mine = runner.found[tasks:] or base  # one that was stopped did not read them
        found = self.objective.fitness(runner.found[:tasks], vanilla, self.scales, (mine[0], base[0]) if base else None)
        level = self.objective.fitness(vanilla, vanilla, self.scales, (base[0], base[0]) if base else None)
        fitness = found.value - level.value
        if rival is not None and runner.behind is not None:
            fitness = min(fitness, rival.fitness + runner.behind)  # the paired estimate is the better one
        return _record(runner, fitness=fitness, penalties=found.penalties)

    def _add(self, record: CandidateRecord) -> None:
        self.study.add(record, self.split)
        self._keep(record)

    def _keep(self, record: CandidateRecord) -> None:
        """Take in a record; the study does not know the gold positions, after which penalties are named."""
        tasks = [evaluator.task for evaluator in (*self.evaluators, *([self.short] if self.short else []))]
        named = tuple(
            replace(scores, positions=task.positions) for scores, task in zip(record.found, tasks, strict=False)
        )
        record = replace(record, found=named)
        self.records[record.generation, record.slot] = record
        if record.stopped:
            return
        key = self._key(record.candidate, record.rows)
        self._first.setdefault(key, record)
        if key[0] not in self._of or (self._of[key[0]].failed and not record.failed):
            self._of[key[0]] = record

    def _key(self, candidate: Candidate, rows: Rows) -> Key:
        return self.space.factors(candidate).values, rows


def _record(runner: Runner, *, fitness: float, penalties: Mapping[str, float] | None = None) -> CandidateRecord:
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
