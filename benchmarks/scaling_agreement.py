"""The same small search in this process, and on 1, 2, … workers: what of it is the same, record by record.

    python benchmarks/scaling_agreement.py --model FOLDER --keys 75 --workers 1,2,1x2 --out scaling-agreement.json
    python benchmarks/scaling_agreement.py --model demo --keys 5 --cpu --workers 1,2

1x2 is one worker of two GPUs. On a CPU all of it is, to the bit. On a GPU one process scores more candidates together
than a worker does, so that the two agree but for rounding; where rounding changes who is chosen, later generations have
other candidates. Each run is compared with the first one and with the first on workers. The JSON is written after each.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reporting import progress, report, table
from ropewalk.checkpoint import load_pretrained
from ropewalk.evaluate import Evaluator
from ropewalk.layers import decoder_layers
from ropewalk.objectives import Objective
from ropewalk.run import Examples, SearchPlan, SearchResult, search
from ropewalk.search import make_method
from ropewalk.search.space import SearchSpace
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from ropewalk.workers import ModelSource
from ropewalk.workers.cluster import WorkerSettings
from ropewalk.workers.model import on_workers


def searched(loaded: tuple[Any, Any], args: argparse.Namespace) -> tuple[SearchResult, float]:
    """A search from the seed, and its seconds."""
    model, tokenizer = loaded
    space = SearchSpace(len(decoder_layers(model)), low=0.7, high=1.35)
    method = make_method("default", space, args.seed, population=args.population, generations=args.generations)
    task = make_task("kv", TaskOptions(positions=5, keys=args.keys, limit=args.records, seed=args.seed))
    on, validation = (
        Evaluator(model, tokenizer, task, task.examples(split), candidates=method.candidates_in_all)
        for split in ("search", "validation")
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        found = search(SearchPlan(space, method, Objective(), 2), Examples((on,)), Examples((validation,)), Path(out))
    progress(f"engine: {on.engine}")
    return found, time.perf_counter() - started


def compared(found: SearchResult, first: SearchResult) -> dict[str, Any]:
    """Record by record; log-likelihoods in nats a token."""
    pairs = list(zip(found.records, first.records, strict=False))
    alike = [pair for pair in pairs if pair[0].candidate == pair[1].candidate and pair[0].rows == pair[1].rows]
    scores = [(one, other) for mine, theirs in alike for one, other in zip(mine.found, theirs.found, strict=True)]
    gaps = [np.abs(one.log_likelihoods - other.log_likelihoods).max() for one, other in scores]
    return {
        "records": len(found.records),
        "same candidate": len(alike),
        "same to the bit": sum(mine.fitness == theirs.fitness for mine, theirs in alike),
        "largest difference": float(max(gaps, default=0.0)),
        "other verdicts": int(sum((one.scores != other.scores).sum() for one, other in scores)),
        "verdicts": int(sum(one.scores.size for one, _ in scores)),
        "same factors": found.factors.values == first.factors.values,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One search in this process and on workers, compared.")
    parser.add_argument("--model", required=True, help="checkpoint folder, or demo")
    parser.add_argument("--workers", type=lambda text: text.split(","), default=["1", "2"], help="1,2, or 1x2")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--keys", type=int, default=75)
    parser.add_argument("--records", type=int, default=24, help="of the search, and of the validation")
    parser.add_argument("--population", type=int, default=32)
    parser.add_argument("--generations", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.model == "demo":
        from ropewalk.demo import demo_model

        args.model = str(demo_model())
    device = torch.device("cpu" if args.cpu else "cuda")
    source = ModelSource(args.model, args.dtype)
    runs: dict[str, SearchResult] = {}
    rows: list[dict[str, Any]] = []

    def keep(name: str, found: SearchResult, seconds: float) -> None:
        runs[name] = found
        others = list(runs)[:2]  # one process, and the first one on workers
        rows.extend({"run": name, "beside": other, **compared(found, runs[other])} for other in others if other != name)
        progress(f"{name}: {len(found.records)} candidates in {seconds:.1f} s")
        content = {"model": Path(args.model).name, "keys": args.keys, "seconds": seconds, "rows": rows}
        report("scaling-agreement", args.seed, device, content, args.out)

    loaded = load_pretrained(args.model, dtype=args.dtype, device=str(device), apply_factors=False)
    keep("one process", *searched(loaded, args))
    del loaded
    gc.collect()
    torch.cuda.empty_cache()
    for text in args.workers:
        count, _, gpus = text.partition("x")
        settings = WorkerSettings(int(count), 0 if args.cpu else int(gpus or 1))
        with on_workers(source, settings, on_cpu=args.cpu, all_ready=True, say=progress) as loaded:
            keep(f"workers: {text}", *searched(loaded, args))
    table(f"One search, seed {args.seed}, {args.population} candidates a generation", rows)


if __name__ == "__main__":
    main()
