"""`ropewalk search`: find per-layer factors for a model, and test them on held-out records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ropewalk import files
from ropewalk.cli.knobs import Knobs, given_knobs
from ropewalk.cli.mix import TaskMix
from ropewalk.cli.options import JsonFile, ModelOptions, described
from ropewalk.cli.search_options import SearchOptions


def search(
    *,
    model: ModelOptions,
    task: TaskMix | None = None,
    options: SearchOptions | None = None,
    knobs: Knobs | None = None,
    out: Annotated[Path, described("Run directory; the same command continues what is there.")] = Path("runs/search"),
    config: Annotated[Path | None, described("A TOML file with any of these options; the command line overrides.")] = (
        None
    ),
    json: JsonFile = None,
    dry_run: Annotated[bool, described("Say what would run, how long and in how much memory.", negative="")] = False,
) -> None:
    """Search per-layer scaling factors, choose among finalists on validation records, test on held-out ones.

    Example: ropewalk search --model Qwen/Qwen2.5-0.5B-Instruct --keys 75 --positions 5 --out runs/kv
    """
    from ropewalk.cli.dry_run import say
    from ropewalk.cli.work import Asked
    from ropewalk.cli.workflow import search_and_test
    from ropewalk.patch import remove

    mix, settings = task or TaskMix(), options or SearchOptions()
    settings.check()
    asked = Asked.of(model, settings, given_knobs(settings.method, knobs), mix.tasks(), mix.seed)
    loaded, tokenizer = model.load()
    remove(loaded)  # a checkpoint's own factors are not what the search starts from
    work = asked.work(loaded, tokenizer)
    if dry_run:
        say(asked, work, loaded, tokenizer)
        return
    summary = search_and_test(work, out)
    if json:
        files.write_json(json, summary)
