"""Other methods beside a model and its factors: the same records, paired tests, and what each costs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ropewalk import stats
from ropewalk.comparators import make_comparator
from ropewalk.comparators.base import Comparator
from ropewalk.comparison import compare
from ropewalk.errors import DataError, UnsupportedModelError
from ropewalk.evaluate import Evaluator
from ropewalk.events import OnEvent, Scored, Stage
from ropewalk.factors import ScalingFactors
from ropewalk.layers import text_config
from ropewalk.method_cost import CostArm, measure_cost
from ropewalk.patch import patched, unpatched
from ropewalk.results import TaskResult

COST_PROMPTS = 3  # that every arm is timed on
TESTED = ("average", "average_log_likelihood")  # Holm's correction over the arms


def parse_methods(text: str) -> dict[str, Comparator]:
    """Comparators by their texts, of "ms-poe,uniform:1.1". Raises `RopewalkError` for one unknown or given twice."""
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise DataError(f"--against {text!r}: expected methods with commas between, such as ms-poe,uniform:1.1")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"--against {text!r}: {twice} is given twice; give it once")
    return {name: make_comparator(name) for name in names}


def check_methods(model: Any, methods: Mapping[str, Comparator]) -> None:
    """Raise `UnsupportedModelError` for the first method that can't serve the model, before anything is scored."""
    for name, method in methods.items():
        reason = method.refusal(model)
        if reason is not None:
            kind = text_config(model).model_type
            raise UnsupportedModelError(f"{name} can't serve model type {kind!r}: {reason}; leave it out of --against")


def runs_by_loop(methods: Mapping[str, Comparator]) -> bool:
    """Whether the layer loop can run all of them; if it can't run one, no arm goes by it, so that all go one way."""
    return all(method.engine for method in methods.values())


def on_common_records(evaluators: Mapping[str, Evaluator]) -> dict[str, Evaluator]:
    """The evaluators on the records that all of them have: a method with a longer prompt may have to skip more."""
    skipped = tuple(dict.fromkeys(record for one in evaluators.values() for record in one.skipped))
    if not skipped:
        return dict(evaluators)
    kept = {}
    for name, evaluator in evaluators.items():
        rows = [row for row, record in enumerate(evaluator.records) if record not in skipped]
        if len(rows) < 2:
            raise DataError(f"{len(rows)} records fit the model's limit under every method; give shorter prompts")
        kept[name] = copy.copy(evaluator.part(rows))
        kept[name].skipped = skipped
    return kept


def add_methods(
    summary: dict[str, Any],
    results: dict[str, TaskResult],
    methods: Mapping[str, Comparator],
    evaluators: Mapping[str, Evaluator],
    factors: ScalingFactors | None = None,
    *,
    any_model: bool = False,
    on_event: OnEvent = lambda event: None,
) -> None:
    """Score the methods on the test's records and measure all arms' cost; `summary` and `results` get what is found.

    summary, results: of `final_test`, or of vanilla alone. evaluators: each method's, by its name, and "vanilla"'s.
    Into the summary go a block of figures by the method's text, its paired comparison with vanilla under `gain`, that
    of the factors with it under `factors_over`, `p_holm` (over all arms) and `against` (settings, cost).
    """
    vanilla = evaluators["vanilla"]
    model, before = vanilla.model, len(vanilla.examples)
    on_event(Stage("Against", len(methods) * before))
    for name, method in methods.items():
        with method.on(model):
            results[name] = evaluators[name].score(
                method.factors(model), any_model=True, on_progress=lambda count: on_event(Scored(count))
            )
        summary[name] = results[name].summary()
        summary["gain"][name] = compare(results["vanilla"], results[name])
        if factors is not None:
            summary["factors_over"][name] = compare(results[name], results["factors"])
    if not runs_by_loop(methods):
        others = ", ".join(name for name, method in methods.items() if not method.engine)
        summary["engine"] = f"model.forward, every arm alike, for the layer loop can't run {others}"
    summary["evaluations"] += len(methods) * before
    summary["p_holm"] = {key: _holm(summary["gain"], key) for key in TESTED}
    summary["against"] = {
        "methods": {name: method.settings() | {"passes": method.passes} for name, method in methods.items()},
        "cost": _cost(methods, evaluators, factors, any_model, on_event),
    }


def _holm(gains: Mapping[str, Any], key: str) -> dict[str, float | None]:
    """p-values of the arms, corrected for their number; None where one is not finite."""
    raw = {arm: gain[key]["p"] for arm, gain in gains.items()}
    known = [arm for arm, p in raw.items() if p is not None]
    corrected = dict(zip(known, map(float, stats.holm([raw[arm] for arm in known])), strict=True))
    return {arm: corrected.get(arm) for arm in raw}


def _cost(
    methods: Mapping[str, Comparator],
    evaluators: Mapping[str, Evaluator],
    factors: ScalingFactors | None,
    any_model: bool,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Of every arm, on the longest prompt of some records spread over all."""
    vanilla = evaluators["vanilla"]
    model, width = vanilla.model, len(vanilla.task.positions)
    last = len(vanilla.records) - 1
    rows = sorted({round(last * place / (COST_PROMPTS - 1)) for place in range(COST_PROMPTS)})

    def prompts(evaluator: Evaluator) -> Sequence[Sequence[int]]:
        return [evaluator.prompt_ids(row * width + width - 1) for row in rows]

    arms = {"vanilla": CostArm(partial(unpatched, model), prompts(vanilla))}
    if factors is not None:
        arms["factors"] = CostArm(partial(patched, model, factors, any_model=any_model), prompts(vanilla))
    arms |= {name: CostArm(partial(method.on, model), prompts(evaluators[name])) for name, method in methods.items()}
    on_event(Stage("Cost", len(arms) * (1 + len(rows))))
    return measure_cost(model, arms, on_progress=lambda count: on_event(Scored(count)))


EvaluatorOf = Callable[[Comparator | None], Evaluator]


def evaluators_of(methods: Mapping[str, Comparator], evaluator_of: EvaluatorOf) -> dict[str, Evaluator]:
    """Vanilla's evaluator and each method's, all on the same records. evaluator_of: None asks as the task does."""
    made = {"vanilla": evaluator_of(None)} | {name: evaluator_of(method) for name, method in methods.items()}
    return on_common_records(made)
