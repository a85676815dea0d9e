"""A control: the tree-structured Parzen estimator (arXiv 2304.11127) over the control points, by Optuna's sampler.

Each generation is a batch from a fresh sampler, seeded by its number, over a study in memory that holds what was told:
members of a batch keep apart as Optuna's own parallel workers do ("constant liar"). Factors and inner depths are
continuous within the bounds; in mode "uniform" depths have no effect and are left even.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ropewalk.options import option
from ropewalk.search import random
from ropewalk.search.base import Told
from ropewalk.search.space import Candidate

if TYPE_CHECKING:
    import optuna

DECIMALS = 4  # of sampled factors and depths
REDRAWS = 20  # a sample whose factors were seen is redrawn so often; then the generation ends


@dataclass(frozen=True)
class Options(random.Options):
    """How the study is sampled."""

    population: int = option(16, "Candidates of a generation: sampled without knowing of one another's fitness.")
    generations: int = option(40, "Generations.")


class Tpe(random.Random):
    """Optuna's `TPESampler` in batches; see `Options`. The identity comes first, and no factors come twice."""

    name: ClassVar[str] = "tpe"
    OPTIONS: ClassVar[type] = Options
    options: Options

    def born(self) -> list[Candidate]:
        """Samples with factors not seen before, as many as the space still holds; the identity before all others."""
        if self.generation >= self.options.generations:
            return []
        members = [] if self._seen else [self.space.identity()]
        self._seen |= {self.space.factors(candidate).values for candidate in members}
        with _quiet():
            study = self._study()
            while len(members) < self.options.population:
                candidate = self._sampled(study)
                if candidate is None:
                    break
                members.append(candidate)
        return members

    def _sampled(self, study: optuna.Study) -> Candidate | None:
        """A sample with new factors; None where all redraws are in vain. Trials stay open, for the sampler to avoid."""
        for _ in range(REDRAWS):
            candidate = self._candidate(study.ask(self._distributions()).params)
            factors = self.space.factors(candidate).values
            if factors not in self._seen:
                self._seen.add(factors)
                return candidate
        return None

    def _study(self) -> optuna.Study:
        """A study with all that was told, and the open generation's sampler."""
        import optuna

        sampler = optuna.samplers.TPESampler(seed=int(self.rng(0).integers(2**32)))
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials([self._trial(told) for told in self.told])
        return study

    def _trial(self, told: Told) -> optuna.trial.FrozenTrial:
        """A finished trial; one of a failed candidate holds no value."""
        import optuna

        candidate, fitness = told
        failed = bool(np.isnan(fitness))
        return optuna.create_trial(
            state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
            params=self._parameters(candidate),
            distributions=self._distributions(),
            value=None if failed else fitness,
        )

    def _distributions(self) -> dict[str, Any]:
        """Of the factors y0, y1, … and, where they count, of the inner depths x1, x2, …"""
        from optuna.distributions import FloatDistribution

        factors = {f"y{index}": FloatDistribution(self.space.low, self.space.high) for index in self._points()}
        return factors | {f"x{index}": FloatDistribution(0.0, 1.0) for index in self._inner()}

    def _parameters(self, candidate: Candidate) -> dict[str, float]:
        points = candidate.control_points
        return {f"y{index}": points[index][1] for index in self._points()} | {
            f"x{index}": points[index][0] for index in self._inner()
        }

    def _candidate(self, parameters: dict[str, float]) -> Candidate:
        """The candidate of sampled parameters, with its depths in order."""
        x = np.linspace(0, 1, self.space.num_points)
        if self._inner():
            x[1:-1] = np.sort([round(parameters[f"x{index}"], DECIMALS) for index in self._inner()])
        factors = np.round([parameters[f"y{index}"] for index in self._points()], DECIMALS)
        y = np.clip(factors, self.space.low, self.space.high)
        return Candidate(tuple((float(depth), float(factor)) for depth, factor in zip(x, y, strict=True)))

    def _points(self) -> range:
        return range(self.space.num_points)

    def _inner(self) -> range:
        return range(1, self.space.num_points - 1) if self.space.mode == "depth" else range(0)


METHOD = Tpe


@contextmanager
def _quiet() -> Iterator[None]:
    """No word from Optuna of every study it makes; afterwards its logging is as it was."""
    from optuna import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(max(verbosity, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
