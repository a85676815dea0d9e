"""What 1 to 512 workers give for a whole search, by simulation from measured figures.

    python benchmarks/scaling_simulation.py --prompts-per-second 34.7 --out scaling-simulation.json
    python benchmarks/scaling_simulation.py --check scaling-7b.json

Pieces of work (a candidate, or `--together` of them, on a block of its prompts) are handed to whoever is free first, as
`ropewalk.workers.pool` does; a generation begins when the one before is scored, and the driver needs `--between`
seconds for it (measured, unless given). A piece takes its prompts over the rate of a GPU, spread by `--spread`
(lognormal), and `--hand-out` seconds of the driver, which hands out one after another. Start-up is counted once. Racing
is left out: it makes the work less, and the pieces smaller. `--check` puts the measured pieces of `scaling.py` in,
prints the costs that they give, and compares its rates with the simulated ones.
"""

from __future__ import annotations

import argparse
import heapq
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from reporting import report, table
from ropewalk.search import make_method
from ropewalk.search.space import SearchSpace
from ropewalk.study import CandidateRecord, open_study

WORKERS = (1, 2, 4, 8, 16, 64, 128, 512)


@dataclass(frozen=True)
class Search:
    """population candidates a generation; blocks of a group of candidates, each of `seconds` on one worker."""

    name: str
    population: int
    generations: int
    blocks: int
    seconds: float
    together: int = 1

    @property
    def candidates(self) -> int:
        return self.population * self.generations


@dataclass(frozen=True)
class Costs:
    """Seconds: of the driver for a piece of work, between generations, to start up. spread: of pieces, relative."""

    hand_out: float
    between: float
    start_up: float
    spread: float


def search_seconds(search: Search, costs: Costs, workers: int, rng: np.random.Generator) -> float:
    """All generations, without the start-up."""
    return sum(_generation(search, costs, workers, rng) + costs.between for _ in range(search.generations))


def _generation(search: Search, costs: Costs, workers: int, rng: np.random.Generator) -> float:
    """Until the last piece is done: each goes to the worker that is free first, once the driver gets round to it."""
    groups = -(-search.population // search.together)
    sigma = np.sqrt(np.log1p(costs.spread**2))
    pieces = search.seconds * rng.lognormal(-(sigma**2) / 2, sigma, groups * search.blocks)
    free = [0.0] * workers
    driver = 0.0
    for seconds in pieces:
        driver = max(driver, free[0]) + costs.hand_out
        heapq.heapreplace(free, driver + seconds)
    return max(free)


def rows_of(search: Search, costs: Costs, seed: int) -> list[dict[str, Any]]:
    """By the number of workers: the search's time, its share of linear, and what a candidate costs."""
    rows = []
    alone = 0.0
    for workers in WORKERS:
        spent = search_seconds(search, costs, workers, np.random.default_rng([seed, workers]))
        alone = alone or spent
        whole = spent + costs.start_up
        rows.append({
            "workers": workers,
            "candidates/s": search.candidates / spent,
            "of linear": alone / spent / workers,
            "minutes": whole / 60,
            "GPU hours": whole * workers / 3600,
        })  # fmt: skip
    return rows


def searches(args: argparse.Namespace) -> list[Search]:
    """The paper's search, ours, and ours with larger generations, at the measured rate.

    A block holds as many prompts as 65,536 tokens do (`ropewalk.evaluate.BLOCK_TOKENS`).
    """
    block = max(1, 65_536 // (args.tokens * args.positions)) * args.positions
    second = args.prompts_per_second
    paper_blocks = -(-200 // block)
    one_record = args.positions / second
    ours = Search("default: 40 x 64, 1 record each", 64, 40, 1, args.together * one_record, args.together)
    return [
        Search("paper: 418 candidates x 200 prompts", 38, 11, paper_blocks, 200 / paper_blocks / second),
        ours,
        replace(ours, name="default, 1 candidate a piece", together=1, seconds=one_record),
        Search("default: 10 x 256, 1 record each", 256, 10, 1, one_record),
        Search("24 records each: 10 x 64", 64, 10, -(-24 * args.positions // block),
               24 * one_record / -(-24 * args.positions // block)),
    ]  # fmt: skip


def driver_seconds(seed: int, generations: int = 6) -> float:
    """What a generation of our method takes without any scoring: asking, writing 64 records, learning (32 layers)."""
    space = SearchSpace(32, low=0.7, high=1.35)
    method, rng = make_method("default", space, seed), np.random.default_rng(seed)
    with TemporaryDirectory() as folder, open_study(Path(folder), {"benchmark": "scaling"}) as study:
        started = time.perf_counter()
        for generation in range(generations):
            members = method.ask()
            scores = rng.normal(size=len(members)).tolist()
            for slot, (member, score) in enumerate(zip(members, scores, strict=True)):
                study.add(CandidateRecord(generation, slot, member, score, prompts=5))
            method.tell(members, scores)
        return (time.perf_counter() - started) / generations


def check(path: Path, seed: int) -> list[dict[str, Any]]:
    """Measured rates beside those that come out of the measured pieces of the smallest number of workers.

    A hand-out is the time of a worker between two pieces, when no other one is waited for: with one worker alone.
    """
    measured = json.loads(path.read_text())
    first = measured["rows"][0]
    pieces = round(first["units_per_generation"])
    hand_out = first["unit_seconds"] * (1 / first["busy"] - 1)
    costs = Costs(hand_out, 0.0, first["start_up_seconds"] + first["warm_up_seconds"], first["unit_spread"])
    print(f"measured with {first['workers']} workers, seconds: {costs}")
    search, rows = Search("measured", pieces, 20, 1, first["unit_seconds"]), []
    for row in measured["rows"]:
        spent = search_seconds(search, costs, row["workers"], np.random.default_rng(seed)) / search.generations
        found = row["candidates_per_second"]["median"]
        rows.append({"workers": row["workers"], "measured": found, "simulated": measured["population"] / spent})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulates searches on many workers.")
    parser.add_argument("--prompts-per-second", type=float, help="of one GPU: candidate·prompt evaluations")
    parser.add_argument("--tokens", type=int, default=1600)
    parser.add_argument("--positions", type=int, default=5)
    parser.add_argument("--together", type=int, default=4)
    # The defaults are what --check prints of results/scaling-7b-h200.json.
    parser.add_argument("--spread", type=float, default=0.027)
    parser.add_argument("--hand-out", type=float, default=0.0045)
    parser.add_argument("--between", type=float, help="seconds; default: measured here, see driver_seconds")
    parser.add_argument("--start-up", type=float, default=36.0)
    parser.add_argument("--check", type=Path, help="a report of scaling.py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.check is not None:
        table("simulated beside measured, candidates a second", check(args.check, args.seed))
        return
    if args.prompts_per_second is None:
        parser.error("give --prompts-per-second, as paper_search.py measures it, or --check")
    if args.between is None:
        args.between = driver_seconds(args.seed)
        print(f"the driver's own work between two generations of 64: {args.between:.3g} s")
    costs = Costs(args.hand_out, args.between, args.start_up, args.spread)
    found = {search.name: rows_of(search, costs, args.seed) for search in searches(args)}
    for name, rows in found.items():
        table(name, rows)
    assumed = {name: value for name, value in vars(args).items() if name not in ("out", "check")}
    report("scaling-simulation", args.seed, torch.device("cpu"), {"assumed": assumed, "searches": found}, args.out)


if __name__ == "__main__":
    main()
