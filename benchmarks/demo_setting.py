"""Which setting should `ropewalk demo` use? A sweep over keys, positions, objective, bounds and the search's shape.

    python benchmarks/demo_setting.py run --model DIR --out sweep.jsonl [--shard 0/4] [--stage coarse|around|confirm]
    python benchmarks/demo_setting.py table sweep.jsonl

Every setting costs at most BUDGET prompt tokens, test included, which is what two CPU cores score in the demo's time.
The gain of the factors a search finds is measured on 160 validation records that the search has not seen; the demo's
own seed and its test records take no part in the choice. `power` is the share of blocks of the demo's test size in
which the paired gain in log-likelihood is significant (p < 0.05), over all seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ropewalk import stats
from ropewalk.checkpoint import load_pretrained
from ropewalk.evaluate import Evaluator
from ropewalk.objectives import Utilisation
from ropewalk.results import TaskResult
from ropewalk.search.bezier_ga import BezierGA
from ropewalk.search.space import SearchSpace
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

BUDGET = 550_000  # prompt tokens in the demo, all stages
VALIDATION_RECORDS = 160
VALIDATION_SEED = 1000
SEEDS = {"coarse": range(100, 103), "around": range(200, 203), "confirm": range(300, 310), "large": range(400, 403)}


@dataclass(frozen=True)
class Setting:
    """One way to run the demo."""

    keys: int = 6
    positions: int = 3
    search_records: int = 8
    test_records: int = 30
    measure: str = "likelihood"
    weights: tuple[float, ...] = (0.8, 1.0, 1.2)
    low: float = 0.8
    high: float = 1.3
    radius: float = 0.2
    population: int = 12
    children: int = 8
    parents: int = 4
    num_points: int = 4
    skip_first: int = 0
    plain: bool = True
    generations: int | None = None  # None: as many as the budget allows

    def candidates(self, tokens_per_prompt: float) -> int:
        """Candidates that fit the budget beside vanilla, uniform and found factors on the test records."""
        prompts = BUDGET / tokens_per_prompt - 3 * self.test_records * self.positions
        return int(prompts / (self.search_records * self.positions))


def coarse() -> list[Setting]:
    """A grid over what should matter most."""
    shapes = [(4, 8, 40), (6, 8, 30), (8, 6, 24), (10, 6, 20), (14, 4, 14)]
    return [
        Setting(keys, 3, records, test, low=0.7, high=1.3, plain=plain)
        for (keys, records, test), plain in itertools.product(shapes, [True, False])
    ]


def around(best: Setting) -> list[Setting]:
    """The best setting so far and its neighbours, one change at a time."""
    changes = [
        {},
        {"measure": "accuracy"},
        {"num_points": 3},
        {"num_points": 6},
        {"skip_first": 2},
        {"plain": not best.plain},
        {"population": 20},
        {"population": 8, "children": 6},
        {"parents": 2},
        {"children": 4},
        {"search_records": best.search_records // 2},
        {"search_records": best.search_records * 2},
        {"weights": (1.0, 1.0, 1.0)},
        {"weights": (0.5, 1.0, 1.5)},
        {"low": 0.9, "high": 1.1},
        {"low": 0.6, "high": 1.5},
        {"radius": 0.15},
        {"radius": 0.5},
    ]
    return [replace(best, **change) for change in changes]


def large(best: Setting) -> list[Setting]:
    """The same task with the paper's budget, to see what there is to be found."""
    return [replace(best, search_records=40, population=32, parents=16, children=32, generations=20)]


