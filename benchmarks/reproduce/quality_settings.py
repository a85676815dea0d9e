"""On what quality.py searches and tests: official files, generated records, and how a search is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the benchmarks share

from reporting import progress
from ropewalk.constraints import PositionFloor
from ropewalk.data import mdqa
from ropewalk.errors import DataError
from ropewalk.evaluate import Evaluator
from ropewalk.objectives import Kind, Measure, Objective, Part
from ropewalk.questions import read_questions
from ropewalk.short_texts import short_text_checks
from ropewalk.splits import Split
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

POSITIONS = 5
CONTROLS = ("uniform", "line")
THROWAWAY = 9_000_000  # seed of the oracle's records, on which nothing else is searched or tested
THROWAWAY_RECORDS = 100
SHORT_RECORDS = 100
OFFICIAL = {"mdqa-10": 400, "mdqa-20": 100}  # the first questions of the official files: no search sees one of them
NAMES = {
    "kv": ("kv-retrieval-140_keys.jsonl.gz",),
    "mdqa-10": ("nq-open-10_total_documents_gold_at_0.jsonl.gz", "mdqa-10_total_documents.jsonl.gz"),
    "mdqa-20": ("nq-open-20_total_documents_gold_at_0.jsonl.gz", "mdqa-20_total_documents.jsonl.gz"),
    "oracle": ("nq-open-oracle.jsonl.gz",),
}
BUILT = "mdqa-10-built.jsonl.gz"


@dataclass(frozen=True)
class Recipe:
    """How a search is asked for.

    generated: by which measure where the metric is of generated answers. knobs: options of our method. budget: a share
    of the search's evaluations.
    """

    kind: Kind = "utilisation"
    generated: Measure = "likelihood"
    floor: PositionFloor | None = None
    knobs: Mapping[str, int] = field(default_factory=dict)
    budget: float = 1.0

    def measure(self, task: str) -> Measure:
        return self.generated if task == "mdqa" else "likelihood"

    def objective(self, tasks: tuple[str, ...]) -> Objective:
        return Objective(tuple(Part(self.measure(task), self.kind, name=task) for task in tasks), self.floor)


RECIPES = {
    "plain": Recipe(),  # ropewalk search, without further options
    "kept": Recipe("mean", floor=PositionFloor(0.0)),  # --objective mean --max-position-loss 0
    "mean": Recipe("mean"),  # --objective mean
    # --objective mean --measure accuracy: the likelihood of an answer says little of whether it is generated. 8 records
    # are generated almost as fast as 1.
    "generated": Recipe("mean", "accuracy", knobs={"records": 8, "population": 32}, budget=0.4),
}


@dataclass(frozen=True)
class Search:
    """Tasks to search on, the recipes that are tried, and the tests of the same task."""

    tasks: tuple[str, ...]
    recipes: tuple[str, ...]
    tests: tuple[str, ...]


def searches(keys: int) -> dict[str, Search]:
    """Every search by its name."""
    kv = f"kv-{keys}"
    return {
        "kv": Search(("kv",), ("kept", "plain"), (kv,)),
        "oracle": Search(("throwaway",), ("kept",), ("throwaway",)),
        "mdqa": Search(("mdqa",), ("mean", "generated"), ("mdqa-10",)),
        "mix": Search(("kv", "mdqa"), ("kept",), (kv, "mdqa-10")),
    }


@dataclass(frozen=True)
class Asked:
    """Names of what a command asks for. controls: searches with best uniform and best line. rivals: other methods."""

    searches: tuple[str, ...]
    tests: tuple[str, ...]
    controls: tuple[str, ...]
    rivals: tuple[str, ...]

    def and_before(self, before: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """As JSON, with what earlier commands asked for first: what was asked for once stays so."""
        return {name: list(dict.fromkeys([*before.get(name, []), *own])) for name, own in asdict(self).items()}


def plan(asked: Asked, keys: int) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(search, method, tests of what it finds), in the order in which they are made."""
    known = searches(keys)
    for name in asked.searches:
        yield name, "default", known[name].tests
        for method in CONTROLS if name in asked.controls else ():
            yield name, method, known[name].tests
        if name != "oracle":
            yield name, "default", tuple(test for test in asked.tests if test != "throwaway")
    for method in asked.rivals if "kv" in asked.searches else ():
        yield "kv", method, known["kv"].tests


