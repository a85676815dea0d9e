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
from pathlib import Path
from typing import Any

import numpy as np

from measure import device_of
from reporting import command, hardware, progress
from ropewalk.checkpoint import load_pretrained
from ropewalk.comparison import compare
from ropewalk.evaluate import Evaluator
from ropewalk.run import Examples, SearchPlan, search
from ropewalk.search import make_method, method_class
from ropewalk.search.space import SearchSpace
from ropewalk.search_plan import within_budget
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from search_arms import ARMS, CLAIMS, CONTROLS, Arm
from tables import markdown

TEST_SEED = 7_000_000  # apart from those of the searches: 0, 1, …


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

    def space(self, arm: Arm) -> SearchSpace:
        return SearchSpace(self.model.config.num_hidden_layers, **{**method_class(arm.method).SPACE, **arm.space})

    def plan(self, arm: Arm, seed: int, on: Examples) -> SearchPlan:
        """Our methods plan for their budget, the others go on until it is spent."""
        space, budget = self.space(arm), round(self.args.budget * arm.budget)

        def with_generations(generations: int) -> SearchPlan:
            method = make_method(arm.method, space, seed, **{"generations": generations, **arm.options})
            return SearchPlan(space, method, arm.objective, racing=arm.racing, at_once=self.args.at_once, budget=budget)

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
    arms = CLAIMS if args.arms == ["claims"] else args.arms
    jobs = [(name, seed) for seed in range(args.seeds) for name in arms][shard::shards]
    done = {(row["arm"], row["seed"]) for row in read([args.out])}
    bench = Bench(args)
    head = {
        "model": args.model.name, "keys": args.keys, "positions": args.positions, "budget": args.budget,
        "test_records": args.test, "prompt": "chat" if args.chat_template else "bare", "command": command(),
        "hardware": hardware(bench.device),
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


def setting_of(row: dict[str, Any]) -> tuple[str, int, int, str]:
    """Model, keys, budget and prompt; runs of an earlier version had the bare prompt."""
    return row["model"], row["keys"], row["budget"], row.get("prompt", "bare")


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: a table for each model, number of keys and budget."""
    parts = []
    for setting in dict.fromkeys(map(setting_of, rows)):
        own = [row for row in rows if setting_of(row) == setting]
        vanilla = 100 * np.array(own[0]["vanilla"])
        by_position = " ".join(f"{value:.0f}" for value in vanilla)
        model, keys, budget, prompt = setting
        chat = ", chat template" if prompt == "chat" else ""
        title = f"**{model}, {keys} keys{chat}, {budget:,} evaluations.** "
        parts.append(f"{title}Vanilla: {by_position}, average {vanilla.mean():.1f}.\n\n{markdown(summary(own))}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run")
    runs.add_argument("--model", type=Path, required=True)
    runs.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    runs.add_argument("--studies", type=Path, default=Path("runs/search_efficiency"))
    runs.add_argument("--arms", nargs="+", choices=[*ARMS, "claims"], default=list(CONTROLS),
                      help="claims: those of reproduce/claims.py")  # fmt: skip
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
