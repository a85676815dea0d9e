"""The arms of search_efficiency.py: a method, its options, and all that a claim about the method is tried with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ropewalk.objectives import DEFAULT_WEIGHTS, Kind, Measure, Objective, Part


@dataclass(frozen=True)
class Arm:
    """A method and its circumstances. records: search records, each at every position. budget: a share of --budget.

    measure, kind, weights: what is maximised, see `ropewalk.objectives.Part`. on_test: search on the test records.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    records: int = 16
    measure: Measure = "likelihood"
    racing: bool = False
    budget: float = 1.0
    on_test: bool = False
    kind: Kind = "utilisation"
    weights: tuple[float, ...] = DEFAULT_WEIGHTS

    @property
    def objective(self) -> Objective:
        return Objective((Part(self.measure, self.kind, self.weights),))


OURS: dict[str, Any] = {"records": 96}
MANY = 10_000  # generations of a method that the budget ends
CLASSIC: dict[str, Any] = {"generations": MANY}
OUR_BOUNDS: dict[str, Any] = {"low": 0.7, "high": 1.35, "mode": "depth", "skip_first": 0}
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
    "first 2 layers alone": Arm("default", space={"skip_first": 2}, **OURS),
    "mean": Arm("default", kind="mean", **OURS),
    "worst, 4 records": Arm("default", {"records": 4}, kind="worst", **OURS),
    "weights 0.5,1,1.5": Arm("default", weights=(0.5, 1.0, 1.5), **OURS),
    "weights 1,1,1": Arm("default", weights=(1.0, 1.0, 1.0), **OURS),
    "weights 1.2,1,0.8": Arm("default", weights=(1.2, 1.0, 0.8), **OURS),
    "weights 0.5,2,0.5": Arm("default", weights=(0.5, 2.0, 0.5), **OURS),
    "oracle": Arm("default", records=100, on_test=True),
    # The genetic algorithm over a curve, which is the paper's, with one thing changed.
    "bezier-ga, 2 points": Arm("bezier-ga", CLASSIC, {"num_points": 2}),
    "bezier-ga, 3 points": Arm("bezier-ga", CLASSIC, {"num_points": 3}),
    "bezier-ga, 6 points": Arm("bezier-ga", CLASSIC, {"num_points": 6}),
    "bezier-ga, factors from 1": Arm("bezier-ga", CLASSIC, {"low": 1.0}),
    "bezier-ga, first 2 layers alone": Arm("bezier-ga", CLASSIC, {"skip_first": 2}),
    "bezier-ga, accuracy": Arm("bezier-ga", CLASSIC, measure="accuracy"),
    "bezier-ga, mean": Arm("bezier-ga", CLASSIC, kind="mean"),
    "bezier-ga, worst": Arm("bezier-ga", CLASSIC, kind="worst"),
}
CONTROLS = (
    "default", "smooth-cma", "paper", "paper, our bounds", "bezier-ga", "layerwise-ga", "cma-es", "tpe", "random",
    "uniform", "line",
)  # fmt: skip
# Those that reproduce/claims.py compares, the most telling first.
CLAIMS = (
    "default", "bezier-ga", "layerwise-ga", "uniform", "line", "factors from 1", "first 2 layers alone", "accuracy",
    "bezier-ga, factors from 1", "bezier-ga, first 2 layers alone", "bezier-ga, accuracy", "mean", "weights 0.5,1,1.5",
    "weights 1,1,1", "weights 0.5,2,0.5", "weights 1.2,1,0.8", "bezier-ga, 2 points", "bezier-ga, 3 points",
    "bezier-ga, 6 points", "bezier-ga, mean", "bezier-ga, worst", "worst, 4 records", "paper, our bounds",
)  # fmt: skip
