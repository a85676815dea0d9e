"""Factors found on one task, tested once on official files: the quality rows, for one model.

    python benchmarks/reproduce/quality.py run --model Qwen/Qwen2.5-Coder-0.5B-Instruct --data FOLDER --out runs/quality
    python benchmarks/reproduce/quality.py report --out runs/quality --name qwen2.5-coder-0.5b-instruct --json FILE
    python benchmarks/reproduce/quality.py table FILE...

`run` does, for each of `--searches NAME:BUDGET:SEEDS`: search by method `default` with each of the search's recipes and
seeds (quality_settings.py); choose among all their finalists and vanilla on validation records; test the chosen factors
on official files, vanilla beside them. Then the same for best uniform, best line and the methods of `--rivals`. Nothing
is chosen on a test file. The rule of the choice: the largest mean gain of the metric on validation records among those
that lower neither the first nor the last position of kv there; where there is none such, the largest; vanilla if none
gains.

Every step leaves a file at once and is not made again: the same command continues, on another machine too (the JSON
files are enough; an interrupted search goes on from its study.db, where that was brought along). A test may be made on
another device than the search: each says on which. OUT/NAME/SEARCH/factors.json has the factors,
OUT/NAME/tests/TEST/ARM.json every example. `report` reads these files alone, needs no GPU, and lists what is missing of
all that was ever asked of OUT/NAME.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from quality_search import one_search, shown
from quality_settings import CONTROLS, RECIPES, Asked, Subject, arm_of, plan, searches
from steps import Json, kept

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the benchmarks share

from quality_report import quality_report, tables

import models
from measure import device_of
from reporting import progress
from ropewalk import files
from ropewalk.errors import DataError, RopewalkError
from ropewalk.evaluate import Evaluator
from ropewalk.events import OnEvent, Scored, Stage
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.provenance import provenance

SEARCH_VALIDATION = 48  # records on which a search ranks its own finalists, at most
TESTS = (
    "kv-75:200", "kv-75-bare:100", "short-perplexity", "short-choice", "perplexity:16", "kv-140:100", "mdqa-20:100",
    "mdqa-10:400", "needle:50",
)  # fmt: skip


class Quality:
    """All steps for one loaded model, under `out`."""

    def __init__(self, args: argparse.Namespace, subject: Subject, out: Path) -> None:
        self.args, self.subject, self.out = args, subject, out
        self.searches = searches(args.keys)
        self.identity = model_identity(subject.model)
        self._tests: dict[str, Evaluator | None] = {}

    # --- searches

    def found(self, name: str, recipe: str, method: str, seed: int, budget: int) -> Json:
        """One search: its winner and its finalists as factors, the best on its own validation records first."""
        task = self.searches[name]
        label = recipe if method == "default" else method
        folder = self.out / name / f"{label}-{seed}"
        asked = {
            "search": name, "recipe": recipe, "method": method, "seed": seed, "budget": budget,
            "control_budget": self.args.control_budget if method in CONTROLS else None, "records": self.args.records,
            "validation": min(SEARCH_VALIDATION, self.args.validation),
            "keys": self.args.keys, "chat": self.subject.chat, "model": self.identity["fingerprint"],
        }  # fmt: skip
        make = partial(one_search, self.subject, task, RECIPES[recipe], asked, folder)
        return kept(folder / "found.json", asked, make)

    # --- the choice on validation records

    def choose(self, name: str, budget: int, seeds: int) -> None:
        """Run the searches, then choose among their finalists, and means of their winners, and vanilla."""
        recipes = self.searches[name].recipes
        share = {recipe: RECIPES[recipe].budget for recipe in recipes}
        runs = {(recipe, seed): self.found(name, recipe, "default", seed, round(share[recipe] * budget))
                for seed in range(seeds) for recipe in recipes}  # fmt: skip
        few = any(task == "mdqa" for task in self.searches[name].tasks)  # generated answers cost more: winners alone
        pool = {
            f"{recipe}, seed {seed}, finalist {number}": values
            for (recipe, seed), run in runs.items()
            for number, values in enumerate(run["finalists"][: 1 if few else None])
        }
        pool |= {f"{recipe}, mean of seeds": _mean([runs[recipe, seed] for seed in range(seeds)])
                 for recipe in recipes if seeds > 1}  # fmt: skip
        if len(recipes) > 1:
            pool["mean of all"] = _mean(list(runs.values()))
        self._pick(name, "default", pool, next(iter(runs.values())))

    def control(self, name: str, method: str, budget: int) -> None:
        """Best uniform or best line, or another method with the budget of one of our runs."""
        recipe = self.searches[name].recipes[0]
        run = self.found(name, recipe, method, 0, budget)
        self._pick(name, method, {f"finalist {number}": own for number, own in enumerate(run["finalists"])}, run)

    def _pick(self, name: str, method: str, pool: Mapping[str, Sequence[float | None]], run: Json) -> None:
        vanilla = [None if value is None else 1.0 for value in run["factors"]]
        folder = self.out / name / "choice"
        asked = {"pool": {label: list(values) for label, values in pool.items()}, "validation": self.args.validation}
        kept(folder / f"{method}.json", asked, lambda: self._validated(name, {"vanilla": vanilla, **pool}))

    def _validated(self, name: str, pool: Mapping[str, Sequence[float | None]]) -> Json:
        progress(f"choice for {name} among {len(pool) - 1} candidates and vanilla")
        labels = list(pool)
        arms = [ScalingFactors(tuple(values)) for values in pool.values()]
        accuracy: list[Any] = []
        for task in self.searches[name].tasks:
            evaluator = self.subject.searched(task, "validation", self.args.validation, 0, None, len(arms))
            with shown() as on_event:
                on_event(Stage(f"Choice {task}", len(arms) * len(evaluator.examples)))
                results = evaluator.score_many(arms, on_progress=_told(on_event))
            accuracy.append([result.accuracy.tolist() for result in results])
        best = chosen(accuracy, self.searches[name].tasks)
        return {
            "chosen": labels[best], "factors": list(arms[best].values),
            "accuracy": {task: dict(zip(labels, own, strict=True))
                         for task, own in zip(self.searches[name].tasks, accuracy, strict=True)},
        }  # fmt: skip

    def factors(self, name: str, method: str) -> ScalingFactors:
        """What was chosen."""
        choice = files.read_json(self.out / name / "choice" / f"{method}.json")["found"]
        return ScalingFactors(tuple(choice["factors"]))

    def write_factors(self, name: str, command: str) -> None:
        """OUT/NAME/SEARCH/factors.json, with what led to it."""
        document = files.read_json(self.out / name / "choice" / "default.json")["found"]
        runs = [files.read_json(path) for path in sorted((self.out / name).glob("*/found.json"))]
        own = [run["found"] for run in runs if run["asked"]["method"] == "default"]
        tasks = [{"task": task, **({"keys": self.args.keys} if task != "mdqa" else {})}
                 for task in self.searches[name].tasks]  # fmt: skip
        facts = {"by": command, "search": name, "tasks": tasks, "method": "default",
                 "evaluations": sum(run["evaluations"] for run in own),
                 "chosen": document["chosen"], "validation": document["accuracy"],
                 "prompt": "chat template" if self.subject.chat else "bare",
                 **own[0]["provenance"]}  # fmt: skip
        factors = self.factors(name, "default").with_provenance(
            model=self.identity, base=base_scheme(self.subject.model), found=facts
        )
        factors.save(self.out / name / "factors.json")

    # --- tests

    def test(self, test: str, arm: str, factors: ScalingFactors | None) -> None:
        """Every example of one arm of one test, into OUT/tests/TEST/ARM.json."""
        if test not in self._tests:
            self._tests[test] = self._made(test)
        evaluator = self._tests[test]
        if evaluator is None:
            return
        values = None if factors is None or factors.is_identity else list(factors.values)
        asked = {"task": evaluator.settings, "factors": values, "model": self.identity["fingerprint"]}

        def score() -> Json:
            started = time.perf_counter()
            with shown() as on_event:
                on_event(Stage(f"{test} {arm}", len(evaluator.examples)))
                result = evaluator.score(None if values is None else factors, on_progress=_told(on_event))
            seconds = time.perf_counter() - started
            percent = " ".join(f"{100 * value:.0f}" for value in result.accuracy)
            progress(f"{test}, {arm}: {percent}, average {100 * result.average:.1f}, {seconds:.0f} s")
            return {"result": result.to_dict(), "seconds": round(seconds, 1), "engine": evaluator.engine,
                    "provenance": provenance(self.subject.model)}  # fmt: skip

        kept(self.out / "tests" / test / f"{arm}.json", asked, score)

    def _made(self, test: str) -> Evaluator | None:
        try:
            return self.subject.tested(test)
        except DataError as error:
            progress(f"without the test {test}: {error}")
            return None

    def tested(self, names: Sequence[str], arm: str, factors: ScalingFactors) -> None:
        for test in names:
            self.test(test, "vanilla", None)
            self.test(test, arm, factors)


def chosen(accuracy: Sequence[Sequence[Sequence[float]]], tasks: Sequence[str]) -> int:
    """Index of the choice by the module's rule. accuracy: [task, candidate, position], vanilla the first candidate."""
    gains = np.mean([np.mean(own, axis=1) - np.mean(own[0]) for own in map(np.asarray, accuracy)], axis=0)
    keeps = np.ones(len(gains), dtype=bool)
    for task, own in zip(tasks, map(np.asarray, accuracy), strict=True):
        if task != "mdqa":
            keeps &= (own[:, [0, -1]] >= own[0, [0, -1]]).all(axis=1)
    eligible = keeps & (gains > 0)
    return int(np.argmax(np.where(eligible, gains, -np.inf))) if eligible.any() else int(np.argmax(gains))


