"""What `search` and `demo` have in common: search, test on held-out records, write and show the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk import files
from ropewalk.cli import console, tables
from ropewalk.comparison import metric_words, verdict_sentence
from ropewalk.factors import ScalingFactors

if TYPE_CHECKING:
    from ropewalk.evaluate import Evaluator
    from ropewalk.results import TaskResult
    from ropewalk.run import SearchPlan, SearchResult

LABELS = {
    "vanilla": "vanilla",
    "uniform": "uniform, same mean",
    "larger_search": "larger search",
    "factors": "found factors",
}


def search_and_test(
    plan: SearchPlan,
    search_on: Evaluator,
    validate_on: Evaluator | None,
    test_on: Evaluator,
    out: Path,
    *,
    short_on: Evaluator | None = None,
    others: Mapping[str, ScalingFactors] | None = None,
) -> dict[str, Any]:
    """Profile the model, search, test the winner against vanilla and the uniform control of the same mean.

    short_on: the model on the task's short form. others: further factors to test, by a key of `LABELS`. Leaves
    factors.json, result.json (the figures), scores.json (every example of every arm) and curves.svg in `out`, and
    returns the figures. Ctrl-C leaves the best so far and says how to go on.
    """
    from ropewalk.run import check_run, final_test, search

    check_run(plan, search_on, validate_on, out)
    with console.StageProgress() as progress:
        on_event = console.follow(progress)
        try:
            progress.stage("Profile", len(test_on.examples))
            vanilla = test_on.score(None, on_progress=progress.advance)
            found = search(plan, search_on, validate_on, out, on_event=on_event)
            controls = {} if found.factors.is_identity else {"uniform": found.factors.matched_uniform()}
            controls |= others or {}
            summary, results = final_test(
                test_on,
                found.factors,
                plan.objective,
                controls=controls,
                vanilla=vanilla,
                short=short_on,
                on_event=on_event,
            )
        except KeyboardInterrupt:
            best = out / "factors.json"
            kept = f"the best so far is in {best}" if best.exists() else "nothing was found yet"
            raise KeyboardInterrupt(f"stopped; {kept}. The same command continues") from None
    summary["search"] = _search_block(plan, found)
    summary["sentence"] = _sentence(summary, found)
    _write(summary, results, found, controls, out)
    _show(summary, out)
    return summary


def _search_block(plan: SearchPlan, found: SearchResult) -> dict[str, Any]:
    return {
        "candidates": len(found.records),
        "evaluations": found.evaluations,
        "failed": found.failed,
        "fitness": found.fitness,
        "validation": found.validation,
        "control_points": [list(point) for point in found.candidate.control_points],
        **plan.settings(),
    }


def _sentence(summary: Mapping[str, Any], found: SearchResult) -> str:
    if found.factors.is_identity:
        where = "validation" if found.validation else "search"
        return f"Nothing the search tried beat the model as it is on {where} records: the answer is vanilla."
    return verdict_sentence(summary["gain"]["factors"])


def _write(
    summary: Mapping[str, Any],
    results: Mapping[str, TaskResult],
    found: SearchResult,
    controls: Mapping[str, ScalingFactors],
    out: Path,
) -> None:
    from ropewalk.report.figures import curves_figure, save_svg

    files.write_json(out / "result.json", summary)
    files.write_json(out / "scores.json", {name: result.to_dict() for name, result in results.items()})
    series = {LABELS[name]: (summary[name]["accuracy"], summary[name]["interval"]) for name in results}
    shown = {LABELS[name]: factors for name, factors in [*controls.items(), ("factors", found.factors)]}
    metric = metric_words(summary["vanilla"]["metric"])
    chart = curves_figure(summary["positions"], series, shown, _title(summary, found), metric)
    save_svg(chart, out / "curves.svg")


def _title(summary: Mapping[str, Any], found: SearchResult) -> str:
    task = summary["task"]
    keys = f", {task['keys']} keys" if task.get("keys") else ""
    model, records = found.factors.model.get("name", "model"), summary["vanilla"]["records"]
    return f"{model}: {task['task']}{keys}, {records} test records"


def _show(summary: Mapping[str, Any], out: Path) -> None:
    arms = {name: label for name, label in LABELS.items() if name in summary}
    screen = console.output()
    for table in (
        *tables.figures(summary, arms),
        tables.position_table(summary["gain"]["factors"]),
        tables.gain_table(
            {"found factors over vanilla": summary["gain"]["factors"]}
            | {f"found factors over {LABELS[name]}": row for name, row in summary["factors_over"].items()}
        ),
    ):
        screen.print(table, "")
    for text in (tables.shape_sentence(summary["vanilla"]), summary["sentence"], *tables.remarks(summary, arms)):
        if text:
            screen.print(text)
    screen.print(f"Factors, figures and scores: {out}/factors.json, result.json, scores.json, curves.svg")
