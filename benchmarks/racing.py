"""Does the paper's search with racing find the same winner, and how many evaluations does it save? On a real model.

    python benchmarks/racing.py --model DIR --keys 10 --seeds 2 --out racing.json
    python benchmarks/paper_search.py --racing racing.json --out paper_search.json    # what that is in minutes at 7B

The arms "paper, whole" and "paper, whole, racing" of search_efficiency.py: 418 candidates on 40 kv records at 5
positions, accuracy as fitness, the same seed, so the two go apart only where racing stopped one that would have become
a parent. Winner: the fittest on the search records. Where the two winners differ they are compared, paired, on test
records that no search saw. The schedule, which paper_search.py times, is what the raced search really scored: how many
candidates together on which records.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reporting import progress, report, table
from ropewalk.comparison import compare
from ropewalk.factors import ScalingFactors
from ropewalk.race import stages
from ropewalk.report.history import read_history
from ropewalk.study import CandidateRecord
from search_arms import ARMS
from search_efficiency import Bench

PAIRS = {
    "paper": ("paper, whole", "paper, whole, racing"),
    "paper, our bounds": ("paper, our bounds, whole", "paper, our bounds, whole, racing"),
}
Call = tuple[int, int, int]  # candidates that were scored together, from which record to which


def schedule(records: Iterable[CandidateRecord], available: int, at_once: int) -> list[Call]:
    """The calls that a search of one task made: groups of a generation, those still in the race on each stage."""
    generations: dict[int, list[CandidateRecord]] = {}
    for record in records:
        generations.setdefault(record.generation, []).append(record)
    calls: list[Call] = []
    for generation in sorted(generations):
        members = sorted(generations[generation], key=lambda record: record.slot)
        # A race needs a rival: in a generation without one nobody was stopped, and all was scored in one call.
        raced = generation > 0
        parts = stages((tuple(range(available)),)) if raced else [(tuple(range(available)),)]
        for start in range(0, len(members), at_once):
            group = [record for record in members[start : start + at_once] if record.prompts > 0 and record.rows]
            for (rows,) in parts:
                alive = sum(len(record.rows[0]) > rows[0] for record in group)
                if alive:
                    calls.append((alive, rows[0], rows[-1] + 1))
    return calls


def searched(bench: Bench, name: str, seed: int) -> dict[str, Any]:
    """One search, or what its study holds already: its row, its winner on the search records, its calls."""
    row = bench.run(name, seed)
    history = read_history(bench.args.studies / f"{name.replace(' ', '-')}-{seed}" / "study.db")
    whole = [record for record in history.search if not record.failed and not record.stopped]
    best = max(sorted(whole, key=lambda record: (record.generation, record.slot)), key=lambda record: record.fitness)
    space = bench.space(ARMS[name])
    return {
        "evaluations": row["evaluations"], "candidates": row["candidates"], "stopped": row["stopped"],
        "seconds": row["seconds"], "fitness": best.fitness, "born": [best.generation, best.slot],
        "factors": space.factors(best.candidate).values, "after_validation": row["factors"],
        "calls": schedule(history.search, ARMS[name].records, bench.args.at_once),
    }  # fmt: skip


def pair(bench: Bench, kind: str, seed: int) -> dict[str, Any]:
    """Both searches of one seed, side by side."""
    whole, raced = (searched(bench, name, seed) for name in PAIRS[kind])
    found: dict[str, Any] = {
        "kind": kind, "seed": seed, "whole": whole, "raced": raced,
        "evaluations_left": raced["evaluations"] / whole["evaluations"],
        "same_winner": whole["factors"] == raced["factors"],
        "same_after_validation": whole["after_validation"] == raced["after_validation"],
    }  # fmt: skip
    results = [bench.test.score(ScalingFactors(arm["factors"])) for arm in (whole, raced)]
    gain = compare(results[0], results[1])
    found["raced_over_whole"] = {name: gain[name] for name in ("average", "utilisation", "worst")}
    progress(
        f"{kind}, seed {seed}: {found['evaluations_left']:.3f} of the evaluations, "
        f"{'the same winner' if found['same_winner'] else 'another winner'}, {raced['stopped']} stopped"
    )
    return found


def show(pairs: list[dict[str, Any]]) -> None:
    rows = []
    for one in pairs:
        test = one["raced_over_whole"]["average"]
        rows.append({
            "search": one["kind"], "seed": one["seed"], "evaluations": one["whole"]["evaluations"],
            "with racing": one["raced"]["evaluations"], "left": one["evaluations_left"],
            "stopped": one["raced"]["stopped"], "same winner": "yes" if one["same_winner"] else "no",
            "fitness": one["whole"]["fitness"], "with racing, fitness": one["raced"]["fitness"],
            "points on test": "{difference:+.3f} ({low:+.3f} to {high:+.3f})".format(**test),
        })  # fmt: skip
    table("the paper's search without and with racing", rows)
    sizes = Counter((alive, stop - start) for one in pairs for alive, start, stop in one["raced"]["calls"])
    common = ", ".join(f"{alive} x {records}: {count}" for (alive, records), count in sizes.most_common(6))
    print(f"\ncalls with racing, candidates x records: {common}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=list(PAIRS), default=["paper"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--budget", type=int, default=20_000, help="as search_efficiency.py's; an arm takes 4.5 of it")
    parser.add_argument("--validation", type=int, default=24, help="records, each at every position")
    parser.add_argument("--test", type=int, default=200, help="records, each at every position")
    parser.add_argument("--at-once", type=int, default=16, help="candidates scored together")
    parser.add_argument("--studies", type=Path, default=Path("runs/racing"), help="a run that is there is continued")
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path, help="write the JSON report here, after each pair")
    args = parser.parse_args()
    args.positions, args.chat_template = 5, False
    bench = Bench(args)
    pairs: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        for kind in args.kinds:
            pairs.append(pair(bench, kind, seed))
            content = {"model": args.model.name, "keys": args.keys, "test_records": args.test, "pairs": pairs}
            report("racing", seed, bench.device, content, args.out)
    show(pairs)


if __name__ == "__main__":
    main()
