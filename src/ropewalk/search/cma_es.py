"""A control: CMA-ES (N. Hansen, arXiv 1604.00772) over the factors of evenly spread control points.

Sampling and update are those of the package `cmaes`. Only the order of the fitness values is told to it: a failed
candidate is the worst, and nothing depends on the unit of the fitness. It is the one file that knows the package;
`default` builds on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ropewalk.errors import RopewalkError
from ropewalk.options import option
from ropewalk.search.base import SearchMethod, Told, at_least, ranked
from ropewalk.search.space import Candidate, SearchSpace

if TYPE_CHECKING:
    from cmaes import CMA

Array = NDArray[np.float64]

DECIMALS = 4  # of sampled factors
REDRAWS = 20  # a sample that gives the factors of another one of its generation is redrawn so often


@dataclass(frozen=True)
class Options:
    """How the distribution is sampled."""

    population: int = option(12, "Candidates of a generation.")
    generations: int = option(40, "Generations.")
    sigma: float = option(0.08, "Standard deviation of a factor in the first generation.")


class CmaEs(SearchMethod):
    """CMA-ES from the identity; see `Options`. A subclass says what a vector means (`start`, `covariance`, `place`)."""

    name: ClassVar[str] = "cma-es"
    OPTIONS: ClassVar[type] = Options
    options: Options

    def __init__(self, space: SearchSpace, seed: int = 0, **options: object) -> None:
        self._vectors: dict[Candidate, Array] = {}  # of the open generation
        self._optimizer: CMA | None = None
        super().__init__(space, seed, **options)

    def check(self) -> None:
        """Raise `RopewalkError` for options that can't be meant."""
        at_least(1, generations=self.options.generations)
        at_least(4, population=self.options.population)  # the update divides by zero for fewer
        at_least(0, seed=self.seed)
        if not 0 < self.options.sigma < self.space.high:
            raise RopewalkError(f"sigma is {self.options.sigma}, expected a number above 0 and below the bounds")

    @property
    def candidates_in_all(self) -> int:
        """Candidates of a whole run, and the identity."""
        return 1 + self.options.population * self.options.generations

    def start(self) -> Array:
        """The first mean, [dimensions]."""
        return np.ones(self.space.num_points)

    def covariance(self) -> Array | None:
        """The first covariance over sigma², [dimensions, dimensions]; None: independent coordinates."""
        return None

    def place(self, vector: Array) -> Candidate:
        """The candidate that a vector stands for."""
        x = np.linspace(0, 1, self.space.num_points)
        factors = np.clip(np.round(vector, DECIMALS), self.space.low, self.space.high)
        return Candidate(tuple((float(depth), float(factor)) for depth, factor in zip(x, factors, strict=True)))

    def born(self) -> list[Candidate]:
        """Samples of the distribution, as many as have different factors."""
        if self.generation >= self.options.generations or self.space.low == self.space.high:
            return []
        self._vectors = {}
        return self.samples(set())

    def samples(self, seen: set[tuple[float | None, ...]]) -> list[Candidate]:
        """A population of samples whose factors differ from one another and from those in `seen`."""
        members = []
        for index in range(self.options.population):
            self.optimizer.reseed_rng(int(self.rng(index).integers(2**32)))
            for _ in range(REDRAWS):
                vector = self.optimizer.ask()
                candidate = self.place(vector)
                factors = self.space.factors(candidate).values
                if factors not in seen:
                    seen.add(factors)
                    members.append(candidate)
                    self._vectors[candidate] = vector
                    break
        return members

    def learn(self, told: list[Told]) -> None:  # type: ignore[override]
        """Update the distribution by the order of the samples; one that could not be drawn is the worst."""
        order = [candidate for candidate, _ in ranked(told) if candidate in self._vectors]
        vectors = [self._vectors[candidate] for candidate in order]
        vectors += [self.optimizer.mean] * (self.options.population - len(vectors))
        self.optimizer.tell([(vector, float(rank)) for rank, vector in enumerate(vectors)])

    @property
    def optimizer(self) -> CMA:
        """The state of the distribution."""
        if self._optimizer is None:
            from cmaes import CMA

            start = self.start()
            bounds = np.tile([self.space.low, self.space.high], (len(start), 1))
            size, cov = self.options.population, self.covariance()
            self._optimizer = CMA(start, self.options.sigma, bounds, seed=0, population_size=size, cov=cov)
        return self._optimizer


METHOD = CmaEs
