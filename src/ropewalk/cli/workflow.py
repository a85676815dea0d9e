"""What `search` and `demo` have in common: search, find the controls, test on held-out records, write and show."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk import files
from ropewalk.cli import console
from ropewalk.cli.interrupt import GracefulStop
from ropewalk.cli.invocation import command
from ropewalk.cli.live import SearchView
from ropewalk.cli.outcome import show, summarise, write
from ropewalk.cli.work import CONTROLS, Work
from ropewalk.locks import held
from ropewalk.report.runs import COMMAND
from ropewalk.verdict import LABELS

if TYPE_CHECKING:
    from ropewalk.events import Event, OnEvent
    from ropewalk.factors import ScalingFactors
    from ropewalk.results import TaskResult
    from ropewalk.run import SearchResult


@dataclass
class Outcome:
    """What came of a search and its test. tests, results: one a task, in their order.

    short: vanilla's and the factors' results on the test part of the constraint's short texts. searches: by the arm's
    name what each control's search found. seconds: since the command began to score.
    """

    work: Work
    found: SearchResult
    searches: Mapping[str, SearchResult]
    tests: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, TaskResult]] = field(default_factory=list)
    short: tuple[TaskResult, TaskResult] | None = None
    short_texts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def controls(self) -> dict[str, ScalingFactors]:
        """The arms of the test beside vanilla and the factors; none that is vanilla itself."""
        factors = self.found.factors
        uniform = {} if factors.is_identity else {"uniform": factors.matched_uniform()}
        best = {arm: result.factors for arm, result in self.searches.items() if not result.factors.is_identity}
        return uniform | best | dict(self.work.others)


def search_and_test(work: Work, out: Path) -> dict[str, Any]:
    """Profile the model, search, find the controls, test the winner against all of them.

    Leaves command.json at once, and in the end factors.json, result.json (the figures), scores.json (every example of
    every arm) and curves.svg in `out`, the controls' studies in `out/controls`, and returns the figures. Whatever keeps
    the run from being continued is an error before anything is scored. A first Ctrl-C in a search waits for the
    candidates that are being scored; all of a run that was stopped is continued by the same command.
    """
    with _held(work, out):
        view = SearchView(work.plan.objective, getattr(work.plan.method.options, "generations", None))
        for note in work.notes:
            console.line(note)
        with GracefulStop() as stop, view:
            try:
                outcome = _run(work, out, view, stop.watch(view.on_event))
            except KeyboardInterrupt:
                best = out / "factors.json"
                kept = f"the best so far is in {best}" if best.exists() else "nothing was found yet"
                raise KeyboardInterrupt(f"stopped; {kept}. The same command continues") from None
        summary = summarise(outcome)
        write(summary, outcome, out)
        show(summary, work, out)
        return summary


@contextmanager
def _held(work: Work, out: Path) -> Iterator[None]:
    """The run directory, for this command alone until it ends. Raises `StudyError` where it can't be continued."""
    from ropewalk.run import check_run

    check_run(work.plan, work.search, work.validation, out)
    for name, (plan, on) in work.controls.items():
        check_run(plan, on, None, _folder(out, name))
    with held(out, "run.lock"):  # a search locks its study only
        if (given := command()) is not None:  # for those who look at the run before it has a result
            files.write_json(out / COMMAND, {"command": given})
        yield


def _run(work: Work, out: Path, view: SearchView, on_event: OnEvent) -> Outcome:
    from ropewalk.events import Scored, Stage
    from ropewalk.run import search

    def scored(prompts: int) -> None:
        on_event(Scored(prompts))

    started = time.monotonic()
    vanilla = []
    for name, evaluator in zip(work.names, work.test.tasks, strict=True):
        on_event(Stage(_of("Profile", name, work), len(evaluator.examples)))
        vanilla.append(evaluator.score(None, on_progress=scored))
    found = search(work.plan, work.search, work.validation, out, on_event=on_event)
    searches = {
        name: search(
            plan, on, None, _folder(out, name), on_event=_renamed(on_event, "Search", LABELS[name].capitalize())
        )
        for name, (plan, on) in work.controls.items()
    }
    outcome = Outcome(work, found, searches)
    _test(outcome, vanilla, on_event)
    outcome.seconds = time.monotonic() - started
    return outcome


def _test(outcome: Outcome, vanilla: list[TaskResult], on_event: OnEvent) -> None:
    """Every arm on every task's held-out examples, and the constraint's short texts."""
    from ropewalk.events import Scored, Stage
    from ropewalk.run import final_test
    from ropewalk.short_texts import short_text_test

    work, factors = outcome.work, outcome.found.factors
    tasks = zip(work.names, work.test.tasks, work.plan.objective.parts, vanilla, work.short_forms, strict=True)
    for name, evaluator, part, base, short in tasks:
        summary, results = final_test(
            evaluator,
            factors,
            part.weights,
            controls=outcome.controls,
            vanilla=base,
            short=short,
            on_event=_renamed(on_event, "Test", _of("Test", name, work)),
        )
        outcome.tests.append(summary)
        outcome.results.append(results)
    outcome.short_texts = short_text_test(work.short_texts, factors, on_event)
    if work.test.short is not None:
        on_event(Stage("Constraint", 2 * len(work.test.short.examples)))
        first, second = (
            work.test.short.score(arm, on_progress=lambda prompts: on_event(Scored(prompts))) for arm in (None, factors)
        )
        outcome.short = first, second


def _folder(out: Path, arm: str) -> Path:
    return out / "controls" / CONTROLS[arm]


def _of(stage: str, task: str, work: Work) -> str:
    return stage if len(work.names) == 1 else f"{stage} {task}"


def _renamed(on_event: OnEvent, old: str, new: str) -> OnEvent:
    """The same handler, to which a stage has another name."""
    from ropewalk.events import Stage

    def renamed(event: Event) -> None:
        on_event(Stage(new, event.prompts) if isinstance(event, Stage) and event.name == old else event)

    return renamed
