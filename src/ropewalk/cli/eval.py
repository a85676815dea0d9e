"""`ropewalk eval`: vanilla against factors and other methods, position by position, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ropewalk import files
from ropewalk.builtin_text import BUILTIN
from ropewalk.cli.given_factors import given_factors
from ropewalk.cli.options import MODEL, RUN, ModelOptions, Output, ShortText, SplitName, TaskChoice, described
from ropewalk.errors import DataError, RopewalkError
from ropewalk.records import read_text

if TYPE_CHECKING:
    from ropewalk.comparators.base import Comparator
    from ropewalk.evaluate import Evaluator
    from ropewalk.events import OnEvent
    from ropewalk.factors import ScalingFactors
    from ropewalk.results import TaskResult


def evaluate(
    *,
    model: ModelOptions,
    task: TaskChoice | None = None,
    factors: Annotated[
        Path | None,
        described(
            "factors.json, or a name of the zoo. Default: those the checkpoint carries.", group=MODEL, metavar="FILE"
        ),
    ] = None,
    against: Annotated[
        str | None,
        described("Other methods beside them, as ms-poe,uniform:1.1; needs no factors.", group=RUN, metavar="LIST"),
    ] = None,
    split: SplitName = "test",
    output: Output | None = None,
    short_text: ShortText = BUILTIN,
    scores: Annotated[
        Path | None, described("Write every example's scores as JSON to this file.", group=RUN, metavar="FILE")
    ] = None,
) -> dict[str, Any]:
    """Compare a model with and without scaling factors on the same records, and with other methods."""
    from ropewalk.against import add_methods, check_methods, evaluators_of, parse_methods, runs_by_loop
    from ropewalk.cli import console
    from ropewalk.cli.eval_tables import show
    from ropewalk.cli.invocation import command
    from ropewalk.findings import short_text_regressions
    from ropewalk.identity import base_scheme, model_identity
    from ropewalk.patch import factors_of
    from ropewalk.short_texts import short_text_checks, short_text_test

    given = None if factors is None else given_factors(factors)
    methods = {} if against is None else parse_methods(against)
    made = (task or TaskChoice()).make()
    read_text(short_text)  # before a model is loaded
    loaded, tokenizer = model.load()
    chosen = given or factors_of(loaded)
    if chosen is None and not methods:
        raise RopewalkError("no factors: give --factors FILE, for this checkpoint carries none, or --against METHODS")
    check_methods(loaded, methods)
    make = partial(model.evaluator, loaded, tokenizer, made, split, own_loop=runs_by_loop(methods))
    evaluators = evaluators_of(methods, lambda method: make() if method is None else make(asked=method.example))
    short = None if chosen is None else model.short_evaluator(loaded, tokenizer, made, split)
    records = len(evaluators["vanilla"].records)
    texts = {} if chosen is None else short_text_checks(loaded, tokenizer, records, short_text, split)
    with console.StageProgress() as progress:
        on_event = console.follow(progress)
        summary, results = _tested(evaluators["vanilla"], chosen, short, model.any_model, on_event)
        if chosen is not None:
            summary["short_texts"] = short_text_test(texts, chosen, on_event, any_model=model.any_model)
            summary["warnings"] += short_text_regressions(summary["short_texts"])
        if methods:
            add_methods(summary, results, methods, evaluators, chosen, any_model=model.any_model, on_event=on_event)
    summary |= {"model": model_identity(loaded), "rope": model.rope, "base": base_scheme(loaded), "split": split}
    summary |= {"factor_values": None if chosen is None else list(chosen), "command": command()}
    show(summary, _labels(chosen, methods))
    if scores:
        files.write_json(scores, {name: result.to_dict() for name, result in results.items()})
    return summary


def _tested(
    evaluator: Evaluator, factors: ScalingFactors | None, short: Evaluator | None, any_model: bool, on_event: OnEvent
) -> tuple[dict[str, Any], dict[str, TaskResult]]:
    """Vanilla and the factors, or vanilla alone, on the test's records."""
    from ropewalk.events import Scored, Stage
    from ropewalk.findings import findings
    from ropewalk.provenance import provenance
    from ropewalk.run import final_test

    if factors is not None:
        return final_test(evaluator, factors, any_model=any_model, short=short, on_event=on_event)
    if len(evaluator.records) < 2:
        raise DataError("a test on 1 record has no interval: give at least 2 (--limit)")
    on_event(Stage("Vanilla", len(evaluator.examples)))
    vanilla = evaluator.score(None, on_progress=lambda count: on_event(Scored(count)))
    summary: dict[str, Any] = {
        "task": evaluator.settings,
        "engine": evaluator.engine,
        "positions": list(evaluator.task.positions),
        "vanilla": vanilla.summary(),
        "gain": {},
        "factors_over": {},
        "short": None,
        "evaluations": len(evaluator.examples),
        "provenance": provenance(evaluator.model),
    }
    summary["warnings"] = findings({"vanilla": summary["vanilla"]})
    return summary, {"vanilla": vanilla}


def _labels(factors: ScalingFactors | None, methods: Mapping[str, Comparator]) -> dict[str, str]:
    """Arms and how the tables call them."""
    own = ["vanilla"] if factors is None else ["vanilla", "factors"]
    return {name: name for name in (*own, *methods)}
