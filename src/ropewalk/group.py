"""Members of a generation that are scored together: stage by stage, and what one of them breaks costs no other.

How a group is scored is a `Course`: it asks for results, and what it asks for next follows from what it was told alone.
So it ends the same whether it is run by itself in this process or beside others on many workers, in whatever order
their results arrive.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from ropewalk.answers import Answerers, Job
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


@dataclass
class Ask:
    """What a course wants to know: a result for each of the factors.

    report: told of prompts as they are scored. seconds: what it took, once it is known.
    """

    evaluator: Evaluator
    factors: Sequence[ScalingFactors]
    report: Callable[[int], None]
    seconds: float = 0.0


T = TypeVar("T")
Course = Generator[Ask, list[TaskResult], T]


def finish(course: Course[T]) -> T:
    """Run a course in this process, and return what comes of it."""
    go_on: Callable[[], Ask] = partial(next, course)
    while True:
        try:
            ask = go_on()
        except StopIteration as end:
            value: T = end.value
            return value
        started = time.perf_counter()
        go_on = _told(course, partial(ask.evaluator.score_many, ask.factors, on_progress=ask.report))
        ask.seconds = time.perf_counter() - started


def finish_all(courses: Sequence[Course[T]], holders: Answerers) -> Iterator[T]:
    """Run courses beside one another on those who hold the model; what comes of each, in the order of the courses.

    A course goes on as soon as its own results are there, whatever the others do.
    """
    waiting: dict[Job, tuple[int, Ask]] = {}
    ended: dict[int, T] = {}

    def step(number: int, go_on: Callable[[], Ask]) -> None:
        try:
            ask = go_on()
        except StopIteration as end:
            ended[number] = end.value
        else:
            waiting[ask.evaluator.begin(ask.factors, ask.report)] = number, ask

    for number, course in enumerate(courses):
        step(number, partial(next, course))
    try:
        for number in range(len(courses)):
            while number not in ended:
                job = holders.wait(waiting)
                place, ask = waiting.pop(job)
                ask.seconds = job.seconds
                step(place, _told(courses[place], partial(ask.evaluator.finished, job)))
            yield ended.pop(number)
    finally:
        for job in waiting:
            job.cancel()


def _told(course: Course[T], find: Callable[[], list[TaskResult]]) -> Callable[[], Ask]:
    """How the course goes on: with the results, or with the error that finding them raised."""
    try:
        results = find()
    except Exception as error:
        return partial(course.throw, error)
    return partial(course.send, results)


class GroupScorer:
    """Scores runners on records of each task, then on the short texts."""

    def __init__(self, evaluators: Sequence[Evaluator], short: Evaluator | None, on_event: OnEvent) -> None:
        self.evaluators, self.short, self.on_event = evaluators, short, on_event
        self._listener_error: Exception | None = None
        self._reported = self._again = 0

    def score(
        self, runners: Sequence[Runner], stages: Sequence[Rows], behind: Callable[[Runner], float | None] | None = None
    ) -> Course[None]:
        """Score them on the records of each stage. behind: asked between stages who is out of the race."""
        for number, stage in enumerate(stages, 1):
            for task, (evaluator, own) in enumerate(zip(self.evaluators, stage, strict=True)):
                if not own:
                    continue  # of a task with few records all were seen in an earlier stage
                running = [runner for runner in runners if not runner.is_out]
                for runner, scores in (yield from self._scores(running, evaluator.part(own))):
                    runner.take(task, own, scores)
            for runner in runners:
                if behind is not None and number < len(stages) and not runner.is_out:
                    runner.behind = behind(runner)
        if self.short is not None:
            running = [runner for runner in runners if not runner.is_out]
            for runner, scores in (yield from self._scores(running, self.short)):
                runner.found.append(scores)

    def _scores(self, runners: Sequence[Runner], evaluator: Evaluator) -> Course[list[tuple[Runner, Scores]]]:
        """What each runner scores there; those that raised are left out."""
        results = (yield from self._results(runners, evaluator)) if runners else []
        return [
            (runner, Scores(result.scores, result.log_likelihoods, result.positions))
            for runner, result in zip(runners, results, strict=True)
            if result is not None
        ]

    def _results(self, runners: Sequence[Runner], evaluator: Evaluator) -> Course[list[TaskResult | None]]:
        """One result a runner; None where scoring it raised, which becomes its error.

        If scoring them together raises, each is scored alone, to see whose fault it is.
        """
        self._reported = 0
        ask = Ask(evaluator, [runner.factors for runner in runners], self._progress)
        results: list[TaskResult | None]
        try:
            results = list((yield ask))
        except Exception as error:
            if error is self._listener_error:
                raise  # the screen broke, not the candidate
            if len(runners) > 1:
                self._again = self._reported
                results = []
                for runner in runners:
                    results += yield from self._results([runner], evaluator)
                self._again = 0
                return results
            runners[0].error = getattr(error, "found_elsewhere", None) or traceback.format_exc()
            runners[0].raised = error
            results = [None]
        seconds = ask.seconds / len(runners)
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
