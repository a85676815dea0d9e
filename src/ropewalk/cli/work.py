"""What a search needs before it begins: the plan, the examples of every split, the controls. Nothing is scored here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ropewalk.cli.mix import MixedTask
from ropewalk.cli.options import ModelOptions
from ropewalk.cli.search_options import SearchOptions
from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.objectives import Objective, position_weights
from ropewalk.splits import Split

if TYPE_CHECKING:
    from ropewalk.evaluate import Evaluator
    from ropewalk.run import Examples, SearchPlan
    from ropewalk.tasks.base import Task

CONTROLS = {"uniform_best": "uniform", "line_best": "line"}  # arm of the test: the search method that finds it
CONTROL_SHARE = 10  # the controls' default budget is this part of the search's


@dataclass(frozen=True)
class Work:
    """A search ready to run, and its test.

    names: of the tasks, in their order. test: each task's held-out examples. short_forms: each task's short form, None
    where it has no such. short_texts: by name what tells whether short texts stay intact. controls: by the arm's name
    the search that finds it and its examples. others: further factors to test. notes: what was left out, for the user
    to read.
    """

    plan: SearchPlan
    names: tuple[str, ...]
    search: Examples
    validation: Examples | None
    test: Examples
    short_forms: tuple[Evaluator | None, ...]
    short_texts: Mapping[str, Evaluator]
    seed: int
    controls: Mapping[str, tuple[SearchPlan, Examples]] = field(default_factory=dict)
    others: Mapping[str, ScalingFactors] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What the user asked for, checked as far as that goes without a model."""

    model: ModelOptions
    options: SearchOptions
    knobs: Mapping[str, Any]
    tasks: tuple[MixedTask, ...]
    objective: Objective
    made: Mapping[Split, tuple[Task, ...]]
    short: Task | None
    seed: int

    @classmethod
    def of(
        cls,
        model: ModelOptions,
        options: SearchOptions,
        knobs: Mapping[str, Any],
        tasks: Sequence[MixedTask],
        seed: int,
    ) -> Asked:
        """Make the tasks, read their files and check the options. Raises `RopewalkError`."""
        options.check()
        objective = options.target(tasks)
        records = options.search_records()
        limits = {
            "search": [task.choice.limit or records for task in tasks],
            "validation": [options.validation_limit] * len(tasks) if options.finalists else [],
            "test": [options.test_limit] * len(tasks),
        }
        made: dict[Any, tuple[Task, ...]] = {
            split: tuple(task.choice.make(limit) for task, limit in zip(tasks, limits[split], strict=False))
            for split in limits
            if limits[split]
        }
        for part, task in zip(objective.parts, made["search"], strict=True):
            position_weights(len(task.positions), part.weights)
        return cls(model, options, knobs, tuple(tasks), objective, made, options.short_task(), seed)

    def work(self, model: Any, tokenizer: Any) -> Work:
        """The search for a loaded model."""
        from ropewalk.search_plan import has_generations, within_budget
        from ropewalk.short_texts import short_text_checks

        plan = self.plan(model)
        on = self._examples(model, tokenizer, "search", _planned_passes(plan, self.made["search"]))

        def make(generations: int) -> SearchPlan:
            return self.plan(model, generations=generations)

        free = has_generations(plan) and "generations" not in self.knobs
        plan = within_budget(plan, on, make if free else None)
        finals = plan.finalists + 1
        controls, notes = self._controls(plan, on)
        test = self._examples(model, tokenizer, "test", 3 + len(controls))
        tested = max(len(evaluator.records) for evaluator in test.tasks)
        return Work(
            plan=plan,
            names=tuple(task.name for task in self.tasks),
            search=on,
            validation=self._examples(model, tokenizer, "validation", finals) if "validation" in self.made else None,
            test=test,
            short_forms=tuple(self.model.short_evaluator(model, tokenizer, made, "test") for made in self.made["test"]),
            short_texts=short_text_checks(model, tokenizer, tested, self.options.short_text),
            seed=self.seed,
            controls=controls,
            notes=notes,
        )

    def plan(self, model: Any, **more: Any) -> SearchPlan:
        """The search as the options say, with further options of the method."""
        return self.options.plan(model, self.seed, self.objective, {**self.knobs, **more})

    def one_record(self, model: Any, tokenizer: Any, split: Split) -> list[Evaluator]:
        """For each task one record of a split, to measure how long a prompt takes."""
        kept: Split = "test" if split == "test" else "search"
        return [
            self._evaluator(model, tokenizer, task.choice.make(1), kept, number, 1)
            for number, task in enumerate(self.tasks)
        ]

    def _examples(self, model: Any, tokenizer: Any, split: Split, candidates: int) -> Examples:
        from ropewalk.run import Examples

        tasks = tuple(
            self._evaluator(model, tokenizer, made, split, number, candidates)
            for number, made in enumerate(self.made[split])
        )
        if self.short is None:
            return Examples(tasks)
        short = self.model.evaluator(model, tokenizer, self.short, split, search_by="likelihood", candidates=candidates)
        return Examples(tasks, short)

    def _evaluator(
        self, model: Any, tokenizer: Any, made: Task, split: Split, number: int, candidates: int
    ) -> Evaluator:
        by = None if split == "test" else self.objective.parts[number].measure
        return self.model.evaluator(model, tokenizer, made, split, search_by=by, candidates=candidates)

    def _controls(
        self, plan: SearchPlan, on: Examples
    ) -> tuple[dict[str, tuple[SearchPlan, Examples]], tuple[str, ...]]:
        """The controls that the budget pays for, and a line for those that the default budget does not."""
        from ropewalk.search_plan import control_plan, planned

        asked = self.options.control_budget
        budget = planned(plan, on) // CONTROL_SHARE if asked is None else asked
        controls: dict[str, tuple[SearchPlan, Examples]] = {}
        missing: dict[str, RopewalkError] = {}
        for arm, method in CONTROLS.items() if budget else ():
            try:
                controls[arm] = control_plan(method, plan, self.seed, on, budget)
            except RopewalkError as error:
                missing[arm] = error
        if asked is not None and missing:
            raise RopewalkError("; ".join(map(str, missing.values())))
        return controls, tuple(f"Without the control {arm.replace('_', ' ')}: {why}" for arm, why in missing.items())


def _planned_passes(plan: SearchPlan, made: Sequence[Task]) -> int:
    """About how many candidates on all records the search is worth: whether compiling the model pays."""
    records = [len({example.record for example in task.examples("search")}) for task in made]
    sizes = plan.method.sizes(records)
    scored = sum(count * sum(map(len, rows)) for count, rows in sizes)
    passes = max(1, scored // max(1, sum(records)))
    if plan.budget is None:
        return passes
    prompts = sum(count * len(task.positions) for count, task in zip(records, made, strict=True))
    return max(1, plan.budget // prompts)
