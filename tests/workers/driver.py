"""A small search on workers, as a process that can be killed: `python driver.py MODEL OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from ropewalk.workers import ModelSource
from ropewalk.workers.cluster import WorkerSettings
from ropewalk.workers.model import on_workers
from small_search import evaluator, plan, search


def main() -> None:
    model, out = sys.argv[1:]
    with on_workers(ModelSource(model, "float32"), WorkerSettings(count=2)) as loaded:
        on, validation = (evaluator(*loaded, split, records=5) for split in ("search", "validation"))
        search(plan(racing=True), on, validation, Path(out), lambda event: print(type(event).__name__, flush=True))


if __name__ == "__main__":
    main()
