"""What a search costs, and the largest one that a budget pays for: by arithmetic, checked against real searches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import RopewalkError
from ropewalk.run import Examples, SearchPlan, search
from ropewalk.search import make_method
from ropewalk.search_plan import control_plan, has_generations, planned, within_budget
from small_search import SPACE, evaluator, plan


def default(generations: int, budget: int | None = None) -> SearchPlan:
    method = make_method("default", SPACE, 0, population=6, generations=generations)
    return replace(plan(), method=method, budget=budget)


def genetic(generations: int, budget: int | None = None) -> SearchPlan:
    return plan(generations=generations, budget=budget)


@pytest.fixture
def on(loaded: tuple[Any, Any]) -> Examples:
    return Examples((evaluator(*loaded, records=6),))


@pytest.mark.parametrize("make", [default, genetic])
@pytest.mark.parametrize("budget", [200, 333, 1000])
def test_the_most_generations_that_the_budget_pays_for(make: Any, budget: int, on: Examples) -> None:
    chosen = within_budget(make(3, budget), on, lambda generations: make(generations, budget))
    generations = chosen.method.options.generations
    assert planned(make(generations), on) <= budget < planned(make(generations + 1), on)
    assert chosen.budget == budget


@pytest.mark.parametrize("make", [default, genetic])
def test_the_smallest_budget_is_named_and_works(make: Any, on: Examples, tmp_path: Path) -> None:
    with pytest.raises(RopewalkError, match=r"a budget of 20 evaluations does not pay.*give at least (\d+)") as error:
        within_budget(make(3, 20), on, lambda generations: make(generations, 20))
    smallest = int(str(error.value).partition("give at least ")[2].partition(",")[0])
    chosen = within_budget(make(3, smallest), on, lambda generations: make(generations, smallest))
    assert chosen.method.options.generations == 1
    assert smallest // 2 < search(chosen, on, None, tmp_path).evaluations <= smallest  # a first mean of 1 is free
    with pytest.raises(RopewalkError, match=f"give at least {smallest}"):
        within_budget(make(3, smallest - 1), on, lambda generations: make(generations, smallest - 1))


def test_generations_that_were_given_stay(on: Examples) -> None:
    given = genetic(3, 100)
    assert within_budget(given, on, None) is given
    with pytest.raises(RopewalkError, match="give at least 24"):  # vanilla and one candidate, 12 prompts each
        within_budget(genetic(3, 23), on, None)


@pytest.mark.parametrize("name", ["uniform", "line"])
def test_a_control_runs_whole_on_as_many_records_as_are_paid(name: str, on: Examples, tmp_path: Path) -> None:
    control, examples = control_plan(name, plan(racing=True), 0, on, 10_000)
    assert len(examples.tasks[0].records) == 6
    assert (control.racing, control.finalists, control.budget) == (False, 1, 10_000)
    budget = planned(control, examples) - 1
    control, examples = control_plan(name, plan(), 0, on, budget)
    assert len(examples.tasks[0].records) == 5
    assert examples.tasks[0].records == on.tasks[0].records[:5]
    assert search(control, examples, None, tmp_path).evaluations <= budget


def test_a_control_that_is_not_paid_says_the_least(on: Examples) -> None:
    with pytest.raises(RopewalkError, match=r"does not pay for the control 'line': give at least (\d+)") as error:
        control_plan("line", plan(), 0, on, 50)
    least = int(str(error.value).partition("give at least ")[2].partition(" ")[0])
    assert len(control_plan("line", plan(), 0, on, least)[1].tasks[0].records) == 4


def test_a_control_ends_with_a_search_that_time_ends(on: Examples) -> None:
    assert control_plan("uniform", plan(seconds=600.0), 0, on, 10_000)[0].seconds == 60.0
    assert control_plan("uniform", plan(), 0, on, 10_000)[0].seconds is None


def test_which_methods_have_generations() -> None:
    assert has_generations(plan())
