"""How large a search may be: what it costs, and the largest one that a budget pays for.

Everything is counted in candidate·prompt evaluations, by arithmetic on the method alone: nothing is scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from ropewalk.errors import RopewalkError
from ropewalk.race import Rows
from ropewalk.run import Examples, SearchPlan, planned_prompts
from ropewalk.search import make_method

FEWEST_RECORDS = 4  # of a task: a control that saw fewer would be chosen by luck


def all_rows(on: Examples) -> Rows:
    """All records of each task."""
    return tuple(tuple(range(len(evaluator.records))) for evaluator in on.tasks)


def cost(on: Examples) -> Callable[[Rows], int]:
    """Prompts of one candidate on some records of each task, and on the short texts if there are any."""
    widths = [len(evaluator.task.positions) for evaluator in on.tasks]
    short = 0 if on.short is None else len(on.short.examples)
    return lambda rows: sum(len(own) * width for own, width in zip(rows, widths, strict=True)) + short


def planned(plan: SearchPlan, on: Examples) -> int:
    """Candidate·prompt evaluations of the whole search, at most."""
    return planned_prompts(plan, all_rows(on), cost(on))


def within_budget(plan: SearchPlan, on: Examples, make: Callable[[int], SearchPlan] | None) -> SearchPlan:
    """The plan with the most generations that its budget pays for.

    make: the plan with that many generations; None leaves them as they are. Raises `RopewalkError`, with the smallest
    budget that works, if it does not pay for one generation.
    """
    if plan.budget is None:
        return plan
    smallest = _smallest(plan, on, make)
    if plan.budget < smallest:
        raise RopewalkError(
            f"a budget of {plan.budget} evaluations does not pay for vanilla and one generation on these records: "
            f"give at least {smallest}, or fewer records (--limit)"
        )
    if make is None:
        return plan
    budget = plan.budget

    def fits(generations: int) -> bool:
        return _whole(make(generations), on) <= budget

    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return make(low)


def control_plan(name: str, plan: SearchPlan, seed: int, on: Examples, budget: int) -> tuple[SearchPlan, Examples]:
    """A control's whole search, by the method `name`, on as many of the search records as the budget pays for.

    All of its candidates on fewer records tell more than some of them on all. Raises `RopewalkError`, with the smallest
    budget that works, if it does not pay for 4 records of each task.
    """
    method = make_method(name, plan.space, seed)
    seconds = plan.seconds and plan.seconds / 10  # where time ends the search, it ends its controls too
    control = replace(plan, method=method, finalists=1, racing=False, budget=None, seconds=seconds)

    def of(records: int) -> Examples:
        parts = [evaluator.part(range(min(records, len(evaluator.records)))) for evaluator in on.tasks]
        return Examples(tuple(parts), on.short)

    def size(records: int) -> int:
        rows = tuple(own[:records] for own in all_rows(on))
        return planned_prompts(control, rows, cost(on))

    most = max(len(evaluator.records) for evaluator in on.tasks)
    paid = [records for records in range(1, most + 1) if size(records) <= budget]
    if not paid or paid[-1] < min(FEWEST_RECORDS, most):
        raise RopewalkError(
            f"a budget of {budget} evaluations does not pay for the control {name!r}: give at least "
            f"{size(min(FEWEST_RECORDS, most))} (--control-budget), or 0 to do without the controls"
        )
    return replace(control, budget=budget), of(paid[-1])


def _whole(plan: SearchPlan, on: Examples) -> int:
    return planned(replace(plan, budget=None), on)


def _smallest(plan: SearchPlan, on: Examples, make: Callable[[int], SearchPlan] | None) -> int:
    """Vanilla and one generation; where generations can't be chosen, vanilla and the first candidates."""
    if make is not None:
        return _whole(make(1), on)
    rows = plan.method.sizes([len(own) for own in all_rows(on)])[0][1]
    return cost(on)(all_rows(on)) + cost(on)(rows)


def has_generations(plan: SearchPlan) -> bool:
    """Whether the plan's method has an option of that name."""
    return "generations" in {entry.name for entry in fields(plan.method.OPTIONS)}
