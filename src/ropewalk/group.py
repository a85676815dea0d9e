"""Members of a generation that are scored together: stage by stage, and what one of them breaks costs no other."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ropewalk.constraints import Scores
from ropewalk.evaluate import Evaluator
from ropewalk.events import OnEvent, Scored
from ropewalk.factors import ScalingFactors
from ropewalk.race import Rows
from ropewalk.results import TaskResult
from ropewalk.search.space import Candidate


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
class Runner:
    """A member while it is scored.

    found, seen: what it scored on each task so far, and over which records; then, in `found` alone, the short texts'.
    prompts, seconds: spent on it. behind: its distance from the rival, below 0, if it was stopped for that. error: why
    it failed, the traceback if scoring it raised; `raised` is that exception.
    """

    member: Member
    factors: ScalingFactors
    found: list[Scores] = field(default_factory=list)
    seen: list[tuple[int, ...]] = field(default_factory=list)
    prompts: int = 0
    seconds: float = 0.0
    behind: float | None = None
    error: str | None = None
    raised: Exception | None = None

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


class GroupScorer:
    """Scores runners on records of each task, then on the short texts."""

    def __init__(self, evaluators: Sequence[Evaluator], short: Evaluator | None, on_event: OnEvent) -> None:
        self.evaluators, self.short, self.on_event = evaluators, short, on_event
        self._listener_error: Exception | None = None
        self._reported = self._again = 0

    def score(
        self, runners: Sequence[Runner], stages: Sequence[Rows], behind: Callable[[Runner], float | None] | None = None
    ) -> None:
        """Score them on the records of each stage. behind: asked between stages who is out of the race."""
        for number, stage in enumerate(stages, 1):
            for task, (evaluator, own) in enumerate(zip(self.evaluators, stage, strict=True)):
                if not own:
                    continue  # of a task with few records all were seen in an earlier stage
                running = [runner for runner in runners if not runner.is_out]
                for runner, scores in self._scores(running, evaluator.part(own)):
                    runner.take(task, own, scores)
            for runner in runners:
                if behind is not None and number < len(stages) and not runner.is_out:
                    runner.behind = behind(runner)
        if self.short is not None:
            running = [runner for runner in runners if not runner.is_out]
            for runner, scores in self._scores(running, self.short):
                runner.found.append(scores)

    def _scores(self, runners: Sequence[Runner], evaluator: Evaluator) -> list[tuple[Runner, Scores]]:
        """What each runner scores there; those that raised are left out."""
        results = self._results(runners, evaluator) if runners else []
        return [
            (runner, Scores(result.scores, result.log_likelihoods, result.positions))
            for runner, result in zip(runners, results, strict=True)
            if result is not None
        ]

    def _results(self, runners: Sequence[Runner], evaluator: Evaluator) -> list[TaskResult | None]:
        """One result a runner; None where scoring it raised, which becomes its error.

        If scoring them together raises, each is scored alone, to see whose fault it is.
        """
        started = time.perf_counter()
        self._reported = 0
        results: list[TaskResult | None]
        try:
            results = list(evaluator.score_many([runner.factors for runner in runners], on_progress=self._progress))
        except Exception as error:
            if error is self._listener_error:
                raise  # the screen broke, not the candidate
            if len(runners) > 1:
                self._again = self._reported
                found = [self._results([runner], evaluator)[0] for runner in runners]
                self._again = 0
                return found
            runners[0].error, runners[0].raised = traceback.format_exc(), error
            results = [None]
        seconds = (time.perf_counter() - started) / len(runners)
        for runner, result in zip(runners, results, strict=True):
            runner.prompts += len(evaluator.examples)
            runner.seconds += seconds
            if result is not None and result.failures:
                runner.error = f"{result.failures} of {result.scores.size} log-likelihoods are not finite"
        return results

    def _progress(self, prompts: int) -> None:
        """Tell how many prompts were scored; those of a group that is scored again one by one are told once."""
        known = min(self._again, prompts)
        self._again -= known
        self._reported += prompts
        try:
            if prompts > known:
                self.on_event(Scored(prompts - known))
        except Exception as error:
            self._listener_error = error
            raise
