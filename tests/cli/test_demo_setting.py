"""The demo's search is the one that docs/demo.md describes, whatever the defaults of `search` become."""

from __future__ import annotations

from typing import Any

from ropewalk.cli.demo import KNOBS, MODEL, SEARCH, TASK, larger_search
from ropewalk.cli.mix import MixedTask
from ropewalk.cli.work import Asked


def test_the_setting(loaded: tuple[Any, Any]) -> None:
    asked = Asked.of(MODEL, SEARCH, KNOBS, (MixedTask(TASK.task, TASK),), 0)
    plan = asked.plan(loaded[0])
    assert plan.method.candidates_in_all == 30
    assert (plan.racing, plan.finalists, plan.budget, plan.seconds) == (False, 0, None, None)
    settings = plan.method.settings()
    assert {name: settings[name] for name in KNOBS} == KNOBS
    assert (settings["method"], settings["initial_factor"], settings["mutation_probability"]) == ("bezier-ga", 1.0, 0.3)
    assert (settings["space"]["low"], settings["space"]["high"], settings["space"]["step"]) == (0.8, 1.2, 0.05)
    (part,) = plan.objective.parts
    assert (part.measure, part.kind) == ("likelihood", "utilisation")
    assert "validation" not in asked.made
    assert [len(asked.made[split][0].examples(split)) for split in ("search", "test")] == [14 * 3, 70 * 3]


def test_the_larger_searchs_factors_come_with_the_package() -> None:
    assert larger_search().found["evaluations"] > 1000
