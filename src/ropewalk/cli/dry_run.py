"""What `--dry-run` says: which candidates on how many prompts, how long that takes here, and in how much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from ropewalk.cli import console
from ropewalk.cli.estimate import Speed, seconds, speed

if TYPE_CHECKING:
    from ropewalk.cli.work import Asked, Work
    from ropewalk.run import Examples

CONSTRAINT = "constraint's texts"
STAGES = ("search", "validation", "controls", "test")
Prompts = dict[str, dict[str, int]]  # by task, then by stage


def say(asked: Asked, work: Work, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Print what would run, from one measured record of each task, and return it for JSON."""
    prompts = planned_prompts_of(work)
    with console.working("Timing one record of each task"):
        measured = _measure(asked, work, model, tokenizer)
    console.say(_head(work))
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("prompts")
    for stage in STAGES:
        table.add_column(stage, justify="right")
    for task, row in prompts.items():
        table.add_row(task, *[str(row[stage]) for stage in STAGES])
    console.output().print(table)
    total = sum(
        row[stage] * measured[task][stage == "test"].seconds_per_prompt
        for task, row in prompts.items()
        for stage in row
    )
    some = max((pair[0] for pair in measured.values()), key=lambda one: one.memory_gib)
    limit = f", the search at most {seconds(work.plan.seconds)}" if work.plan.seconds else ""
    tokens = ", ".join(f"{task} {pair[0].tokens_per_prompt:.0f}" for task, pair in measured.items())
    console.say(
        f"About {seconds(total)} on {some.device}{limit} (tokens a prompt: {tokens}), {some.memory_gib:.1f} GiB of "
        f"{some.memory_kind}."
    )
    for note in work.notes:
        console.say(note)
    console.say("Nothing was written.")
    return {
        "prompts": prompts,
        "seconds": total,
        "tokens_per_prompt": {task: pair[0].tokens_per_prompt for task, pair in measured.items()},
        "memory_gib": some.memory_gib,
        "device": some.device,
    }


def planned_prompts_of(work: Work) -> Prompts:
    """Prompts of each stage, at most, for each task, the constraint's texts and the test's check of short texts."""
    searched = _searched(work.plan, work.search)
    found = {arm: _searched(plan, on) for arm, (plan, on) in work.controls.items()}
    arms = 3 + len(work.controls) + len(work.others)
    prompts: Prompts = {}
    for number, name in enumerate(_names(work)):
        is_task = number < len(work.names)
        short = work.short_forms[number] if is_task else None
        prompts[name] = {
            "search": searched[number],
            "validation": (work.plan.finalists + 1) * _examples(work.validation, number),
            "controls": sum(counts[number] for counts in found.values()),
            "test": (arms if is_task else 2) * _examples(work.test, number) + (2 * len(short.examples) if short else 0),
        }
    for name, check in work.short_texts.items():
        prompts[_check(name)] = dict.fromkeys(STAGES, 0) | {"test": 2 * len(check.examples)}
    return prompts


def _check(name: str) -> str:
    return f"short texts, {name}"


def _head(work: Work) -> str:
    from ropewalk.search_plan import planned

    options = work.plan.method.options
    generations = getattr(options, "generations", None)
    of = f" in {generations} generations" if generations else ""
    racing = ", fewer if racing stops some early" if work.plan.racing else ""
    return (
        f"{work.plan.method.name}: up to {work.plan.method.candidates_in_all} candidates{of}, "
        f"{planned(work.plan, work.search)} candidate·prompt evaluations{racing}."
    )


def _searched(plan: Any, on: Examples) -> list[int]:
    """Prompts of a search by task, and last those of short texts; scaled down where a budget ends it."""
    from ropewalk.search_plan import planned

    sizes = plan.method.sizes([len(evaluator.records) for evaluator in on.tasks])
    counts = [
        len(evaluator.examples)
        + sum(count * len(rows[number]) * len(evaluator.task.positions) for count, rows in sizes)
        for number, evaluator in enumerate(on.tasks)
    ]
    if on.short is not None:
        counts.append(len(on.short.examples) * (1 + sum(count for count, _ in sizes)))
    share = min(1.0, planned(plan, on) / sum(counts))
    return [round(count * share) for count in counts]


def _examples(on: Examples | None, number: int) -> int:
    if on is None:
        return 0
    every = [*on.tasks, *([on.short] if on.short else [])]
    return len(every[number].examples)


def _names(work: Work) -> list[str]:
    return [*work.names, *([CONSTRAINT] if work.search.short is not None else [])]


def _measure(asked: Asked, work: Work, model: Any, tokenizer: Any) -> dict[str, tuple[Speed, Speed]]:
    """By task the speed of the search's prompts and of the test's, which may be answered really."""
    space = work.plan.space
    together = [space.factors(space.level(1.0))] * work.plan.at_once
    one = asked.one_record(model, tokenizer, "search")
    tests = asked.one_record(model, tokenizer, "test")
    measured = {}
    for name, search, test in zip(work.names, one, tests, strict=True):
        fast = speed(search, together)
        measured[name] = (fast, speed(test) if test.generated else fast)
    if work.search.short is not None:
        fast = speed(work.search.short.part([0]), together)
        measured[CONSTRAINT] = (fast, fast)
    for name, check in work.short_texts.items():
        fast = speed(check.part([0]))
        measured[_check(name)] = (fast, fast)
    return measured
