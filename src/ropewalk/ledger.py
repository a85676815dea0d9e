"""The ledger of a run: each candidate is scored once, its record is in the study before anything is made of it."""

from __future__ import annotations

import math
import traceback

from ropewalk.errors import RopewalkError, StudyError
from ropewalk.evaluate import Evaluator
from ropewalk.events import OnEvent, Scored
from ropewalk.objectives import Utilisation
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.study import CandidateRecord, RecordSplit, Study

BASELINE = (-1, 0)  # generation and slot of the identity, which is scored before all others


class Ledger:
    """Fitness of candidates on one split's examples, from the study or by scoring them now.

    records: all records by (generation, slot). The identity, the model as it is, is the first one: likelihoods are
    measured against it, and where it can't be scored nothing can.
    """

    def __init__(
        self,
        study: Study,
        split: RecordSplit,
        evaluator: Evaluator,
        space: SearchSpace,
        objective: Utilisation,
        on_event: OnEvent,
    ) -> None:
        self.study, self.split, self.evaluator = study, split, evaluator
        self.space, self.objective, self.on_event = space, objective, on_event
        self.records = study.records(split)
        self._first: dict[tuple[float | None, ...], CandidateRecord] = {}  # the first record of the same factors
        for record in self.records.values():
            self._first.setdefault(self._factors(record.candidate), record)
        self._listener_error: Exception | None = None

    @property
    def evaluated(self) -> int:
        """Candidates that were scored; candidates of equal factors are scored once."""
        return len(self._first)

    @property
    def prompts(self) -> int:
        """Prompts scored for these records, in this run and in those it continues."""
        return self.evaluated * len(self.evaluator.examples)

    @property
    def failed(self) -> int:
        """Records of candidates that could not be scored."""
        return sum(record.failed for record in self.records.values())

    def score_baseline(self) -> None:
        """Score the identity; raises `RopewalkError`, and records nothing, if the model as it is can't be scored."""
        self.record(*BASELINE, self.space.identity())

    def best(self) -> CandidateRecord:
        """The fittest record so far; of equal ones the earliest, so the identity wins ties. Needs the baseline."""
        scored = (self.records[key] for key in sorted(self.records) if not self.records[key].failed)
        return max(scored, key=lambda record: record.fitness)

    def ranked(self) -> list[CandidateRecord]:
        """One record for each set of factors that was scored without failing, the fittest first."""
        scored = (record for record in self._first.values() if not record.failed)
        return sorted(scored, key=lambda record: (-record.fitness, record.generation, record.slot))

    def record_of(self, candidate: Candidate) -> CandidateRecord:
        """The first record of a candidate's factors; they must have been scored."""
        return self._first[self._factors(candidate)]

    def record(self, generation: int, slot: int, candidate: Candidate) -> CandidateRecord:
        """The record of that place: from the study, as one of equal factors has it, or by scoring it now.

        Raises `StudyError` if the study holds another candidate at that place.
        """
        known = self.records.get((generation, slot))
        if known is not None:
            if known.candidate != candidate:
                raise StudyError(
                    f"{self.study.directory}: the study was made by another version of the search method (generation "
                    f"{generation}, slot {slot} differs) and can't be continued by this one; use another --out"
                )
            return known
        factors = self._factors(candidate)
        twin = self._first.get(factors)
        if twin is not None:
            record = CandidateRecord(generation, slot, candidate, twin.fitness, error=twin.error)
        else:
            record = self._score(generation, slot, candidate)
        self.study.add(record, self.split)
        self.records[generation, slot] = record
        self._first.setdefault(factors, record)
        return record

    def _score(self, generation: int, slot: int, candidate: Candidate) -> CandidateRecord:
        is_baseline = (generation, slot) == BASELINE
        try:
            result = self.evaluator.score(self.space.factors(candidate), on_progress=self._progress)
        except RopewalkError:
            raise  # the model or the prompts can't be used at all, which another candidate would not change
        except Exception as error:
            if error is self._listener_error:
                raise  # the screen broke, not the candidate
            if is_baseline:
                raise self._baseline_error(f"{type(error).__name__}: {error}") from error
            return CandidateRecord(generation, slot, candidate, math.nan, error=traceback.format_exc())
        reason = None
        if result.failures:
            reason = f"{result.failures} of {result.scores.size} log-likelihoods are not finite"
            if is_baseline:
                raise self._baseline_error(reason)
        vanilla = result.log_likelihoods if is_baseline else self.records[BASELINE].log_likelihoods
        if vanilla is None:
            raise StudyError(f"{self.study.directory}: the study's baseline has no scores; use another --out")
        fitness = self.objective.fitness(result.scores, result.log_likelihoods, vanilla)
        return CandidateRecord(
            generation, slot, candidate, fitness, result.scores, result.log_likelihoods, error=reason
        )

    def _progress(self, prompts: int) -> None:
        try:
            self.on_event(Scored(prompts))
        except Exception as error:
            self._listener_error = error
            raise

    def _baseline_error(self, reason: str) -> RopewalkError:
        return RopewalkError(
            f"the model as it is can't be scored on the {self.split} prompts ({reason}); "
            "try --dtype float32, or see what ropewalk doctor says"
        )

    def _factors(self, candidate: Candidate) -> tuple[float | None, ...]:
        return self.space.factors(candidate).values
