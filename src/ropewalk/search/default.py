"""Our search: Thompson sampling with an additive model of what each layer's factor does.

Layers act almost independently of one another, and one sensitive layer can spoil a candidate whatever the others do.
So every score tells something of every layer, and `ropewalk.additive_model` adds up what all scores of a search say.
Candidates are drawn from what the model thinks possible: each is the best one under one guess of the functions. What is
known to be bad is not tried again, what is uncertain is tried often, and the guesses agree in the end. Where there are
constraints their losses are learnt likewise, and what exceeds a limit is priced by its Lagrange multiplier.

A candidate is scored on very few records, another few for every `share` candidates: for a model of all candidates, more
of them are worth more than better known ones. What is proposed in the end is no candidate that was scored but the
model's optimum, with more and less caution, and on half the way; validation chooses among them and vanilla.
docs/results.md has the measurements behind each of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.options import option
from ropewalk.search.base import Detail, SearchMethod, Told, at_least
from ropewalk.search.space import Candidate, SearchSpace

if TYPE_CHECKING:
    from ropewalk.additive_model import AdditiveModel

Array = NDArray[np.float64]

MOST_NODES = 64  # factors a layer may have: the work grows with the cube of all layers' together
REDRAWS = 20  # a draw that gives the factors of another member of its generation is redrawn so often


@dataclass(frozen=True)
class Options:
    """How many candidates are scored on how much, and what the model expects."""

    population: int = option(64, "Candidates of a generation.")
    generations: int = option(40, "Generations.")
    sigma: float = option(0.07, "Standard deviation of the factors in the first generation.")
    length: float = option(0.15, "Distance between factors over which a layer's effect changes.")
    records: int = option(1, "Records of each task that a candidate is scored on.")
    share: int = option(16, "Candidates that are scored on the same records.")
    exploration: float = option(0.5, "How far guesses stray from what is known, in its standard deviations.")


class Default(SearchMethod):
    """Additive Thompson sampling; see `Options` and the module."""

    name: ClassVar[str] = "default"
    OPTIONS: ClassVar[type] = Options
    SPACE: ClassVar[Mapping[str, Any]] = {"low": 0.7, "high": 1.35}
    options: Options

    def __init__(self, space: SearchSpace, seed: int = 0, **options: object) -> None:
        self._factors: list[Array] = []
        self._groups: list[int] = []
        super().__init__(space, seed, **options)

    def check(self) -> None:
        """Raise `RopewalkError` for options that can't be meant."""
        own = self.options
        at_least(1, generations=own.generations, population=own.population, records=own.records, share=own.share)
        at_least(0, seed=self.seed)
        for name in ("sigma", "length"):
            if not 0 < getattr(own, name) < math.inf:
                raise RopewalkError(f"{name} is {getattr(own, name)}, expected a number > 0")
        if not 0 <= own.exploration < math.inf:
            raise RopewalkError(f"exploration is {own.exploration}, expected a number >= 0")
        if len(self.space.grid()) > MOST_NODES:
            raise RopewalkError(
                f"a step of {self.space.step} between {self.space.low} and {self.space.high} gives each layer "
                f"{len(self.space.grid())} factors, method default takes at most {MOST_NODES}: give a larger --step"
            )

    @property
    def candidates_in_all(self) -> int:
        """Candidates of a whole run, and the identity."""
        return 1 + self.options.population * self.options.generations

    @cached_property
    def model(self) -> AdditiveModel:
        """What was learnt so far."""
        from ropewalk.additive_model import AdditiveModel  # it loads scipy

        return AdditiveModel(len(self.space.scaled_layers), self.space.grid(), self.options.length)

    def born(self) -> list[Candidate]:
        """Random candidates at first, then the best ones under guesses of the model; all of different factors."""
        if self.generation >= self.options.generations:
            return []
        with _one_thread():
            return self._distinct_members()

    def _distinct_members(self) -> list[Candidate]:
        seen: set[tuple[float | None, ...]] = set()
        members = []
        for index in range(self.options.population):
            rng = self.rng(index)
            for _ in range(REDRAWS):
                candidate = self._draw(rng)
                factors = self.space.factors(candidate).values
                if factors not in seen:
                    seen.add(factors)
                    members.append(candidate)
                    break
        return members

    def _draw(self, rng: np.random.Generator) -> Candidate:
        if self.generation:
            return self.space.layerwise(self.model.sample(rng, self.options.exploration))
        random = 1 + self.options.sigma * rng.standard_normal(len(self.space.scaled_layers))
        return self.space.layerwise(np.clip(random, self.space.low, self.space.high))

    def candidate_of(self, factors: ScalingFactors) -> Candidate:
        """The candidate of factors to start from."""
        return self.space.free(factors)

    def learn(self, told: Sequence[Told]) -> None:
        """Fit the model to all scores so far."""
        for slot, (candidate, _) in enumerate(told):
            self._factors.append(self._vector(candidate))
            self._groups.append(self._group(self.generation, slot))
        with _one_thread():
            self.model.fit(np.array(self._factors), *self._outcomes())

    def _outcomes(self) -> tuple[Array, list[int], Array | None, tuple[float, ...]]:
        """Scores, groups, losses [N, K] and limits of all candidates so far.

        Where losses are known the gain is learnt, without the penalties, for those depend on luck: limits are kept by
        the choice of the optimum.
        """
        scores = np.array([score for _, score in self.told])
        known = next((detail for detail in self.details if detail is not None and detail.limits), None)
        if known is None:
            return scores, self._groups, None, ()
        nothing = Detail(math.nan, (math.nan,) * len(known.limits))
        details = [nothing if detail is None else detail for detail in self.details]
        gains = np.array([detail.gain for detail in details])
        return gains, self._groups, np.array([detail.losses for detail in details]), known.limits

    def records(self, slot: int, available: int) -> list[int]:
        """The next records for every `share` candidates, from the first ones again after the last."""
        count = min(self.options.records, available)
        first = self._group(self.generation, slot) * count
        return sorted((first + index) % available for index in range(count))

    def sizes(self, available: Sequence[int]) -> list[tuple[int, tuple[tuple[int, ...], ...]]]:
        """Every candidate is scored on as many records."""
        rows = tuple(tuple(range(min(self.options.records, count))) for count in available)
        return [(self.candidates_in_all - 1, rows)]

    def finalists(self) -> list[Candidate]:
        """The model's optimum, with caution, and half the way to it; none before anything was told."""
        if not self.told:
            return []
        best = self.model.best()
        steps = [best, self.model.best(0.5), 1 + (best - 1) / 2, self.model.best(1.0)]
        failed = {candidate for candidate, score in self.told if math.isnan(score)}
        return [one for one in dict.fromkeys(map(self.space.layerwise, steps)) if one not in failed]

    def estimate(self, candidate: Candidate) -> float:
        """The fitness that the model expects."""
        return float(self.model.predict(self._vector(candidate)[None])[0])

    def _group(self, generation: int, slot: int) -> int:
        width = math.ceil(self.options.population / self.options.share)
        return generation * width + slot // self.options.share

    def _vector(self, candidate: Candidate) -> Array:
        values = self.space.factors(candidate).values
        return np.array([values[layer] for layer in self.space.scaled_layers], dtype=np.float64)


METHOD = Default


def _one_thread() -> AbstractContextManager[Any]:
    """One thread for linear algebra: for matrices as small as these, more of them wait for each other."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits
