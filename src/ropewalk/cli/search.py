"""`ropewalk search`: find per-layer factors for a model, and test them on held-out records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ropewalk.cli.knobs import Knobs, given_knobs
from ropewalk.cli.mix import TaskMix
from ropewalk.cli.options import ConfigFile, DryRun, ModelOptions, OutDir, Output
from ropewalk.cli.search_options import SearchOptions
from ropewalk.cli.worker_options import WorkerOptions


def search(
    *,
    model: ModelOptions,
    task: TaskMix | None = None,
    options: SearchOptions | None = None,
    knobs: Knobs | None = None,
    workers: WorkerOptions | None = None,
    out: OutDir = Path("runs/search"),
    config: ConfigFile = None,
    dry_run: DryRun = False,
    output: Output | None = None,
) -> dict[str, Any]:
    """Search per-layer scaling factors, choose among finalists on validation records, test on held-out ones."""
    from ropewalk.cli.dry_run import say
    from ropewalk.cli.work import Asked
    from ropewalk.cli.workflow import search_and_test
    from ropewalk.patch import remove

    mix, settings, where = task or TaskMix(), options or SearchOptions(), workers or WorkerOptions()
    settings.check()
    where.check(model)
    asked = Asked.of(model, settings, given_knobs(settings.method, knobs), mix.tasks(), mix.seed)
    with where.loaded(model) as (loaded, tokenizer):
        remove(loaded)  # a checkpoint's own factors are not what the search starts from
        work = asked.work(loaded, tokenizer)
        if dry_run:
            return say(asked, work, loaded, tokenizer)
        return search_and_test(work, out)
