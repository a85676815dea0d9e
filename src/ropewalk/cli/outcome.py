"""What a search leaves: result.json with its provenance, every score, figures, and what the terminal shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk import files
from ropewalk.cli import console, tables
from ropewalk.cli.invocation import command
from ropewalk.comparison import metric_words, verdict_sentence
from ropewalk.constraints import Scores
from ropewalk.findings import short_text_regressions
from ropewalk.verdict import LABELS, constraint_sentence, short_text_sentences

if TYPE_CHECKING:
    from ropewalk.cli.work import Work
    from ropewalk.cli.workflow import Outcome
    from ropewalk.results import TaskResult
    from ropewalk.run import Examples


def summarise(outcome: Outcome) -> dict[str, Any]:
    """All figures, as JSON: a block for each task under `tasks`; that of a single one is repeated at the top."""
    work, found = outcome.work, outcome.found
    tests = dict(zip(work.names, outcome.tests, strict=True))
    outcome.tests[0]["warnings"] += short_text_regressions(outcome.short_texts)
    for summary in tests.values():
        summary["sentence"] = _sentence(outcome, summary)
    several = len(tests) > 1
    top = {} if several else dict(outcome.tests[0])
    spent = {arm: result.evaluations for arm, result in outcome.searches.items()}
    return {
        **top,
        "tasks": tests,
        "sentence": " ".join(_named(name, block["sentence"], several) for name, block in tests.items())
        if several and not found.factors.is_identity
        else outcome.tests[0]["sentence"],
        "short_texts": outcome.short_texts,
        "constraints": _constraints(outcome),
        "controls": spent,
        "evaluations": _test_prompts(outcome),
        "search": _search_block(outcome),
        "provenance": _provenance(outcome),
    }


def write(summary: Mapping[str, Any], outcome: Outcome, out: Path) -> None:
    """result.json, scores.json and a picture of both curves for each task; result.json comes last."""
    from ropewalk.report.figures import curves_figure, save_svg

    names = outcome.work.names
    scores = {
        task: {arm: result.to_dict() for arm, result in results.items()}
        for task, results in zip(names, outcome.results, strict=True)
    }
    files.write_json(out / "scores.json", scores if len(names) > 1 else scores[names[0]])
    shown = {LABELS[name]: factors for name, factors in [*outcome.controls.items(), ("factors", outcome.found.factors)]}
    for task, results in zip(names, outcome.results, strict=True):
        block = summary["tasks"][task]
        series = {LABELS[name]: (block[name]["accuracy"], block[name]["interval"]) for name in results}
        metric = metric_words(block["vanilla"]["metric"])
        chart = curves_figure(block["positions"], series, shown, _title(block, outcome), metric)
        save_svg(chart, out / _picture(task, names))
    files.write_json(out / "result.json", summary)


def show(summary: Mapping[str, Any], work: Work, out: Path) -> None:
    """The figures of every task, what the constraints say, and the answer in a sentence."""
    screen = console.output()
    for task, block in summary["tasks"].items():
        if len(work.names) > 1:
            console.say(task, style="bold")
        arms = {name: label for name, label in LABELS.items() if name in block}
        for table in (
            *tables.figures(block, arms),
            tables.position_table(block["gain"]["factors"]),
            tables.gain_table(
                {"found factors over vanilla": block["gain"]["factors"]}
                | {f"found factors over {LABELS[name]}": row for name, row in block["factors_over"].items()}
            ),
        ):
            screen.print(table, "")
        console.say(tables.shape_sentence(block["vanilla"]))
        console.say(block["sentence"])
        for text in tables.remarks(block, arms):
            console.say(text)
    for sentence in (*short_text_sentences(summary["short_texts"]), *map(constraint_sentence, summary["constraints"])):
        console.say(sentence)
    for arm in work.controls:
        if arm not in next(iter(summary["tasks"].values())):
            console.say(f"No {LABELS[arm].removeprefix('best ')} beat vanilla on the search records.")
    pictures = ", ".join(_picture(task, work.names) for task in work.names)
    console.say(f"Factors, figures and scores: {out}/factors.json, result.json, scores.json, {pictures}")


def _sentence(outcome: Outcome, summary: Mapping[str, Any]) -> str:
    if outcome.found.factors.is_identity:
        where = "validation" if outcome.found.validation else "search"
        return f"Nothing the search tried beat the model as it is on {where} records: the answer is vanilla."
    return verdict_sentence(summary["gain"]["factors"])


def _named(task: str, sentence: str, several: bool) -> str:
    return f"{task}: {sentence}" if several else sentence


def _constraints(outcome: Outcome) -> list[dict[str, Any]]:
    """How each constraint does on the test records."""
    vanilla = [_scores(results["vanilla"]) for results in outcome.results]
    factors = [_scores(results["factors"]) for results in outcome.results]
    short = None if outcome.short is None else (_scores(outcome.short[1]), _scores(outcome.short[0]))
    return outcome.work.plan.objective.constraint_report(factors, vanilla, short)


def _scores(result: TaskResult) -> Scores:
    return Scores(result.scores, result.log_likelihoods, result.positions)


def _search_block(outcome: Outcome) -> dict[str, Any]:
    found = outcome.found
    return {
        "candidates": len(found.records),
        "evaluations": found.evaluations,
        "validation_evaluations": found.validation_evaluations,
        "failed": found.failed,
        "stopped": found.stopped,
        "fitness": found.fitness,
        "validation": found.validation,
        **found.candidate.to_json(),
        **outcome.work.plan.settings(),
    }


def _test_prompts(outcome: Outcome) -> int:
    from ropewalk.short_texts import prompts_of

    short, checks = outcome.work.test.short, outcome.work.short_texts
    tests = sum(int(test["evaluations"]) for test in outcome.tests)
    return tests + prompts_of(checks) + (2 * len(short.examples) if short else 0)


def _provenance(outcome: Outcome) -> dict[str, Any]:
    """Versions and hardware, model and data with their digests, and what all of it took."""
    from ropewalk.identity import base_scheme, model_identity
    from ropewalk.provenance import provenance

    work, found = outcome.work, outcome.found
    evaluations = {
        "search": found.evaluations,
        "validation": found.validation_evaluations,
        "controls": sum(result.evaluations for result in outcome.searches.values()),
        "test": _test_prompts(outcome),
    }
    splits: dict[str, Examples | None] = {"search": work.search, "validation": work.validation, "test": work.test}
    long = {name: _tokens_per_prompt(on) for name, on in splits.items() if on is not None}
    per_prompt = {"search": long["search"], "controls": long["search"], "test": long["test"]}
    tokens = {name: round(count * per_prompt.get(name, long.get(name, 0.0))) for name, count in evaluations.items()}
    return {
        "command": command(),
        **provenance(work.test.model),
        "model": model_identity(work.test.model),
        "base": base_scheme(work.test.model),
        "data": {name: _data(work, on) for name, on in splits.items() if on is not None},
        "seed": work.seed,
        "seconds": round(outcome.seconds, 1),
        "search_seconds": round(sum(record.seconds for record in found.records), 1),
        "evaluations": evaluations,
        "tokens": tokens,
    }


def _data(work: Work, on: Examples) -> dict[str, Any]:
    """What a split's prompts are made of, with a digest of the examples, by task."""
    from ropewalk.plan import run_settings

    settings = run_settings(replace(work.plan, budget=None), on, None)
    short = {} if settings["short"] is None else {"short texts": settings["short"]}
    return dict(zip(work.names, settings["tasks"], strict=True)) | short


def _tokens_per_prompt(on: Examples) -> float:
    """The mean over a split's prompts."""
    evaluators = [*on.tasks, *([on.short] if on.short else [])]
    prompts = sum(len(evaluator.examples) for evaluator in evaluators)
    return sum(evaluator.prompt_tokens for evaluator in evaluators) / prompts


def _title(block: Mapping[str, Any], outcome: Outcome) -> str:
    task = block["task"]
    keys = f", {task['keys']} keys" if task.get("keys") else ""
    model, records = outcome.found.factors.model.get("name", "model"), block["vanilla"]["records"]
    return f"{model}: {task['task']}{keys}, {records} test records"


def _picture(task: str, names: tuple[str, ...]) -> str:
    return "curves.svg" if len(names) == 1 else f"curves-{task.replace(' ', '-')}.svg"
