"""A search from start to end: the generation loop, the choice among finalists, the test on held-out records.

The loop is resumable: a candidate that the study holds is not evaluated again. Factors are written at every
improvement, so that an interrupted run leaves its best so far.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.comparison import compare
from ropewalk.errors import RopewalkError
from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.objectives import Utilisation
from ropewalk.provenance import provenance
from ropewalk.results import TaskResult
from ropewalk.search.base import SearchMethod
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.study import CandidateRecord, Study, open_study

BASELINE = (-1, 0)  # generation and slot of the identity, evaluated before the first generation
MAX_FAILED_SHARE = 0.5
MIN_FAILED = 4


@dataclass(frozen=True)
class Stage:
    """A stage begins: its name and the prompts it will score."""

    name: str
    prompts: int


@dataclass(frozen=True)
class Scored:
    """That many prompts were scored."""

    prompts: int


@dataclass(frozen=True)
class Evaluated:
    """A candidate was evaluated; `best` is the best fitness so far."""

    record: CandidateRecord
    best: float


Event = Stage | Scored | Evaluated
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class SearchPlan:
    """All of a search but the model: what proposes, what is maximised, how many finalists meet on validation."""

    space: SearchSpace
    method: SearchMethod
    objective: Utilisation
    candidates: int
    finalists: int = 3

    def settings(self) -> dict[str, Any]:
        """As JSON: a run is continued only under equal settings."""
        return {
            "method": self.method.settings(),
            "objective": {"measure": self.objective.measure, "weights": list(self.objective.weights)},
            "finalists": self.finalists,
        }


@dataclass
class SearchResult:
    """What a search found. `factors` are the winner's: the identity if nothing beat vanilla."""

    factors: ScalingFactors
    candidate: Candidate
    fitness: float
    validation: list[dict[str, Any]]
    evaluations: int
    failed: int
    records: list[CandidateRecord] = field(repr=False, default_factory=list)


def search(
    plan: SearchPlan,
    evaluator: Evaluator,
    validation: Evaluator | None,
    out: Path,
    *,
    on_event: OnEvent = lambda event: None,
) -> SearchResult:
    """Search, choose among the finalists on validation records, and leave `factors.json` in `out`.

    evaluator, validation: the model with the search and the validation examples; without validation the best of the
    search is taken. Raises `StudyError` for a run that can't be continued, `RopewalkError` if candidates keep failing,
    and lets KeyboardInterrupt through after everything so far is on disk.
    """
    settings = {
        "model": model_identity(evaluator.model),
        "base": base_scheme(evaluator.model),
        "search": evaluator.task.settings(),
        "validation": None if validation is None else validation.task.settings(),
        **plan.settings(),
    }
    with open_study(out, settings) as study:
        loop = _Loop(plan, evaluator, study, settings, on_event)
        loop.run()
        chosen, fitness, table = _choose(loop, validation, on_event)
        factors = loop.write(chosen, fitness, validation=table)
        return SearchResult(
            factors=factors,
            candidate=chosen,
            fitness=fitness,
            validation=table,
            evaluations=loop.evaluations + sum(row["prompts"] for row in table),
            failed=loop.failed,
            records=[loop.records[key] for key in sorted(loop.records)],
        )


def final_test(
    evaluator: Evaluator,
    factors: ScalingFactors,
    objective: Utilisation,
    *,
    any_model: bool = False,
    controls: Mapping[str, ScalingFactors] | None = None,
    on_event: OnEvent = lambda event: None,
) -> tuple[dict[str, Any], dict[str, TaskResult]]:
    """Vanilla, the controls and `factors` on the evaluator's (held-out) examples.

    Returns the summary (`positions`, one block of figures an arm, paired comparisons with vanilla and of the factors
    with each control) and the full results by arm.
    """
    arms: dict[str, ScalingFactors | None] = {"vanilla": None, **(controls or {}), "factors": factors}
    on_event(Stage("Test", len(arms) * len(evaluator.examples)))
    results = {
        name: evaluator.score(arm, any_model=any_model, on_progress=lambda count: on_event(Scored(count)))
        for name, arm in arms.items()
    }
    others = [name for name in results if name != "vanilla"]
    against_vanilla = {name: compare(results["vanilla"], results[name], objective.weights) for name in others}
    against_controls = {
        name: compare(results[name], results["factors"], objective.weights) for name in others if name != "factors"
    }
    summary = {
        "task": evaluator.task.settings(),
        "positions": list(evaluator.task.positions),
        **{name: result.summary(objective.weights) for name, result in results.items()},
        "gain": against_vanilla,
        "factors_over": against_controls,
        "evaluations": len(arms) * len(evaluator.examples),
        "provenance": provenance(evaluator.model),
    }
    return summary, results


