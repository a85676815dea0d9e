"""Which search finds better factors with fewer evaluations? Every method, and ours without each of its ingredients.

    python benchmarks/search_efficiency.py run --model DIR --out runs.jsonl [--arms default bezier-ga …] [--shard 0/4]
    python benchmarks/search_efficiency.py table runs.jsonl

kv retrieval with generated records. An arm is a method with its options and a budget of candidate·prompt evaluations,
which is the same counter for all: the baseline counts, the choice among finalists and the test do not. Every run
searches on records of its own seed, chooses among its finalists and the identity on `--validation` records, and is
tested on `--test` records that no search ever sees and that are the same for all runs. A run that is in the file is
not made again; one that was interrupted continues from its study.

`oracle` searches on the test records themselves, all of them in every generation: what these records have to give.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from measure import device_of
from reporting import command, hardware, progress
from ropewalk.checkpoint import load_pretrained
from ropewalk.comparison import compare
from ropewalk.evaluate import Evaluator
from ropewalk.objectives import Measure, Objective, Part
from ropewalk.run import Examples, SearchPlan, search
from ropewalk.search import make_method, method_class
from ropewalk.search.space import SearchSpace
from ropewalk.search_plan import within_budget
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from tables import markdown

TEST_SEED = 7_000_000  # apart from those of the searches: 0, 1, …
OUR_BOUNDS = {"low": 0.7, "high": 1.35, "mode": "depth", "skip_first": 0}
MANY = 10_000  # generations of a method that the budget ends


@dataclass(frozen=True)
class Arm:
    """A method and its circumstances. records: search records, each at every position. budget: a share of --budget."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    records: int = 16
    measure: Measure = "likelihood"
    racing: bool = False
    budget: float = 1.0
    on_test: bool = False


OURS = {"records": 96}
CLASSIC = {"generations": MANY}
WHOLE = {
    "population": 18,
    "parents": 12,
    "mutations": 16,
    "crossovers": 4,
    "mutation_probability": 0.4,
    "generations": 21,
}  # 418 candidates; on 40 records at 5 positions, the paper's whole search
WHOLE_OURS = WHOLE | {"initial_factor": 1.0}

ARMS: dict[str, Arm] = {
    "default": Arm("default", **OURS),
    "default, half": Arm("default", budget=0.5, **OURS),
    "default, quarter": Arm("default", budget=0.25, **OURS),
    "default, eighth": Arm("default", budget=0.125, **OURS),
    "smooth-cma": Arm("smooth-cma", **OURS),
    "paper": Arm("paper", CLASSIC, measure="accuracy", records=40),
    "paper, our bounds": Arm("paper", CLASSIC | {"initial_factor": 1.0}, OUR_BOUNDS, 40, "accuracy"),
    "paper, whole": Arm("paper", WHOLE, {}, 40, "accuracy", budget=4.5),
    "paper, whole, racing": Arm("paper", WHOLE, {}, 40, "accuracy", racing=True, budget=4.5),
    "paper, our bounds, whole": Arm("paper", WHOLE_OURS, OUR_BOUNDS, 40, "accuracy", budget=4.5),
    "paper, our bounds, whole, racing": Arm("paper", WHOLE_OURS, OUR_BOUNDS, 40, "accuracy", racing=True, budget=4.5),
    "bezier-ga": Arm("bezier-ga", CLASSIC),
    "bezier-ga, racing": Arm("bezier-ga", CLASSIC, records=40, racing=True),
    "bezier-ga, no racing": Arm("bezier-ga", CLASSIC, records=40),
    "layerwise-ga": Arm("layerwise-ga", CLASSIC),
    "layerwise-ga, our bounds": Arm("layerwise-ga", CLASSIC, OUR_BOUNDS),
    "cma-es": Arm("cma-es", CLASSIC),
    "tpe": Arm("tpe", CLASSIC),
    "random": Arm("random", CLASSIC),
    "uniform": Arm("uniform", CLASSIC),
    "line": Arm("line", CLASSIC),
    # Ours with one thing changed.
    "accuracy": Arm("default", measure="accuracy", **OURS),
    "factors from 1": Arm("default", space={"low": 1.0}, **OURS),
    "bounds 0.8 to 1.3": Arm("default", space={"low": 0.8, "high": 1.3}, **OURS),
    "bounds 0.6 to 1.5": Arm("default", space={"low": 0.6, "high": 1.5}, **OURS),
    "4 records": Arm("default", {"records": 4}, **OURS),
    "records unshared": Arm("default", {"share": 1}, **OURS),
    "records shared by 64": Arm("default", {"share": 64}, **OURS),
    "exploration 1": Arm("default", {"exploration": 1.0}, **OURS),
    "length 0.3": Arm("default", {"length": 0.3}, **OURS),
    "population 32": Arm("default", {"population": 32}, **OURS),
    "16 search records": Arm("default", records=16),
    "oracle": Arm("default", records=100, on_test=True),
}
CONTROLS = (
    "default", "smooth-cma", "paper", "paper, our bounds", "bezier-ga", "layerwise-ga", "cma-es", "tpe", "random",
    "uniform", "line",
)  # fmt: skip


