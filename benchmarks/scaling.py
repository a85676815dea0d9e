"""Candidates a second on 1, 2, 4, … workers, and how near that is to linear.

    python benchmarks/scaling.py --shape 7b --workers 1,2,4 --out scaling-7b.json
    python benchmarks/scaling.py --model FOLDER --keys 75 --workers 1,2,4 --out scaling-0.5b.json
    python benchmarks/scaling.py --model FOLDER --workers 1,2 --gpus-per-worker 2 --out scaling-large.json
    python benchmarks/scaling.py --model demo --dtype float32 --keys 10 --cpu --workers 1,2 --out scaling-cpu.json

Generations of `--population` candidates, as a search has them: the next one begins when all of this one are scored. The
prompts are those of the kv task, or with random weights random ids laid out as MDQA's. Every count of workers has a
cluster of its own; on a CPU a worker has one thread. Start-up is timed, and not part of the rates. What a worker takes
for a piece of work is timed there, so what is left of the time is waiting for others and Ray: `busy` is the share of
the workers' time in which they compute. `benchmarks/scaling_simulation.py` works out larger numbers of workers from it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reporting import progress, report, table
from ropewalk.answers import Block, Questions
from ropewalk.evaluate import BLOCK_TOKENS
from ropewalk.factors import ScalingFactors
from ropewalk.prompts import RenderedPrompt
from ropewalk.workers import ModelSource, Worker
from ropewalk.workers.cluster import WorkerSettings, cluster, sized
from ropewalk.workers.worker import Done, Failed
from workload import SHAPES, candidates, kv_prompts, mdqa_like_prompts, random_model

GPU_CANDIDATES = 4  # that a search scores together on a GPU


@dataclass(frozen=True)
class Timed(Done):
    """With the seconds that the worker took."""

    seconds: float = 0.0


@dataclass(frozen=True)
class RandomSource(ModelSource):
    """A model of one of `SHAPES`, with the weights of a seed."""

    seed: int = 0

    def load(self) -> tuple[Any, Any]:
        device = torch.device("cuda" if self.gpus else "cpu")
        return random_model(self.path, device, getattr(torch, self.dtype or "bfloat16"), self.seed)


class TimedWorker(Worker):
    """Says how long it took."""

    def answers(self, *arguments: Any) -> Done | Failed:
        started = time.perf_counter()
        found = super().answers(*arguments)
        if isinstance(found, Failed):
            return found
        return Timed(found.answers, found.reason, found.memory_gib, time.perf_counter() - started)


def made(source: ModelSource, threads: int | None, path: str) -> TimedWorker:
    return TimedWorker(replace(source, path=path), threads)


def prompts_of(args: argparse.Namespace) -> list[RenderedPrompt]:
    """What a candidate is scored on, record by record."""
    if args.shape:
        vocabulary = SHAPES[args.shape][1]["vocab_size"]
        return mdqa_like_prompts(args.records, args.tokens, vocabulary, args.seed, positions=args.positions)
    from ropewalk.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(args.model)
    return kv_prompts(
        tokenizer, "generated", keys=args.keys, positions=args.positions, records=args.records, seed=args.seed
    )


def blocks_of(prompts: list[RenderedPrompt], positions: int, *, shared: bool) -> list[Block]:
    """As `Evaluator` makes them; shared: a record's prompts are alike but for their ends."""
    blocks: list[list[int]] = []
    filled = 0
    for start in range(0, len(prompts), positions):
        lengths = [len(prompt.ids) for prompt in prompts[start : start + positions]]
        tokens = max(lengths) if shared else sum(lengths)
        if not blocks or filled + tokens > BLOCK_TOKENS:
            blocks, filled = [*blocks, []], 0
        blocks[-1] += range(start, start + positions)
        filled += tokens
    return [tuple(block) for block in blocks]