class Bench:
    """One model, with the evaluators that settings share."""

    def __init__(self, path: str) -> None:
        self.model, self.tokenizer = load_pretrained(path)
        self.template = self.tokenizer.chat_template
        self.layers = self.model.config.num_hidden_layers
        self._validation: dict[tuple[int, int, bool], tuple[Evaluator, TaskResult]] = {}

    def evaluator(self, setting: Setting, split: str, records: int, seed: int) -> Evaluator:
        self.tokenizer.chat_template = None if setting.plain else self.template
        options = TaskOptions(positions=setting.positions, keys=setting.keys, limit=records, seed=seed)
        task = make_task("kv", options)
        return Evaluator(self.model, self.tokenizer, task, task.examples(split))  # type: ignore[arg-type]

    def validation(self, setting: Setting) -> tuple[Evaluator, TaskResult]:
        key = (setting.keys, setting.positions, setting.plain)
        if key not in self._validation:
            evaluator = self.evaluator(setting, "validation", VALIDATION_RECORDS, VALIDATION_SEED)
            self._validation[key] = (evaluator, evaluator.score(None))
        return self._validation[key]

    def run(self, setting: Setting, seed: int) -> dict[str, object]:
        validation, vanilla = self.validation(setting)
        search = self.evaluator(setting, "search", setting.search_records, seed)
        space = SearchSpace(
            self.layers, None, setting.skip_first, setting.num_points, setting.low, setting.high, mode="depth"
        )
        tokens = search.prompt_tokens / len(search.examples)
        candidates = setting.candidates(tokens)
        generations = setting.generations or 1 + max(0, (candidates - setting.population) // setting.children)
        half = setting.children // 2
        method = BezierGA(
            space, seed, population=min(setting.population, max(candidates, 2)), parents=setting.parents,
            mutations=setting.children - half, crossovers=half, generations=generations, radius=setting.radius,
        )  # fmt: skip
        objective = Utilisation(setting.measure, setting.weights)  # type: ignore[arg-type]
        baseline = search.score(None)
        started, told = time.perf_counter(), []
        while asked := method.ask():
            results = [search.score(space.factors(candidate)) for candidate in asked]
            scores = [objective.fitness(r.verdicts, r.log_likelihoods, baseline.log_likelihoods) for r in results]
            method.tell(asked, scores)
            told += list(zip(scores, asked, strict=True))
        fitness, best = max(told, key=lambda pair: pair[0])
        factors = space.factors(best)
        found, uniform = validation.score(factors), validation.score(factors.matched_uniform())
        gain = (found.log_likelihoods - vanilla.log_likelihoods).mean(axis=1)
        return {
            "setting": asdict(setting),
            "seed": seed,
            "candidates": len(told),
            "seconds": time.perf_counter() - started,
            "control_points": best.control_points,
            "fitness": fitness,
            "gain": gain.mean(),
            "power": power(gain, setting.test_records),
            "over_uniform": float((found.log_likelihoods - uniform.log_likelihoods).mean()),
            "power_over_uniform": power(
                (found.log_likelihoods - uniform.log_likelihoods).mean(axis=1), setting.test_records
            ),
            "vanilla": vanilla.accuracy.tolist(),
            "uniform": uniform.accuracy.tolist(),
            "found": found.accuracy.tolist(),
        }


def power(gain: np.ndarray, block: int) -> float:
    """Share of disjoint blocks of `block` records whose mean gain is positive with p < 0.05."""
    blocks = [gain[start : start + block] for start in range(0, len(gain) - block + 1, block)]
    tests = [
        stats.paired_bootstrap(np.zeros((block, 1)), part[:, None], lambda mean: mean.mean(axis=-1), resamples=1000)
        for part in blocks
    ]
    return float(np.mean([test.p_value < 0.05 and test.difference > 0 for test in tests]))


def read(paths: list[str]) -> list[dict]:
    return [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]


def ranking(rows: list[dict]) -> list[tuple[Setting, list[dict]]]:
    """Settings with their runs, the best first: by power, then by gain."""
    groups: dict[Setting, list[dict]] = {}
    for row in rows:
        content = row["setting"] | {"weights": tuple(row["setting"]["weights"])}
        groups.setdefault(Setting(**content), []).append(row)
    return sorted(
        groups.items(),
        key=lambda group: (-np.mean([row["power"] for row in group[1]]), -np.mean([row["gain"] for row in group[1]])),
    )


def table(paths: list[str], top: int = 25) -> None:
    print(
        f"{'power':>6} {'gain':>8} {'min':>8} {'>unif':>8} {'pw>u':>5} {'accuracy':>11} {'n':>4}  other than Setting()"
    )
    default = asdict(Setting())
    for setting, rows in ranking(read(paths))[:top]:
        mean = {name: float(np.mean([row[name] for row in rows])) for name in ("power", "gain", "over_uniform")}
        before, after = (100 * np.mean([row[name] for row in rows]) for name in ("vanilla", "found"))
        changed = {name: value for name, value in asdict(setting).items() if value != default[name]}
        print(
            f"{mean['power']:6.2f} {mean['gain']:8.4f} {min(row['gain'] for row in rows):8.4f} "
            f"{mean['over_uniform']:8.4f} {np.mean([row['power_over_uniform'] for row in rows]):5.2f} "
            f"{before:5.1f} {after:5.1f} {rows[0]['candidates']:4d}  {changed}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["run", "table"])
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--model")
    parser.add_argument("--out")
    parser.add_argument("--stage", default="coarse", choices=list(SEEDS))
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--from", dest="earlier", nargs="*", default=[], help="files of an earlier stage")
    args = parser.parse_args()
    if args.verb == "table":
        table(args.paths)
        return
    if args.stage == "coarse":
        settings = coarse()
    else:
        best = ranking(read(args.earlier))[0][0]
        settings = {"around": around, "confirm": lambda one: [one], "large": large}[args.stage](best)
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
