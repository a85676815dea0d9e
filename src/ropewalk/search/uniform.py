"""A control: one factor for all layers, coarse to fine. What it finds is the best uniform scaling.

The paper's ablation (arXiv 2503.04355) finds that scaling all layers alike helps the middle of the context and costs
its end: factors of their own are worth a search only where they beat this one. `line` is the same with two numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from ropewalk.options import option
from ropewalk.search.base import SearchMethod, at_least, ranked
from ropewalk.search.space import OFFSET_DECIMALS, Candidate, SearchSpace


@dataclass(frozen=True)
class Options:
    """How finely the factors are tried; the number of layers makes no difference."""

    population: int | None = option(
        None, "Candidates of the first generation, evenly spread; left open: the space's grid."
    )
    neighbours: int = option(1, "Factors tried on either side of the best so far in a later generation.")
    generations: int = option(3, "Generations; with one neighbour each halves the distance of the factors tried.")


class Uniform(SearchMethod):
    """A grid, then ever finer ones around the best so far. A subclass says what a point is (`numbers`, `place`)."""

    name: ClassVar[str] = "uniform"
    OPTIONS: ClassVar[type] = Options
    numbers: ClassVar[int] = 1  # that make a candidate
    options: Options

    def __init__(self, space: SearchSpace, seed: int = 0, **options: object) -> None:
        self._seen: set[tuple[float | None, ...]] = set()  # factors of all that were born
        self._points: dict[Candidate, tuple[float, ...]] = {}
        super().__init__(space, seed, **options)

    def check(self) -> None:
        """Raise `RopewalkError` for options that can't be meant."""
        own = self.options
        at_least(1, neighbours=own.neighbours, generations=own.generations)
        at_least(0, seed=self.seed)
        if own.population is not None:
            at_least(1, population=own.population)

    def place(self, point: tuple[float, ...]) -> Candidate:
        """The candidate that `numbers` factors stand for."""
        return self.space.level(point[0])

    @property
    def candidates_in_all(self) -> int:
        """Candidates of a whole run, the identity among them; fewer where the best one is at a bound."""
        later = (2 * self.options.neighbours + 1) ** self.numbers - 1
        return int(len(self.factors()) ** self.numbers + (self.options.generations - 1) * later)

    def born(self) -> list[Candidate]:
        """The first grid, the identity before all others; then the neighbours of the best so far."""
        if self.generation >= self.options.generations:
            return []
        if self.generation == 0:
            return self._new([(1.0,) * self.numbers, *product(self.factors(), repeat=self.numbers)])
        best, fitness = ranked(self.told)[0]
        if math.isnan(fitness):
            return []
        offsets = self.distance() * np.arange(-self.options.neighbours, self.options.neighbours + 1)
        around = self._new(product(*[[factor + offset for offset in offsets] for factor in self._points[best]]))
        self._parents |= dict.fromkeys(around, (best,))
        return around

    def factors(self) -> list[float]:
        """What each number may be in the first generation: 1 is among it, in the place of an inner value near it."""
        if self.options.population is None:
            return [float(factor) for factor in self.space.grid()]
        count = int(self.options.population ** (1 / self.numbers) + 1e-9)
        factors = np.linspace(self.space.low, self.space.high, count)
        if 1.0 not in factors:
            inner = factors[1:-1] if count > 2 else factors
            inner[np.argmin(np.abs(inner - 1))] = 1.0
        return [float(factor) for factor in factors]

    def distance(self) -> float:
        """Between the factors tried in the open generation."""
        count = len(self.factors())
        even = (self.space.high - self.space.low) / max(1, count - 1)
        first = self.space.step if self.options.population is None else even
        return float(first / (self.options.neighbours + 1) ** self.generation)

    def _new(self, points: Sequence[tuple[float, ...]] | product[tuple[float, ...]]) -> list[Candidate]:
        """The candidates of those points that lie within the bounds and give factors not seen before."""
        members = []
        for given in points:
            point = tuple(round(float(factor), OFFSET_DECIMALS) for factor in given)
            if not all(self.space.low <= factor <= self.space.high for factor in point):
                continue
            candidate = self.place(point)
            factors = self.space.factors(candidate).values
            if factors not in self._seen:
                self._seen.add(factors)
                self._points[candidate] = point
                members.append(candidate)
        return members


METHOD = Uniform
