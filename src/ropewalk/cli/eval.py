"""`ropewalk eval`: vanilla against factors, position by position, with intervals and paired tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ropewalk import files
from ropewalk.cli.options import JsonFile, ModelOptions, SplitName, TaskChoice, described
from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors


def evaluate(
    *,
    model: ModelOptions,
    task: TaskChoice | None = None,
    factors: Annotated[Path | None, described("factors.json; default: those the checkpoint carries.")] = None,
    split: SplitName = "test",
    json: JsonFile = None,
    scores: Annotated[Path | None, described("Write every example's scores as JSON to this file.")] = None,
) -> None:
    """Compare a model with and without scaling factors on the same records.

    Example: ropewalk eval --model Qwen/Qwen2.5-0.5B-Instruct --factors runs/kv/factors.json --keys 75
    """
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
    for text in (verdict_sentence(summary["gain"]["factors"], "these factors"), *tables.remarks(summary, arms)):
        out.print(text)
    if json:
        files.write_json(json, summary)
    if scores:
        files.write_json(scores, {name: result.to_dict() for name, result in results.items()})
