"""`ropewalk eval`: vanilla against factors, position by position, with intervals and paired tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from ropewalk import files
from ropewalk.cli.options import MODEL, RUN, ModelOptions, Output, SplitName, TaskChoice, described
from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors


def evaluate(
    *,
    model: ModelOptions,
    task: TaskChoice | None = None,
    factors: Annotated[
        Path | None,
        described("factors.json. Default: those the checkpoint carries.", group=MODEL, metavar="FILE"),
    ] = None,
    split: SplitName = "test",
    output: Output | None = None,
    scores: Annotated[
        Path | None, described("Write every example's scores as JSON to this file.", group=RUN, metavar="FILE")
    ] = None,
) -> dict[str, Any]:
    """Compare a model with and without scaling factors on the same records."""
    from ropewalk.cli import console, tables
    from ropewalk.comparison import verdict_sentence
    from ropewalk.patch import factors_of
    from ropewalk.run import final_test

    given = None if factors is None else ScalingFactors.load(factors)
    made = (task or TaskChoice()).make()
    loaded, tokenizer = model.load()
    chosen = given or factors_of(loaded)
    if chosen is None:
        raise RopewalkError("no factors: give --factors FILE, for this checkpoint carries none")
    evaluator = model.evaluator(loaded, tokenizer, made, split)
    short = model.short_evaluator(loaded, tokenizer, made, split)
    with console.StageProgress() as progress:
        summary, results = final_test(
            evaluator, chosen, any_model=model.any_model, short=short, on_event=console.follow(progress)
        )
    arms = {"vanilla": "vanilla", "factors": "factors"}
    out = console.output()
    for table in (
        *tables.figures(summary, arms),
        tables.position_table(summary["gain"]["factors"]),
        tables.gain_table({"factors over vanilla": summary["gain"]["factors"]}),
    ):
        out.print(table, "")
    console.say(verdict_sentence(summary["gain"]["factors"], "these factors"))
    for text in tables.remarks(summary, arms):
        console.say(text)
    if scores:
        files.write_json(scores, {name: result.to_dict() for name, result in results.items()})
    return summary
