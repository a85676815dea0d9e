"""Which setting should `ropewalk demo` use? A sweep over keys, positions, objective, bounds and the search's shape.

    python benchmarks/demo_setting.py run --model DIR --out sweep.jsonl [--shard 0/4] [--stage neighbours|confirm|large]
    python benchmarks/demo_setting.py table sweep.jsonl
    python benchmarks/demo_setting.py factors sweep.jsonl --model DIR --out FILE   # the best of stage large

Every setting costs at most BUDGET tokens, test included, which is what two CPU cores score in the demo's time; tokens
that the prompts of a record share count once, as in the engine. The gain of the factors a search finds is measured on
200 validation records; the demo's own seed and its test records take no part in the choice. `power` is the chance that
a test on the demo's number of records finds the paired gain in log-likelihood significant (two-sided, p < 0.05),
from the gain's mean and spread over the validation records.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from ropewalk.checkpoint import load_pretrained
from ropewalk.evaluate import Evaluator
from ropewalk.identity import base_scheme, model_identity
from ropewalk.objectives import Part, Scores, utilisation
from ropewalk.prompts import PromptRenderer
from ropewalk.results import TaskResult
from ropewalk.search.bezier_ga import BezierGA
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

BUDGET = 340_000  # tokens in the demo, all stages
VALIDATION_RECORDS = 200
VALIDATION_SEED = 1000
SEEDS = {"neighbours": range(200, 205), "confirm": range(300, 310), "large": range(400, 402)}


@dataclass(frozen=True)
class Setting:
    """One way to run the demo."""

    keys: int = 4
    positions: int = 4
    search_records: int = 14
    test_records: int = 80
    measure: str = "likelihood"
    weights: tuple[float, ...] = (0.8, 1.0, 1.2)
    low: float = 0.8
    high: float = 1.2
    step: float = 0.05
    radius: float = 0.1
    initial_probability: float = 1.0
    population: int = 12
    children: int = 6
    parents: int = 4
    num_points: int = 4
    skip_first: int = 0
    chat_template: bool = False
    generations: int | None = None  # None: as many as the budget allows

    def candidates(self, tokens_per_record: float) -> int:
        """Candidates that fit the budget beside vanilla, uniform and found factors on the test records."""
        return int((BUDGET / tokens_per_record - 3 * self.test_records) / self.search_records)


def neighbours() -> list[Setting]:
    """The starting point and its neighbours, one change at a time."""
    changes: list[dict] = [
        {},
        {"search_records": 8},
        {"search_records": 20, "test_records": 60},
        {"test_records": 60},
        {"low": 0.85, "high": 1.15},
        {"high": 1.1},
        {"low": 0.7, "high": 1.3, "radius": 0.2},
        {"radius": 0.2},
        {"weights": (1.0, 1.0, 1.0)},
        {"weights": (0.5, 1.0, 1.5)},
        {"measure": "accuracy"},
        {"keys": 3, "positions": 3},
        {"keys": 5, "positions": 5},
        {"keys": 6, "positions": 3},
        {"keys": 10, "positions": 5, "test_records": 40, "search_records": 8},
        {"num_points": 3},
        {"skip_first": 2},
        {"population": 40},
    ]
    return [replace(Setting(), **change) for change in changes]


def large(best: Setting) -> list[Setting]:
    """The same task with about ten times the budget, to see what there is to be found."""
    return [replace(best, search_records=50, population=24, parents=8, children=16, generations=6)]


class Bench:
    """One model, with the evaluators that settings share."""

    def __init__(self, path: str) -> None:
        self.model, self.tokenizer = load_pretrained(path)
        self.layers = self.model.config.num_hidden_layers
        self._validation: dict[tuple[int, int, bool], tuple[Evaluator, TaskResult]] = {}

    def evaluator(self, setting: Setting, split: str, records: int, seed: int) -> Evaluator:
        options = TaskOptions(positions=setting.positions, keys=setting.keys, limit=records, seed=seed)
        task = make_task("kv", options)
        examples = task.examples(split)  # type: ignore[arg-type]
        return Evaluator(self.model, self.tokenizer, task, examples, chat_template=setting.chat_template)

    def validation(self, setting: Setting) -> tuple[Evaluator, TaskResult]:
        key = (setting.keys, setting.positions, setting.chat_template)
        if key not in self._validation:
            evaluator = self.evaluator(setting, "validation", VALIDATION_RECORDS, VALIDATION_SEED)
            self._validation[key] = (evaluator, evaluator.score(None))
        return self._validation[key]

    def tokens_per_record(self, setting: Setting, evaluator: Evaluator) -> float:
        """Tokens the engine runs for a record, its prompts' common prefix once; over the first ten records."""
        renderer = PromptRenderer(self.tokenizer, chat_template=setting.chat_template)
        groups: dict[str, list[tuple[int, ...]]] = {}
        for example in evaluator.examples[: 10 * setting.positions]:
            groups.setdefault(example.record, []).append(renderer.render(example).ids)
        costs = []
        for prompts in groups.values():
            same = [len(set(column)) == 1 for column in zip(*prompts, strict=False)]
            common = [*same, False].index(False)
            costs.append(common + sum(len(ids) - common for ids in prompts))
        return float(np.mean(costs))

    def run(self, setting: Setting, seed: int) -> dict[str, object]:
        validation, vanilla = self.validation(setting)
        search = self.evaluator(setting, "search", setting.search_records, seed)
        space = SearchSpace(
            self.layers, None, setting.skip_first, setting.num_points, setting.low, setting.high, setting.step
        )
        candidates = setting.candidates(self.tokens_per_record(setting, search))
        population = min(setting.population, max(candidates, 2))
        generations = setting.generations or 1 + max(0, (candidates - population) // setting.children)
        half = setting.children // 2
        method = BezierGA(
            space, seed, population=population, parents=setting.parents, mutations=setting.children - half,
            crossovers=half, generations=generations, radius=setting.radius,
            initial_probability=setting.initial_probability,
        )  # fmt: skip
        part = Part(setting.measure, weights=setting.weights)  # type: ignore[arg-type]
        baseline = scores_of(search.score(None))
        started, told = time.perf_counter(), []
        while asked := method.ask():
            scores = [part.value(scores_of(search.score(space.factors(candidate))), baseline) for candidate in asked]
            method.tell(asked, scores)
            told += list(zip(scores, asked, strict=True))
        fitness, best = max(told, key=lambda pair: pair[0])
        factors = space.factors(best)
        found, uniform = validation.score(factors), validation.score(factors.matched_uniform())
        gain = found.log_likelihoods - vanilla.log_likelihoods
        mean, objective_gain = gain.mean(axis=1), utilisation(gain, setting.weights)
        return {
            "setting": asdict(setting),
            "seed": seed,
            "candidates": len(told),
            "seconds": time.perf_counter() - started,
            "control_points": best.control_points,
            "fitness": fitness,
            "gain": float(mean.mean()),
            "power": power(mean, setting.test_records),
            "power_objective": power(objective_gain, setting.test_records),
            "over_uniform": float((found.log_likelihoods - uniform.log_likelihoods).mean()),
            "vanilla": vanilla.accuracy.tolist(),
            "uniform": uniform.accuracy.tolist(),
            "found": found.accuracy.tolist(),
        }


def scores_of(result: TaskResult) -> Scores:
    return Scores(result.scores, result.log_likelihoods)


def power(gain: np.ndarray, records: int) -> float:
    """Chance that the mean of that many draws of `gain` is significantly above 0."""
    spread = gain.std(ddof=1)
    return float(ndtr(gain.mean() / spread * np.sqrt(records) - 1.96)) if spread > 0 else 0.0


def read(paths: list[str]) -> list[dict]:
    return [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]


def ranking(rows: list[dict]) -> list[tuple[Setting, list[dict]]]:
    """Settings with their runs, the best first: by mean power, then by gain."""
    groups: dict[Setting, list[dict]] = {}
    for row in rows:
        content = row["setting"] | {"weights": tuple(row["setting"]["weights"])}
        groups.setdefault(Setting(**content), []).append(row)
    return sorted(
        groups.items(),
        key=lambda group: (-np.mean([row["power"] for row in group[1]]), -np.mean([row["gain"] for row in group[1]])),
    )


def table(paths: list[str]) -> None:
    print("power  U-power  gain     worst    >uniform accuracy     n  candidates, what differs from Setting()")
    default = asdict(Setting())
    for setting, rows in ranking(read(paths)):
        mean = {name: float(np.mean([row[name] for row in rows])) for name in ("power", "power_objective", "gain")}
        over, worst = np.mean([row["over_uniform"] for row in rows]), min(row["gain"] for row in rows)
        before, after = (100 * np.mean([row[name] for row in rows]) for name in ("vanilla", "found"))
        changed = {name: value for name, value in asdict(setting).items() if value != default[name]}
        print(
            f"{mean['power']:5.2f} {mean['power_objective']:7.2f} {mean['gain']:8.4f} {worst:8.4f} {over:8.4f} "
            f"{before:5.1f} {after:5.1f} {len(rows):4d} {rows[0]['candidates']:4d} {changed}"
        )


def save_factors(paths: list[str], model_path: str, out: str) -> None:
    """The factors of the larger search with the highest validation gain, with where they come from."""
    rows = [row for row in read(paths) if row.get("stage") == "large"]
    best = max(rows, key=lambda row: row["gain"])
    setting = Setting(**best["setting"] | {"weights": tuple(best["setting"]["weights"])})
    model, _ = load_pretrained(model_path)
    space = SearchSpace(
        model.config.num_hidden_layers, None, setting.skip_first, setting.num_points, setting.low, setting.high
    )
    points = tuple((float(x), float(y)) for x, y in best["control_points"])
    evaluations = (best["candidates"] + 1) * setting.search_records * setting.positions
    found = {
        "control_points": best["control_points"],
        "fitness": best["fitness"],
        "evaluations": evaluations,
        "search": {"task": "kv", "keys": setting.keys, "positions": setting.positions, "seed": best["seed"]},
        "method": {"method": BezierGA.name, "seed": best["seed"], "space": space.settings()},
        "validation": {"records": VALIDATION_RECORDS, "seed": VALIDATION_SEED, "gain": best["gain"]},
        "device_type": "cuda",
    }
    factors = space.factors(Candidate(points))
    factors.with_provenance(model=model_identity(model), base=base_scheme(model), found=found).save(out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["run", "table", "factors"])
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--model")
    parser.add_argument("--out")
    parser.add_argument("--stage", default="neighbours", choices=list(SEEDS))
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--from", dest="earlier", nargs="*", default=[], help="files of the first stage")
    args = parser.parse_args()
    if args.verb == "table":
        table(args.paths)
        return
    if args.verb == "factors":
        save_factors(args.paths, args.model, args.out)
        return
    if args.stage == "neighbours":
        settings = neighbours()
    else:
        best = ranking(read(args.earlier))[0][0]
        settings = [best] if args.stage == "confirm" else large(best)
    jobs = [(setting, seed) for setting in settings for seed in SEEDS[args.stage]]
    shard, shards = map(int, args.shard.split("/"))
    out = Path(args.out)
    done = {json.dumps([row["setting"], row["seed"]]) for row in (read([args.out]) if out.exists() else [])}
    bench = Bench(args.model)
    for setting, seed in jobs[shard::shards]:
        if json.dumps([asdict(setting), seed]) in done:
            continue
        row = bench.run(setting, seed)
        with out.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(
            f"{seed} {row['gain']:.4f} {row['power']:.2f} {row['seconds']:.1f}s {setting}", file=sys.stderr, flush=True
        )


if __name__ == "__main__":
    main()