def measure(count: int, args: argparse.Namespace, source: ModelSource, questions: Questions) -> dict[str, Any]:
    """Generations on so many workers, until `--seconds` are over."""
    settings = WorkerSettings(count, 0 if args.cpu else args.gpus_per_worker)
    began = time.perf_counter()
    with cluster(settings, progress):
        from ropewalk.workers.crew import Needs, living_nodes
        from ropewalk.workers.pool import Pool

        _, needs = sized(settings, list(living_nodes().values()), on_cpu=args.cpu)
        needs = Needs(1, 0) if args.cpu else needs
        make = partial(made, replace(source, gpus=needs.gpus), 1 if args.cpu else None)
        pool = Pool(make, source.path, count, needs, timeout=3600, say=progress)
        pool.start_up(all_of_them=True)
        start_up = time.perf_counter() - began
        layers = len(pool.facts.layers)
        drawn = candidates(layers, args.population * 64, args.seed, low=0.8, high=1.3, skip_first=0)
        blocks = blocks_of([aliases[0] for aliases in questions.prompts], args.positions, shared=not args.shape)
        together = 1 if args.cpu else GPU_CANDIDATES
        generation(pool, questions, blocks, drawn[: together * max(1, count)], together)  # checks, compilation
        generation(pool, questions, blocks, drawn[: args.population], together)
        rounds: list[float] = []
        works: list[float] = []
        while sum(rounds) < args.seconds or len(rounds) < args.least:
            place = len(rounds) % 64 * args.population
            spent, pieces = generation(pool, questions, blocks, drawn[place : place + args.population], together)
            rounds.append(spent)
            works += pieces
            progress(
                f"{count} workers, generation {len(rounds)}: {spent:.2f} s, {args.population / spent:.3g} a second"
            )
        pool.close()
    rates = [args.population / spent for spent in rounds]
    return {
        "workers": count,
        "candidates_per_second": {"median": statistics.median(rates), "low": min(rates), "high": max(rates)},
        "busy": sum(works) / (count * sum(rounds)),
        "unit_seconds": statistics.mean(works),
        "unit_spread": statistics.pstdev(works) / statistics.mean(works),
        "units_per_generation": len(works) / len(rounds),
        "start_up_seconds": start_up,
        "generations": len(rounds),
        "engine": pool.reason(questions) or "own layer loop",
    }


def generation(
    pool: Any, questions: Questions, blocks: list[Block], chosen: list[ScalingFactors], together: int
) -> tuple[float, list[float]]:
    """Seconds of one generation, and of each piece of work where it was done."""
    started = time.perf_counter()
    groups = [chosen[start : start + together] for start in range(0, len(chosen), together)]
    jobs = [pool.start(questions, blocks, group, False, lambda count: None) for group in groups]
    waiting = list(jobs)
    while waiting:
        waiting.remove(pool.wait(waiting))
    spent = time.perf_counter() - started
    for job in jobs:
        job.answers()
    return spent, [found.seconds for job in jobs for found in job.found.values()]


def main() -> None:
    args = arguments()
    folder = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])  # workers import this
    if args.model == "demo":
        from ropewalk.demo import demo_model

        args.model = str(demo_model())
    source = RandomSource(args.shape, args.dtype, seed=args.seed) if args.shape else ModelSource(args.model, args.dtype)
    prompts = prompts_of(args)
    questions = Questions(tuple((prompt,) for prompt in prompts), candidates=args.population * 20)
    rows = [measure(count, args, source, questions) for count in args.workers]
    first = rows[0]
    for row in rows:
        ratio = row["candidates_per_second"]["median"] / first["candidates_per_second"]["median"]
        row["of_linear"] = ratio * first["workers"] / row["workers"]
    columns = ("workers", "candidates_per_second", "of_linear", "busy", "unit_seconds", "start_up_seconds")
    name = args.shape or Path(args.model).name
    table(f"{name}: {len(prompts)} prompts of {len(prompts[0].ids)} tokens a candidate, generations of "
          f"{args.population}", [{column: row[column] for column in columns} for row in rows])  # fmt: skip
    device = torch.device("cpu" if args.cpu else "cuda")
    content = {"model": name, "dtype": args.dtype, "prompts": len(prompts), "tokens": len(prompts[0].ids),
               "population": args.population, "load_average": os.getloadavg()[0], "rows": rows}  # fmt: skip
    report("scaling", args.seed, device, content, args.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Candidates a second by the number of workers.")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="checkpoint folder, or demo")
    model.add_argument("--shape", choices=SHAPES, help="random weights of this shape")
    parser.add_argument("--workers", type=lambda text: [int(one) for one in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--gpus-per-worker", type=int, default=1)
    parser.add_argument("--cpu", action="store_true", help="one thread a worker")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--keys", type=int, default=75)
    parser.add_argument("--tokens", type=int, default=1600, help="of a prompt of random ids")
    parser.add_argument("--records", type=int, default=8)
    parser.add_argument("--positions", type=int, default=5)
    parser.add_argument("--population", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--least", type=int, default=3, help="generations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(sys.argv[1:])
    if args.shape and args.gpus_per_worker > 1:
        parser.error("random weights are made on one GPU: give --model for more --gpus-per-worker")
    return args


if __name__ == "__main__":
    main()