def arm_of(search: str, method: str) -> str:
    """What a test calls the factors that a search chose."""
    return search if method == "default" else f"{search} {method}"


@dataclass
class Subject:
    """A model and where its data are.

    chat: kv, mdqa and needle in the model's chat template. sizes: records of a test, where it is said.
    """

    model: Any
    tokenizer: Any
    data: Path
    out: Path
    keys: int
    chat: bool
    sizes: Mapping[str, int | None]

    def official(self, name: str) -> Path:
        """An official file by its short name. Raises `DataError` that says how to get it."""
        found = [self.data / one for one in NAMES[name] if (self.data / one).exists()]
        if not found:
            raise DataError(
                f"{self.data}: no {NAMES[name][0]}; get it with: ropewalk data official {NAMES[name][0]} "
                f"--out {self.data}"
            )
        return found[0]

    def built(self) -> Path:
        """MDQA of 10 documents built by BM25 from the oracle file, without the questions of the tests."""
        there = [folder / BUILT for folder in (self.data, self.out) if (folder / BUILT).exists()]
        if there:
            return there[0]
        progress("building MDQA-10 by BM25 from the oracle file")
        unwanted = {
            question.text
            for name, count in OFFICIAL.items()
            for question in read_questions(self.official(name))[:count]
        }
        found = mdqa.build(read_questions(self.official("oracle")), 10, exclude=unwanted)
        mdqa.write_records(self.out / BUILT, found.records)
        return self.out / BUILT

    def searched(
        self, task: str, split: Split, records: int, seed: int, measure: Measure | None, candidates: int
    ) -> Evaluator:
        """Records of a search task. measure: what a search looks at; None: what a test does."""
        if task == "throwaway":
            split, records, seed = "search", self.sizes.get(task) or THROWAWAY_RECORDS, THROWAWAY
        if task == "mdqa":
            made = make_task("mdqa", TaskOptions(POSITIONS, data=str(self.built()), limit=records))
        else:
            made = make_task("kv", TaskOptions(POSITIONS, keys=self.keys, limit=records, seed=seed))
        generate = None if measure is None or not made.metric.generated else measure == "accuracy"
        return self._evaluator(made, split, self.chat, generate, candidates)

    def tested(self, name: str) -> Evaluator:
        """The official test of that name: `kv-75`, `kv-75-bare`, `mdqa-10`, `needle`, `perplexity`, ….

        Raises `DataError` where there is no such, or where every prompt is too long for the model.
        """
        records = self.sizes.get(name)
        if name == "throwaway":
            return self.searched(name, "search", 0, 0, None, 1)
        if name.startswith("short-"):
            checks = short_text_checks(self.model, self.tokenizer, records or SHORT_RECORDS)
            return checks[name.removeprefix("short-")]
        if name == "needle":
            return self._evaluator(make_task(name, TaskOptions(POSITIONS, limit=records)), "test", self.chat)
        if name == "perplexity":
            options = TaskOptions(1, data=str(self.data / "books"), limit=records, options={"window": 2048})
            return self._evaluator(make_task(name, options), "test", False)
        if name in OFFICIAL:
            most = min(records or OFFICIAL[name], OFFICIAL[name])
            options = TaskOptions(POSITIONS, data=str(self.official(name)), limit=most)
            return self._evaluator(make_task("mdqa", options), "all", self.chat)
        kind, keys, *bare = name.split("-")
        if kind != "kv" or not keys.isdigit() or bare not in ([], ["bare"]):
            raise DataError(f"no test {name!r}: expected kv-KEYS, kv-KEYS-bare, mdqa-10, mdqa-20, needle, perplexity, "
                            "short-perplexity or short-choice")  # fmt: skip
        options = TaskOptions(POSITIONS, keys=int(keys), data=str(self.official("kv")), limit=records)
        return self._evaluator(make_task("kv", options), "all", self.chat and not bare)

    def _evaluator(
        self, task: Any, split: Split, chat: bool, generate: bool | None = None, candidates: int = 1
    ) -> Evaluator:
        return Evaluator(
            self.model, self.tokenizer, task, task.examples(split), chat_template=chat, overflow="skip",
            generate=generate, candidates=candidates,
        )  # fmt: skip