def _mean(runs: Sequence[Json]) -> list[float | None]:
    columns = zip(*[run["factors"] for run in runs], strict=True)
    return [None if column[0] is None else round(float(np.mean(column)), 4) for column in columns]


def _told(on_event: OnEvent) -> Callable[[int], None]:
    return lambda count: on_event(Scored(count))


def _split(text: str) -> tuple[str, int | None]:
    name, _, size = text.partition(":")
    return name, int(size) if size else None


def run(args: argparse.Namespace) -> None:
    model, tokenizer, source = models.load(args.model, device_of(args.device))
    name = args.name or Path(args.model).name.lower()
    out = args.out / name
    chat, sizes = not args.bare and bool(tokenizer.chat_template), dict(map(_split, args.tests))
    subject = Subject(model, tokenizer, args.data, args.out, args.keys, chat, sizes)
    quality = Quality(args, subject, out)
    runs = {one: (int(budget), int(seeds)) for one, budget, seeds in (text.split(":") for text in args.searches)}
    asked = Asked(tuple(runs), tuple(sizes), tuple(args.controls), tuple(args.rivals))
    before = files.read_json(out / "model.json") if (out / "model.json").exists() else {}
    files.write_json(out / "model.json", {
        "name": name, "source": source, "identity": quality.identity, "keys": args.keys, "chat": subject.chat,
        "provenance": before.get("provenance", provenance(model)),  # where it was begun; each step has its own
        "asked": asked.and_before(before.get("asked", {})),
    })  # fmt: skip
    for search_name, method, tests in plan(asked, args.keys):
        budget, seeds = runs[search_name]
        if method == "default":
            quality.choose(search_name, budget, seeds)
            quality.write_factors(search_name, f"quality.py run --searches {search_name}:{budget}:{seeds}")
        else:
            quality.control(search_name, method, budget)
        quality.tested(tests, arm_of(search_name, method), quality.factors(search_name, method))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run")
    runs.add_argument("--model", required=True, help="hub id or folder")
    runs.add_argument("--name", help="folder under OUT; default: the model's name in small letters")
    runs.add_argument("--data", type=Path, required=True, help="folder of `ropewalk data official`, and books/*.txt")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--searches", nargs="+", default=["kv:20000:2", "oracle:20000:1", "mdqa:15000:1", "mix:15000:1"],
                      metavar="NAME:BUDGET:SEEDS", help="kv, oracle, mdqa, mix; evaluations of each run")  # fmt: skip
    runs.add_argument("--records", type=int, help="search records; default: as `ropewalk search`")
    runs.add_argument("--keys", type=int, default=75, help="pairs of the searched kv records")
    runs.add_argument("--tests", nargs="+", default=TESTS, metavar="NAME:RECORDS")
    runs.add_argument("--validation", type=int, default=120, help="records of the choice, each at every position")
    runs.add_argument("--controls", nargs="*", default=["kv"], help="searches that get best uniform and best line")
    runs.add_argument("--control-budget", type=int, default=8000, help="evaluations of each control")
    runs.add_argument("--rivals", nargs="*", default=["bezier-ga", "paper"], help="other methods, on kv")
    runs.add_argument("--bare", action="store_true", help="no chat template anywhere")
    runs.add_argument("--device")
    reports = verbs.add_parser("report")
    reports.add_argument("--out", type=Path, required=True)
    reports.add_argument("--name", required=True)
    reports.add_argument("--json", type=Path, required=True)
    shown_ = verbs.add_parser("table")
    shown_.add_argument("reports", nargs="+", type=Path)
    args = parser.parse_args()
    try:
        if args.verb == "run":
            run(args)
        elif args.verb == "report":
            files.write_json(args.json, quality_report(args.out / args.name))
        else:
            print(tables([files.read_json(path) for path in args.reports]))
    except RopewalkError as error:
        progress(str(error))
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
