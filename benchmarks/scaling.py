"""Candidates a second on 1, 2, 4, … workers, and how near that is to linear.

    python benchmarks/scaling.py --shape 7b --workers 1,2,4 --out scaling-7b.json
    python benchmarks/scaling.py --model FOLDER --keys 75 --workers 1,2,4 --out scaling-0.5b.json
    python benchmarks/scaling.py --shape 70b --gpus-per-worker 2 --workers 1,2 --out scaling-70b.json
    python benchmarks/scaling.py --model demo --dtype float32 --keys 10 --cpu --workers 1,2 --out scaling-cpu.json

Generations of `--population` candidates, as a search has them: the next one begins when all of this one are scored. The
prompts are those of the kv task, or with random weights random ids laid out as MDQA's. As many workers are started as
the largest count asks for, on a CPU with one thread each; generations of fewer leave the others idle, and counts take
turns. So each turn has a ratio, and what slows the machine for a while slows both its sides. Start-up, compilation and
warming up are timed, and not part of the rates. What a worker takes for a piece of work is timed there, so what is left
of the time is waiting for others and Ray: `busy` is the share of the workers' time in which they compute. The JSON is
written after each turn. `benchmarks/scaling_simulation.py` works out larger numbers of workers from it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from workload import SHAPES, candidates, kv_prompts, mdqa_like_prompts, random_model, split_random_model

GPU_CANDIDATES = 4  # that a search scores together on a GPU
Keep = Callable[[list[dict[str, Any]]], None]


@dataclass(frozen=True)
class Timed(Done):
    """With the seconds that the worker took."""

    seconds: float = 0.0


@dataclass(frozen=True)
class RandomSource(ModelSource):
    """A model of one of `SHAPES`, with the weights of a seed; several processes have a part of each weight."""

    seed: int = 0

    def load(self) -> tuple[Any, Any]:
        dtype = getattr(torch, self.dtype or "bfloat16")
        if self.ranks > 1:
            return split_random_model(self.path, dtype, self.seed)
        return random_model(self.path, torch.device("cuda" if self.gpus else "cpu"), dtype, self.seed)


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


def measure(args: argparse.Namespace, source: ModelSource, questions: Questions, keep: Keep) -> list[dict[str, Any]]:
    """Generations on each count of workers in turn, until `--seconds` are over. keep: told the rows so far."""
    largest = max(args.workers)
    settings = WorkerSettings(largest, 0 if args.cpu else args.gpus_per_worker)
    began = time.perf_counter()
    with cluster(settings, progress):
        from ropewalk.workers.crew import Needs, living_nodes
        from ropewalk.workers.pool import Pool

        _, needs = sized(settings, list(living_nodes().values()), on_cpu=args.cpu)
        needs = Needs(1, 0) if args.cpu else needs
        ranks = args.ranks or max(1, needs.gpus)
        make = partial(made, replace(source, gpus=needs.gpus, ranks=ranks), 1 if args.cpu else None)
        pool = Pool(make, source.path, largest, needs, timeout=3600, say=progress)
        pool.start_up(all_of_them=True)
        start_up = time.perf_counter() - began
        drawn = candidates(len(pool.facts.layers), args.population * 64, args.seed, low=0.8, high=1.3, skip_first=0)
        blocks = blocks_of([aliases[0] for aliases in questions.prompts], args.positions, shared=not args.shape)
        together = 1 if args.cpu else GPU_CANDIDATES
        work = partial(generation, pool, questions, blocks)
        work(drawn[: together * largest], together)  # checks, compilation
        work(drawn[-args.population :], together)
        warm = time.perf_counter() - began - start_up
        progress(f"{largest} workers: started in {start_up:.0f} s, checked, compiled and warm after {warm:.0f} s more")
        turns = {count: Turns(count, args.population) for count in args.workers}
        spent, rows = 0.0, []
        while spent < args.seconds or len(turns[largest].seconds) < args.least:
            place = len(turns[largest].seconds) % 63 * args.population
            for one in turns.values():
                with only(pool, one.count):
                    spent += one.add(*work(drawn[place : place + args.population], together))
            common = {"start_up_seconds": start_up, "warm_up_seconds": warm, "ranks": ranks,
                      "memory_gib": pool.memory_gib, "engine": pool.reason(questions) or "own layer loop"}  # fmt: skip
            rows = [one.row(turns[min(args.workers)]) | common for one in turns.values()]
            keep(rows)
            progress(", ".join(f"{one.count} workers {args.population / one.seconds[-1]:.3g}" for one in turns.values())
                     + f" candidates a second ({spent:.0f} of {args.seconds:.0f} s)")  # fmt: skip
        pool.close()
    return rows


@dataclass
class Turns:
    """Generations on one count of workers. seconds: of each. pieces: seconds of each piece of work."""

    count: int
    population: int
    seconds: list[float] = field(default_factory=list)
    pieces: list[float] = field(default_factory=list)

    def add(self, seconds: float, pieces: list[float]) -> float:
        """One more; its seconds."""
        self.seconds.append(seconds)
        self.pieces += pieces
        return seconds

    def row(self, first: Turns) -> dict[str, Any]:
        """of_linear: by turn, the rate over that of the smallest count, as many times larger as there are workers."""
        linear = [
            own * first.count / (mine * self.count) for own, mine in zip(first.seconds, self.seconds, strict=True)
        ]
        return {
            "workers": self.count,
            "candidates_per_second": spread([self.population / spent for spent in self.seconds]),
            "of_linear": spread(linear),
            "busy": sum(self.pieces) / (self.count * sum(self.seconds)),
            "unit_seconds": statistics.mean(self.pieces),
            "unit_spread": statistics.pstdev(self.pieces) / statistics.mean(self.pieces),
            "units_per_generation": len(self.pieces) / len(self.seconds),
            "generations": len(self.seconds),
        }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


@contextmanager
def only(pool: Any, count: int) -> Iterator[None]:
    """The first workers alone, while the others have nothing to do."""
    everyone = pool.members
    pool.members = everyone[:count]
    try:
        yield
    finally:
        pool.members = everyone


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
    name = args.shape or Path(args.model).name
    device = torch.device("cpu" if args.cpu else "cuda")
    content = {"model": name, "dtype": args.dtype, "prompts": len(prompts), "tokens": len(prompts[0].ids),
               "population": args.population, "gpus_per_worker": 0 if args.cpu else args.gpus_per_worker}  # fmt: skip

    def keep(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["prompts_per_second"] = row["candidates_per_second"]["median"] * len(prompts)
        whole = content | {"load_average": os.getloadavg()[0], "rows": rows}
        report("scaling", args.seed, device, whole, args.out)

    rows = measure(args, source, questions, keep)
    columns = ("workers", "candidates_per_second", "prompts_per_second", "of_linear", "busy", "unit_seconds")
    table(f"{name}: {len(prompts)} prompts of {len(prompts[0].ids)} tokens a candidate, generations of "
          f"{args.population}", [{column: row[column] for column in columns} for row in rows])  # fmt: skip


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
    parser.add_argument("--least", type=int, default=3, help="turns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--ranks", type=int, help="processes of a worker that share each weight; default: its GPUs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
