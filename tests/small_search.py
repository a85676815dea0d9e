"""Whole searches in a second: a random llama of 4 layers with a byte tokenizer, a few records of 3 keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors
from ropewalk.objectives import Objective, Part
from ropewalk.results import TaskResult
from ropewalk.run import Examples, SearchPlan, SearchResult
from ropewalk.run import search as real_search
from ropewalk.search import make_method
from ropewalk.search.bezier_ga import BezierGA
from ropewalk.search.space import SearchSpace
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

SPACE = SearchSpace(4)
POSITIONS = (0, 2)

Fault = Callable[[ScalingFactors, TaskResult], TaskResult]


@dataclass
class Watch:
    """What an evaluator and its parts have in common."""

    calls: int = 0
    fault: Fault | None = None


class CountingEvaluator(Evaluator):
    """The real evaluator; it counts whom it and its parts scored, and `fault` may raise, or change a result."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.watch = Watch()

    @property
    def calls(self) -> int:
        return self.watch.calls

    @calls.setter
    def calls(self, calls: int) -> None:
        self.watch.calls = calls

    @property
    def fault(self) -> Fault | None:
        return self.watch.fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self.watch.fault = fault

    def score_many(self, candidates: Sequence[ScalingFactors | None], **options: Any) -> list[TaskResult]:
        self.watch.calls += len(candidates)
        results = super().score_many(candidates, **options)
        fault = self.watch.fault
        return [
            result if fault is None or factors is None else fault(factors, result)
            for factors, result in zip(candidates, results, strict=True)
        ]


def evaluator(
    model: Any, tokenizer: Any, split: str = "search", *, records: int = 2, seed: int = 0, keys: int = 3, **options: Any
) -> CountingEvaluator:
    positions = options.pop("positions", POSITIONS)
    task = make_task("kv", TaskOptions(positions=positions, keys=keys, limit=records, seed=seed))
    return CountingEvaluator(model, tokenizer, task, task.examples(split), **options)


def plan(*, seed: int = 0, finalists: int = 2, objective: Objective | None = None, **options: Any) -> SearchPlan:
    """The genetic algorithm, 13 candidates; options: the method's, `racing`, `at_once`, `budget` and `seconds`."""
    run = {name: options.pop(name) for name in ("racing", "at_once", "budget", "seconds") if name in options}
    settings = {"population": 5, "parents": 3, "mutations": 2, "crossovers": 2, "generations": 3} | options
    return SearchPlan(SPACE, BezierGA(SPACE, seed, **settings), objective or Objective(), finalists, **run)


def windows_plan(*, seed: int = 0, racing: bool = True, at_once: int = 3, **options: Any) -> SearchPlan:
    """A method whose generations have records of their own, 6 to 8, and race on them; 19 candidates."""
    settings = {"population": 5, "generations": 3, "first_records": 6, "last_records": 8} | options
    return SearchPlan(SPACE, make_method("smooth-cma", SPACE, seed, **settings), Objective(), 2, racing, at_once)


def default_plan(*, seed: int = 0, racing: bool = True, at_once: int = 3, **options: Any) -> SearchPlan:
    """Our method, 18 candidates on 2 records each."""
    settings = {"population": 6, "generations": 3, "records": 2, "share": 3} | options
    return SearchPlan(SPACE, make_method("default", SPACE, seed, **settings), Objective(), 2, racing, at_once)


PLANS = {"bezier-ga": (plan, 2), "smooth-cma": (windows_plan, 10), "default": (default_plan, 10)}  # and their records


def accuracy(*weights: float) -> Objective:
    return Objective((Part("accuracy", weights=weights or Part().weights),))


def search(
    plan: SearchPlan, on: Evaluator, validation: Evaluator | None, out: Path, on_event: Callable[[Any], None] = id
) -> SearchResult:
    """The real search on a single task."""
    held = None if validation is None else Examples((validation,))
    return real_search(plan, Examples((on,)), held, out, on_event=on_event)


def load(path: Path) -> tuple[Any, Any]:
    import torch

    from ropewalk.checkpoint import load_pretrained

    torch.set_num_threads(1)  # a kill test compares runs of two processes to the bit
    return load_pretrained(path, device="cpu", dtype="float32")


def whole_search(
    path: Path, out: Path, method: str = "bezier-ga", on_event: Callable[[Any], None] = id
) -> SearchResult:
    """A whole search by one of `PLANS`, from the reading of the model on."""
    return search_with(load(path), out, method, on_event)


def search_with(loaded: tuple[Any, Any], out: Path, method: str, on_event: Callable[[Any], None] = id) -> SearchResult:
    """The same with a model that is loaded."""
    make, records = PLANS[method]
    on, validation = (evaluator(*loaded, split, records=records) for split in ("search", "validation"))
    return search(make(), on, validation, out, on_event)