class _Loop:
    """The generation loop and what it keeps in memory; the truth is the study."""

    def __init__(
        self, plan: SearchPlan, evaluator: Evaluator, study: Study, settings: dict[str, Any], on_event: OnEvent
    ) -> None:
        self.plan, self.evaluator, self.study = plan, evaluator, study
        self.settings, self.on_event = settings, on_event
        self.records = study.records()
        self.evaluations = sum(len(evaluator.examples) for record in self.records.values() if _was_evaluated(record))
        self._by_candidate = {record.candidate: record for record in self.records.values()}

    @property
    def failed(self) -> int:
        return sum(math.isnan(record.fitness) for record in self.records.values())

    def run(self) -> None:
        prompts = len(self.evaluator.examples)
        self.on_event(Stage("Search", prompts * max(0, self.plan.candidates + 1 - len(self.records))))
        identity = self.plan.space.identity()
        self._record(*BASELINE, identity)
        if math.isnan(self.records[BASELINE].fitness):
            raise RopewalkError(
                f"the model as it is can't be scored on these prompts: {self.records[BASELINE].error}; "
                "try --dtype float32, or ropewalk doctor"
            )
        generation = 0
        while candidates := self.plan.method.ask():
            scores = [self._record(generation, slot, candidate) for slot, candidate in enumerate(candidates)]
            self.plan.method.tell(candidates, scores)
            generation += 1

    def best(self) -> tuple[Candidate, float]:
        """The fittest candidate so far; the identity wins ties."""
        record = max(
            (self.records[key] for key in sorted(self.records) if not math.isnan(self.records[key].fitness)),
            key=lambda record: record.fitness,
        )
        return record.candidate, record.fitness

    def fitness_of(self, candidate: Candidate) -> float:
        """The fitness of an evaluated candidate."""
        return self._by_candidate[candidate].fitness

    def write(self, candidate: Candidate, fitness: float, **more: Any) -> ScalingFactors:
        """Write `factors.json` for a candidate, with all that led to it."""
        factors = self.plan.space.factors(candidate).with_provenance(
            model=self.settings["model"],
            base=self.settings["base"],
            found={
                "control_points": [list(point) for point in candidate.control_points],
                "fitness": fitness,
                "evaluations": self.evaluations,
                **{name: self.settings[name] for name in ("method", "objective", "search")},
                **provenance(self.evaluator.model),
                **more,
            },
        )
        factors.save(self.study.directory / "factors.json")
        return factors

    def _record(self, generation: int, slot: int, candidate: Candidate) -> float:
        """The candidate's fitness: from the study, from an equal candidate, or by evaluating it now."""
        known = self.records.get((generation, slot))
        if known is not None:
            return known.fitness
        twin = self._by_candidate.get(candidate)
        if twin is not None:
            record = CandidateRecord(generation, slot, candidate, twin.fitness, error=twin.error)
        else:
            record = self._evaluate(generation, slot, candidate)
            self.evaluations += len(self.evaluator.examples)
        previous = self.best()[1] if self.records else -math.inf
        self.study.add(record)
        self.records[generation, slot] = record
        self._by_candidate.setdefault(candidate, record)
        self._stop_if_failing()
        if record.fitness > previous:
            self.write(candidate, record.fitness)
        self.on_event(Evaluated(record, max(previous, record.fitness)))
        return record.fitness

    def _evaluate(self, generation: int, slot: int, candidate: Candidate) -> CandidateRecord:
        try:
            result = self.evaluator.score(
                self.plan.space.factors(candidate), on_progress=lambda count: self.on_event(Scored(count))
            )
        except RopewalkError:
            raise  # the model or the prompts can't be used at all, which another candidate would not change
        except Exception:
            return CandidateRecord(generation, slot, candidate, math.nan, error=traceback.format_exc())
        baseline = self.records.get(BASELINE)
        vanilla = result.log_likelihoods if baseline is None else baseline.log_likelihoods
        if vanilla is None:
            raise RopewalkError(
                f"{self.study.directory}: the study's baseline has no scores; start anew in another --out"
            )
        fitness = self.plan.objective.fitness(result.verdicts, result.log_likelihoods, vanilla)
        error = (
            f"{result.failures} of {result.verdicts.size} log-likelihoods are not finite" if result.failures else None
        )
        return CandidateRecord(
            generation, slot, candidate, fitness, result.verdicts, result.log_likelihoods, error=error
        )

    def _stop_if_failing(self) -> None:
        if self.failed >= MIN_FAILED and self.failed > MAX_FAILED_SHARE * len(self.records):
            last = next(record.error for record in reversed(self.records.values()) if record.error)
            raise RopewalkError(
                f"{self.failed} of {len(self.records)} candidates failed, the search stops. The last reason: {last}"
            )


def _was_evaluated(record: CandidateRecord) -> bool:
    return record.log_likelihoods is not None or record.error is not None


def _choose(
    loop: _Loop, validation: Evaluator | None, on_event: OnEvent
) -> tuple[Candidate, float, list[dict[str, Any]]]:
    """The winner: on validation records among the fittest and the identity, else simply the fittest."""
    if validation is None or loop.plan.finalists < 1:
        return (*loop.best(), [])
    identity = loop.plan.space.identity()
    ranked = sorted(
        (record for record in loop.records.values() if not math.isnan(record.fitness)),
        key=lambda record: (-record.fitness, record.generation, record.slot),
    )
    others = [candidate for candidate in dict.fromkeys(record.candidate for record in ranked) if candidate != identity]
    finalists = [identity, *others[: loop.plan.finalists]]
    on_event(Stage("Finalists", len(finalists) * len(validation.examples)))
    table: list[dict[str, Any]] = []
    vanilla: np.ndarray[Any, Any] | None = None
    for candidate in finalists:
        result = validation.score(loop.plan.space.factors(candidate), on_progress=lambda count: on_event(Scored(count)))
        vanilla = result.log_likelihoods if vanilla is None else vanilla
        fitness = loop.plan.objective.fitness(result.verdicts, result.log_likelihoods, vanilla)
        table.append({"candidate": candidate.to_json(), "fitness": fitness, "prompts": len(validation.examples)})
    best = max(range(len(finalists)), key=lambda index: _rank(table[index]["fitness"]))
    for row in table:
        row["fitness"] = None if math.isnan(row["fitness"]) else row["fitness"]
    return finalists[best], loop.fitness_of(finalists[best]), table


def _rank(fitness: float) -> float:
    return -math.inf if math.isnan(fitness) else fitness
