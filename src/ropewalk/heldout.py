"""The test on held-out records: vanilla, controls and factors on the same examples, and on the task's short form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ropewalk.comparison import compare
from ropewalk.errors import DataError
from ropewalk.evaluate import Evaluator
from ropewalk.events import OnEvent, Scored, Stage
from ropewalk.factors import ScalingFactors
from ropewalk.findings import findings
from ropewalk.objectives import DEFAULT_WEIGHTS, position_weights
from ropewalk.patch import check_factors
from ropewalk.provenance import provenance
from ropewalk.results import TaskResult

_SUMMARY_NAMES = {"task", "positions", "vanilla", "factors", "gain", "factors_over", "short", "warnings", "engine"}
_SUMMARY_NAMES |= {"evaluations", "provenance", "tasks", "search", "sentence", "controls", "constraints"}


def final_test(
    evaluator: Evaluator,
    factors: ScalingFactors,
    weights: Sequence[float] = DEFAULT_WEIGHTS,
    *,
    any_model: bool = False,
    controls: Mapping[str, ScalingFactors] | None = None,
    vanilla: TaskResult | None = None,
    short: Evaluator | None = None,
    on_event: OnEvent = lambda event: None,
) -> tuple[dict[str, Any], dict[str, TaskResult]]:
    """Vanilla, the controls and `factors` on the evaluator's (held-out) examples.

    weights: of the positions in U, see `position_weights`. vanilla: its result on the same examples, where a profile
    has it already. short: the same model on the short form of the task, to see what the factors cost there. Returns the
    summary (`positions`, one block of figures an arm, paired comparisons with vanilla and of the factors with each
    control, `warnings`) and the full results by arm. evaluations: prompts scored.
    """
    position_weights(len(evaluator.task.positions), weights)
    if len({example.record for example in evaluator.examples}) < 2:
        raise DataError("a test on 1 record has no interval: give at least 2 (--limit or --test-limit)")
    taken = set(controls or {}) & _SUMMARY_NAMES
    if taken:
        raise ValueError(f"a control can't be named {', '.join(sorted(taken))}: the summary has other things there")
    arms: dict[str, ScalingFactors | None] = {} if vanilla is not None else {"vanilla": None}
    arms |= {**(controls or {}), "factors": factors}
    for arm in arms.values():
        if arm is not None:  # before hours are spent on vanilla
            check_factors(evaluator.model, arm, any_model=any_model)
    on_event(Stage("Test", len(arms) * len(evaluator.examples)))
    results = {} if vanilla is None else {"vanilla": vanilla}
    results |= _score_arms(evaluator, arms, any_model, on_event)
    others = [name for name in results if name != "vanilla"]
    against_vanilla = {name: compare(results["vanilla"], results[name], weights) for name in others}
    against_controls = {
        name: compare(results[name], results["factors"], weights) for name in others if name != "factors"
    }
    summary: dict[str, Any] = {
        "task": evaluator.settings,
        "engine": evaluator.engine,
        "positions": list(evaluator.task.positions),
        **{name: result.summary(weights) for name, result in results.items()},
        "gain": against_vanilla,
        "factors_over": against_controls,
        "short": None if short is None else before_and_after(short, factors, any_model, on_event),
        "evaluations": len(results) * len(evaluator.examples) + (0 if short is None else 2 * len(short.examples)),
        "provenance": provenance(evaluator.model),
    }
    summary["warnings"] = findings(summary)
    return summary, results


def _score_arms(
    evaluator: Evaluator, arms: Mapping[str, ScalingFactors | None], any_model: bool, on_event: OnEvent
) -> dict[str, TaskResult]:
    return {
        name: evaluator.score(arm, any_model=any_model, on_progress=lambda count: on_event(Scored(count)))
        for name, arm in arms.items()
    }


def before_and_after(
    short: Evaluator, factors: ScalingFactors, any_model: bool, on_event: OnEvent, stage: str = "Short"
) -> dict[str, Any]:
    """Vanilla and the factors on a task in short contexts, as JSON. It has few positions: U's weights are its own."""
    on_event(Stage(stage, 2 * len(short.examples)))
    results = _score_arms(short, {"vanilla": None, "factors": factors}, any_model, on_event)
    return {
        "task": short.settings,
        "positions": list(short.task.positions),
        **{name: result.summary() for name, result in results.items()},
        "gain": compare(results["vanilla"], results["factors"]),
    }
