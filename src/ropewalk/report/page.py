"""The page: one HTML file with its charts, their program and the runs' JSON in it, which asks nobody for anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ropewalk.comparison import metric_words
from ropewalk.report.arms import accuracy_panel, factors_panel, likelihood_panel, ordered
from ropewalk.report.commands import commands
from ropewalk.report.compare import comparison_panels
from ropewalk.report.convergence import convergence_panels, finalists
from ropewalk.report.examples import changes
from ropewalk.report.headlines import HEADLINES, UNFINISHED
from ropewalk.report.heat import heat_panel
from ropewalk.report.history import History
from ropewalk.report.numbers import Numbers
from ropewalk.report.panel import Panel
from ropewalk.report.rendering import flat, render
from ropewalk.report.runs import Run
from ropewalk.verdict import LABELS, constraint_sentence, judge


@dataclass(frozen=True)
class Report:
    """All runs of a page. Make the page with `html`; `document` is the JSON in it."""

    runs: Sequence[Run]

    @cached_property
    def document(self) -> dict[str, Any]:
        """What every number of the tables and headlines is looked up in: each run's result.json and factors.json."""
        return {
            "schema": "ropewalk.report/1",
            "runs": [
                {
                    "name": run.name,
                    "result": run.result,
                    "factors": None if run.factors is None else run.factors.to_dict(),
                    "search": None if run.history is None else _search_counts(run.history),
                }
                for run in self.runs
            ],
        }

    @cached_property
    def numbers(self) -> Numbers:
        """Prints what stands in `document`."""
        return Numbers(self.document)

    @cached_property
    def views(self) -> list[dict[str, Any]]:
        """What the template shows of each run."""
        return [_view(run, number, self.numbers) for number, run in enumerate(self.runs)]

    @cached_property
    def comparison(self) -> list[Panel]:
        """Charts that hold several runs; none for a single one."""
        return comparison_panels(self.runs, self.numbers) if len(self.runs) > 1 else []

    @property
    def panels(self) -> list[Panel]:
        """All charts of the page, in its order."""
        return [*self.comparison, *(panel for view in self.views for panel in view["panels"])]

    def title(self, panel: Panel) -> str:
        """What a figure in a file of its own is called: the run that it is of."""
        owner = next((view["run"] for view in self.views if panel in view["panels"]), None)
        if owner is None:
            return f"{len(self.runs)} runs"
        return f"{owner.name}: {owner.model.get('name', 'model')}, {', '.join(owner.tasks)}"

    def html(self) -> str:
        """The page."""
        return render(
            "page.html",
            self.panels,
            views=self.views,
            comparison=self.comparison,
            several=len(self.runs) > 1,
            n=self.numbers,
            labels=LABELS,
            document=self.document,
            metric_words=metric_words,
            constraint_sentence=constraint_sentence,
        )


def _view(run: Run, number: int, numbers: Numbers) -> dict[str, Any]:
    tasks = [_task_view(run, number, task, numbers) for task in run.tasks] if run.result else []
    history = run.history
    heats = [] if history is None else [heat_panel(history, number, task) for task in range(len(history.names))]
    search = [*convergence_panels(history, number), *filter(None, heats)] if history else []
    factors = factors_panel(run, number, numbers)
    identity = run.factors is not None and run.factors.is_identity
    verdict = judge(run.result, identity) if run.result else None
    return {
        "run": run,
        "number": number,
        "at": ("runs", number, "result"),
        "identity": identity,
        "verdict": verdict,
        "headline": HEADLINES[verdict] if verdict else UNFINISHED,
        "tasks": tasks,
        "factors": factors,
        "search": search,
        "panels": [*(panel for task in tasks for panel in task["panels"]), *([factors] if factors else []), *search],
        "finalists": [] if history is None else finalists(history),
        "commands": commands(run),
        "settings": flat(_settings(run)),
        "provenance": flat(_provenance(run)),
    }


def _task_view(run: Run, number: int, task: str, numbers: Numbers) -> dict[str, Any]:
    at = ("runs", number, "result", "tasks", task)
    panels = [accuracy_panel(run, number, task, numbers), likelihood_panel(run, number, task, numbers)]
    return {
        "name": task,
        "at": at,
        "block": numbers.value(at),
        "arms": ordered(run.arms(task)),
        "panels": [panel for panel in panels if panel is not None],
        "changes": changes(run, task),
    }


def _search_counts(history: History) -> dict[str, Any]:
    """Of the study, for what result.json does not say: while a run is unfinished."""
    records = history.search
    return {
        "candidates": len(history.candidates),
        "generations": 1 + max((record.generation for record in history.candidates), default=-1),
        "failed": sum(record.failed for record in records),
        "evaluations": sum(record.prompts for record in records),
        "seconds": round(sum(record.seconds for record in records), 1),
        "errors": sorted({_reason(record.error) for record in records if record.error}),
        "validation": [{"fitness": record.fitness} for record in finalists(history)],
    }


def _reason(error: str) -> str:
    return error.strip().splitlines()[-1]


def _settings(run: Run) -> Mapping[str, Any]:
    """How the search was told to be."""
    if run.result is not None:
        names = ("method", "objective", "racing", "finalists", "budget", "seconds")
        return {name: run.result["search"].get(name) for name in names}
    skipped = ("schema", "model", "base", "tasks", "validation", "short")
    settings = run.history.settings if run.history else {}
    return {name: value for name, value in settings.items() if name not in skipped}


def _provenance(run: Run) -> Mapping[str, Any]:
    """Model, versions, hardware, data; all that is known of an unfinished run are the study's settings."""
    if run.result is not None:
        return {name: value for name, value in run.result["provenance"].items() if name != "command"}
    settings = run.history.settings if run.history else {}
    return {name: settings[name] for name in ("model", "base", "tasks", "validation") if name in settings}
