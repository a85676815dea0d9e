"""A control: curves drawn at random, which every search has to beat at an equal number of candidates.

Control points as the genetic algorithm draws them from anywhere: factors uniform on the space's grid, inner depths
uniform on theirs. The identity comes first, and no two candidates of a run give the same factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.options import option
from ropewalk.search.base import SearchMethod, at_least
from ropewalk.search.space import Candidate, SearchSpace

X_STEPS = 20  # of the inner control points' depth, from 0 to 1
REDRAWS = 100  # a curve whose factors were seen is redrawn so often; then the space counts as used up


@dataclass(frozen=True)
class Options:
    """How many curves are drawn; nothing is learnt from one generation for the next."""

    population: int = option(32, "Candidates of a generation.")
    generations: int = option(20, "Generations.")


class Random(SearchMethod):
    """Random search over the control points; see `Options`."""

    name: ClassVar[str] = "random"
    OPTIONS: ClassVar[type] = Options
    options: Options

    def __init__(self, space: SearchSpace, seed: int = 0, **options: object) -> None:
        self._seen: set[tuple[float | None, ...]] = set()  # factors of all that were born
        super().__init__(space, seed, **options)

    def check(self) -> None:
        """Raise `RopewalkError` for options that can't be meant."""
        at_least(1, population=self.options.population, generations=self.options.generations)
        at_least(0, seed=self.seed)

    @property
    def candidates_in_all(self) -> int:
        """Candidates of a whole run, the identity among them, if the space holds as many."""
        return self.options.population * self.options.generations

    def born(self) -> list[Candidate]:
        """New curves; the identity before all others."""
        if self.generation >= self.options.generations:
            return []
        members = [] if self._seen else [self.space.identity()]
        self._seen |= {self.space.factors(candidate).values for candidate in members}
        for index in range(len(members), self.options.population):
            curve = self._new(self.rng(index))
            if curve is None:
                break
            members.append(curve)
        return members

    def _new(self, rng: np.random.Generator) -> Candidate | None:
        """A curve with factors not seen before; None where all redraws are in vain."""
        for _ in range(REDRAWS):
            curve = self._drawn(rng)
            factors = self.space.factors(curve).values
            if factors not in self._seen:
                self._seen.add(factors)
                return curve
        return None

    def _drawn(self, rng: np.random.Generator) -> Candidate:
        inner = np.sort(rng.integers(0, X_STEPS + 1, size=self.space.num_points - 2)) / X_STEPS
        y = rng.choice(self.space.grid(), size=self.space.num_points)
        return Candidate(tuple((float(x), float(factor)) for x, factor in zip([0.0, *inner, 1.0], y, strict=True)))


METHOD = Random
