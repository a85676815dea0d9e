"""A whole search in a second: a random llama of 4 layers with a byte tokenizer, 2 records of 3 keys at 2 positions.

As a program, `python small_search.py MODEL OUT`, it runs the search in a process that a test can kill.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors
from ropewalk.objectives import Utilisation
from ropewalk.results import TaskResult
from ropewalk.run import SearchPlan, SearchResult, search
from ropewalk.search.bezier_ga import BezierGA
from ropewalk.search.space import SearchSpace
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

SPACE = SearchSpace(4)
POSITIONS = (0, 2)


class CountingEvaluator(Evaluator):
    """The real evaluator; it counts its passes, and `fault` may raise, or spoil a result, on purpose."""

    calls = 0
    fault: Callable[[ScalingFactors, TaskResult], TaskResult] | None = None

    def score(self, factors: ScalingFactors | None, **options: Any) -> TaskResult:
        self.calls += 1
        result = super().score(factors, **options)
        return result if self.fault is None or factors is None else self.fault(factors, result)


def evaluator(model: Any, tokenizer: Any, split: str = "search", *, records: int = 2, seed: int = 0) -> Any:
    task = make_task("kv", TaskOptions(positions=POSITIONS, keys=3, limit=records, seed=seed))
    return CountingEvaluator(model, tokenizer, task, task.examples(split))


def plan(*, seed: int = 0, finalists: int = 2, measure: Any = "likelihood", **options: Any) -> SearchPlan:
    settings = {"population": 5, "parents": 3, "mutations": 2, "crossovers": 2, "generations": 3} | options
    method = BezierGA(SPACE, seed, **settings)
    return SearchPlan(SPACE, method, Utilisation(measure), method.candidates_in_all, finalists)


def load(path: Path) -> tuple[Any, Any]:
    import torch

    from ropewalk.checkpoint import load_pretrained

    torch.set_num_threads(1)  # a kill test compares runs of two processes to the bit
    return load_pretrained(path, device="cpu", dtype="float32")


def whole_search(path: Path, out: Path, on_event: Callable[[Any], None] = lambda event: None) -> SearchResult:
    model, tokenizer = load(path)
    on = [evaluator(model, tokenizer, split) for split in ("search", "validation")]
    return search(plan(), *on, out, on_event=on_event)


if __name__ == "__main__":
    whole_search(Path(sys.argv[1]), Path(sys.argv[2]), lambda event: print(event, flush=True))
