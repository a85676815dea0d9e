"""`ropewalk profile`: the U of a model as it is."""

from __future__ import annotations

from typing import Any

from ropewalk.cli.options import ModelOptions, Output, SplitName, TaskChoice


def profile(
    *, model: ModelOptions, task: TaskChoice | None = None, split: SplitName = "test", output: Output | None = None
) -> dict[str, Any]:
    """Show how bad the middle is: accuracy by the position of the evidence."""
    from ropewalk.cli import console, tables
    from ropewalk.findings import findings
    from ropewalk.identity import base_scheme
    from ropewalk.patch import factors_of
    from ropewalk.provenance import provenance

    choice = task or TaskChoice()
    made = choice.make()
    loaded, tokenizer = model.load()
    evaluator = model.evaluator(loaded, tokenizer, made, split)
    carried = factors_of(loaded)
    arms = {"vanilla": None} | ({} if carried is None else {"factors": carried})
    with console.StageProgress() as progress:
        progress.stage("Profile", len(arms) * len(evaluator.examples))
        results = {name: evaluator.score(factors, on_progress=progress.advance) for name, factors in arms.items()}
    summary: dict[str, Any] = {
        "task": evaluator.settings,
        "engine": evaluator.engine,
        "positions": list(made.positions),
        **{name: result.summary() for name, result in results.items()},
        "rope": model.rope,
        "base": base_scheme(loaded),
        "provenance": provenance(loaded),
    }
    summary["warnings"] = findings({"vanilla": summary["vanilla"]})
    labels = {"vanilla": "vanilla", "factors": "its factors"}
    shown = {name: labels[name] for name in arms}
    out = console.output()
    console.say(f"{model.model}: {choice.task}, {len(results['vanilla'].records)} records at each position")
    for table in tables.figures(summary, shown):
        out.print(table, "")
    console.say(tables.shape_sentence(summary["vanilla"]))
    for text in tables.remarks(summary, shown):
        console.say(text)
    return summary
