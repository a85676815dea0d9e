"""`ropewalk demo`: the whole road once, on a real small model, within minutes on two CPU cores.

The setting was chosen by benchmarks/demo_setting.py on validation records of other seeds; no test record took part.
None of the settings tried lets a search this small find a significant gain in four runs of five, so the demo says so
and tests the factors of a larger search as well, which the package brings along.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from ropewalk.cli.mix import MixedTask
from ropewalk.cli.options import RUN, ModelOptions, OutDir, Output, TaskChoice, number
from ropewalk.cli.search_options import SearchOptions
from ropewalk.factors import ScalingFactors

MODEL = ModelOptions(model="demo", chat_template=False)
TASK = TaskChoice(task="kv", keys=3, positions="3", limit=14)
SEARCH = SearchOptions(
    method="bezier-ga", low=0.8, high=1.2, racing=False, finalists=0, test_limit=70, control_budget=0
)
KNOBS = {"population": 12, "parents": 4, "mutations": 3, "crossovers": 3, "generations": 4, "radius": 0.1}


def demo(
    *,
    out: OutDir = Path("runs/demo"),
    seed: Annotated[int, number("Seed of the records and of the search.", group=RUN)] = 0,
    output: Output | None = None,
) -> dict[str, Any]:
    """Profile SmolLM2-135M, search factors for it, test them on held-out records: about 8 minutes on two cores."""
    from ropewalk.cli import console
    from ropewalk.cli.work import Asked
    from ropewalk.cli.workflow import search_and_test
    from ropewalk.comparison import verdict_sentence

    tasks = (MixedTask(TASK.task, replace(TASK, seed=seed)),)
    asked = Asked.of(MODEL, SEARCH, KNOBS, tasks, seed)
    larger = larger_search()
    work = replace(asked.work(*MODEL.load()), short_forms=(None,), others={"larger_search": larger})
    console.say(
        f"SmolLM2-135M-Instruct, key-value retrieval with {TASK.keys} keys: search on "
        f"{len(work.search.tasks[0].examples)} prompts, test on {len(work.test.tasks[0].examples)} others."
    )
    summary = search_and_test(work, out)
    console.say(
        f"A search of {summary['search']['evaluations']} prompts is a small one. Factors that a search of "
        f"{larger.found['evaluations']} prompts on a GPU found were tested beside it. "
        + verdict_sentence(summary["gain"]["larger_search"], "these factors")
    )
    return summary


def larger_search() -> ScalingFactors:
    """The factors of a larger search, which benchmarks/demo_setting.py made and measured on validation records."""
    with resources.as_file(resources.files("ropewalk") / "demo_factors.json") as path:
        return ScalingFactors.load(path)