class Bench:
    """One model and the records that every run is tested on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = device_of(args.device)
        self.model, self.tokenizer = load_pretrained(args.model, dtype="bfloat16", device=self.device)
        self.test = self.evaluator("test", args.test, TEST_SEED)
        self.vanilla = self.test.score(None)

    def evaluator(self, split: Any, records: int, seed: int, candidates: int = 1) -> Evaluator:
        options = TaskOptions(positions=self.args.positions, keys=self.args.keys, limit=records, seed=seed)
        task = make_task("kv", options)
        chat = self.args.chat_template
        return Evaluator(
            self.model, self.tokenizer, task, task.examples(split), chat_template=chat, candidates=candidates
        )

    def plan(self, arm: Arm, seed: int, on: Examples) -> SearchPlan:
        """Our methods plan for their budget, the others go on until it is spent."""
        layers, budget = self.model.config.num_hidden_layers, round(self.args.budget * arm.budget)
        space = SearchSpace(layers, **{**method_class(arm.method).SPACE, **arm.space})

        def with_generations(generations: int) -> SearchPlan:
            method = make_method(arm.method, space, seed, **{"generations": generations, **arm.options})
            objective = Objective((Part(arm.measure),))
            return SearchPlan(space, method, objective, racing=arm.racing, at_once=self.args.at_once, budget=budget)

        return within_budget(with_generations(1), on, None if "generations" in arm.options else with_generations)

    def run(self, name: str, seed: int) -> dict[str, Any]:
        arm, out = ARMS[name], self.args.studies / f"{name.replace(' ', '-')}-{seed}"
        candidates = self.args.budget // (arm.records * 5)
        where = ("test", self.args.test, TEST_SEED) if arm.on_test else ("search", arm.records, seed)
        on = Examples((self.evaluator(*where, candidates=candidates),))
        validation = Examples((self.evaluator("validation", self.args.validation, seed, candidates=5),))
        started = time.perf_counter()
        found = search(self.plan(arm, seed, on), on, None if arm.on_test else validation, out)
        seconds = time.perf_counter() - started
        result = self.test.score(found.factors)
        gain = compare(self.vanilla, result)
        return {
            "arm": name, "seed": seed, "evaluations": found.evaluations, "candidates": len(found.records),
            "stopped": found.stopped, "failed": found.failed, "seconds": seconds,
            "validation_evaluations": found.validation_evaluations, "fitness": found.fitness,
            "factors": found.factors.values, "accuracy": result.accuracy.tolist(),
            "vanilla": self.vanilla.accuracy.tolist(),
            "likelihood_gain": gain["utilisation_log_likelihood"], "accuracy_gain": gain["average"],
            "worst_gain": gain["worst"], "utilisation_gain": gain["utilisation"],
        }  # fmt: skip


def read(paths: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]


def run(args: argparse.Namespace) -> None:
    shard, shards = map(int, args.shard.split("/"))
    jobs = [(name, seed) for seed in range(args.seeds) for name in args.arms][shard::shards]
    done = {(row["arm"], row["seed"]) for row in read([args.out])}
    bench = Bench(args)
    head = {
        "model": args.model.name, "keys": args.keys, "positions": args.positions, "budget": args.budget,
        "test_records": args.test, "command": command(), "hardware": hardware(bench.device),
    }  # fmt: skip
    for name, seed in jobs:
        if (name, seed) in done:
            continue
        row = head | bench.run(name, seed)
        with args.out.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        progress(
            f"{name}, seed {seed}: {row['likelihood_gain']['difference']:+.4f} nats, "
            f"{100 * row['accuracy_gain']['difference']:+.1f} points, {row['evaluations']} evaluations, "
            f"{row['seconds']:.0f} s"
        )


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line an arm, the best first: means over seeds, with the lowest and highest where there are several."""
    arms = {name: [row for row in rows if row["arm"] == name] for name in dict.fromkeys(row["arm"] for row in rows)}
    gains = {name: [row["likelihood_gain"]["difference"] for row in own] for name, own in arms.items()}
    lines = []
    for name in sorted(arms, key=lambda name: -statistics.fmean(gains[name])):
        own = arms[name]
        accuracy = 100 * np.mean([row["accuracy"] for row in own], axis=0)
        evaluations = statistics.fmean(row["evaluations"] for row in own)
        lines.append({
            "arm": name, "seeds": len(own), "evaluations": f"{evaluations:,.0f}",
            "nats a token over vanilla": _range(gains[name], 4),
            "points": _range([100 * row["accuracy_gain"]["difference"] for row in own], 1),
            "accuracy by position": " ".join(f"{value:.0f}" for value in accuracy),
            "average": f"{accuracy.mean():.1f}",
        })  # fmt: skip
    return lines


