"""`ropewalk doctor`: is this model supported, layer by layer, and what will a search cost?"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from ropewalk.cli.options import ModelOptions, Output, TaskChoice


def doctor(*, model: ModelOptions, task: TaskChoice | None = None, output: Output | None = None) -> dict[str, Any]:
    """Check every layer of a model, and say what a search would cost in time and memory here."""
    from ropewalk.cli import console
    from ropewalk.cli.estimate import seconds, speed
    from ropewalk.cli.search_options import SearchOptions
    from ropewalk.identity import base_scheme, model_identity
    from ropewalk.objectives import Objective
    from ropewalk.patch import layer_reports
    from ropewalk.provenance import provenance
    from ropewalk.run import planned_prompts

    choice = task or TaskChoice()
    made = choice.make(1)
    loaded, tokenizer = model.load()
    with console.working("Checking every layer"):
        reports = layer_reports(loaded)
    identity, base = model_identity(loaded), base_scheme(loaded)
    rotary = sum(report.kind == "rotary" for report in reports)
    console.say(
        f"{identity['name']} ({identity['model_type']}): supported, {rotary} of {len(reports)} layers are rotary"
    )
    for (kind, reason), group in groupby(reports, key=lambda report: (report.kind, report.reason)):
        layers = [report.index for report in group]
        span = f"{layers[0]}" if len(layers) == 1 else f"{layers[0]}–{layers[-1]}"
        console.say(f"  layers {span}: {kind}" + (f" ({reason})" if reason else ""))
    console.say(f"  rope parameters: {base}")
    evaluator = model.evaluator(
        loaded, tokenizer, made, "search" if choice.data is None else "all", search_by="likelihood"
    )
    with console.working("Timing one record"):
        plan = SearchOptions().plan(loaded, choice.seed, Objective(), {})
        measured = speed(evaluator, [plan.space.factors(plan.space.identity())] * plan.at_once)
    console.say(f"  scored by: {evaluator.engine}")
    rows = (tuple(range(SearchOptions().search_records())),)
    prompts = planned_prompts(plan, rows, lambda seen: len(seen[0]) * len(made.positions))
    console.say(
        f"A search with the default settings scores {prompts} prompts of {measured.tokens_per_prompt:.0f} tokens: "
        f"about {seconds(prompts * measured.seconds_per_prompt)} on {measured.device}, "
        f"{measured.memory_gib:.1f} GiB of {measured.memory_kind}"
    )
    return {
        "supported": True,
        "model": identity,
        "base": base,
        "layers": [{"index": r.index, "kind": r.kind, "reason": r.reason, "class": r.layer_class} for r in reports],
        "engine": evaluator.engine,
        "search": {
            "prompts": prompts,
            "seconds": prompts * measured.seconds_per_prompt,
            "tokens_per_prompt": measured.tokens_per_prompt,
            "memory_gib": measured.memory_gib,
        },
        "provenance": provenance(loaded),
    }
