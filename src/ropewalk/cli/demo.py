"""`ropewalk demo`: the whole road once, on a real small model, within minutes on two CPU cores.

The setting was chosen by benchmarks/demo_setting.py on validation records of other seeds; no test record took part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ropewalk import files
from ropewalk.cli.options import JsonFile, ModelOptions, TaskChoice, described
from ropewalk.cli.search import SearchOptions

TASK = TaskChoice(task="kv", keys=4, positions="4", limit=12)
SEARCH = SearchOptions(population=12, parents=4, mutations=4, crossovers=4, generations=3, finalists=0, test_limit=60)
MODEL = ModelOptions(model="demo", chat_template=False)


def demo(
    *,
    out: Annotated[Path, described("Run directory.")] = Path("runs/demo"),
    seed: Annotated[int, described("Seed of the records and of the search.")] = 0,
    json: JsonFile = None,
) -> None:
    """Profile SmolLM2-135M, search factors for it, test them on held-out records: about 8 minutes on two cores.

    Example: ropewalk demo --out runs/demo
    """
    from dataclasses import replace

    from ropewalk.cli import console
    from ropewalk.cli.workflow import search_and_test
    from ropewalk.layers import decoder_layers
    from ropewalk.patch import rotary_layers

    task = replace(TASK, seed=seed)
    loaded, tokenizer = MODEL.load()
    search_on = MODEL.evaluator(loaded, tokenizer, task.make(), "search")
    test_on = MODEL.evaluator(loaded, tokenizer, task.make(SEARCH.test_limit), "test")
    plan = SEARCH.plan(len(decoder_layers(loaded)), rotary_layers(loaded), seed)
    console.output().print(
        f"SmolLM2-135M-Instruct, key-value retrieval with {TASK.keys} keys: search on {len(search_on.examples)} "
        f"prompts, test on {len(test_on.examples)} others."
    )
    summary = search_and_test(plan, search_on, None, test_on, out)
    if json:
        files.write_json(json, summary)