def _range(values: list[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):+.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):+.{digits}f} to {max(values):+.{digits}f})"


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: a table for each model, number of keys and budget."""
    parts = []
    for setting in dict.fromkeys((row["model"], row["keys"], row["budget"]) for row in rows):
        own = [row for row in rows if (row["model"], row["keys"], row["budget"]) == setting]
        vanilla = 100 * np.array(own[0]["vanilla"])
        by_position = " ".join(f"{value:.0f}" for value in vanilla)
        model, keys, budget = setting
        title = f"**{model}, {keys} keys, {budget:,} evaluations.** "
        parts.append(f"{title}Vanilla: {by_position}, average {vanilla.mean():.1f}.\n\n{markdown(summary(own))}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run")
    runs.add_argument("--model", type=Path, required=True)
    runs.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    runs.add_argument("--studies", type=Path, default=Path("runs/search_efficiency"))
    runs.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(CONTROLS))
    runs.add_argument("--seeds", type=int, default=5)
    runs.add_argument("--keys", type=int, default=10)
    runs.add_argument("--positions", type=int, default=5)
    runs.add_argument("--budget", type=int, default=20_000, help="candidate·prompt evaluations of a search")
    runs.add_argument("--validation", type=int, default=48, help="records, each at every position")
    runs.add_argument("--test", type=int, default=200, help="records, each at every position")
    runs.add_argument("--chat-template", action="store_true", help="default: the bare completion prompt")
    runs.add_argument("--at-once", type=int, default=16, help="candidates scored together")
    runs.add_argument("--shard", default="0/1")
    runs.add_argument("--device")
    shown = verbs.add_parser("table")
    shown.add_argument("reports", nargs="+", type=Path)
    args = parser.parse_args()
    if args.verb == "run":
        run(args)
        return
    print(tables(read(args.reports)))


if __name__ == "__main__":
    main()
