"""The paper's search: a genetic algorithm over the control points of a Bézier curve (arXiv 2503.04355, section 3.3).

Differences from the paper, whose own setting is the method `paper`: factors below 1 are allowed, and the identity is in
the first population. No two candidates of a run give the same factors: that is what a child "seen before" means here,
for control points that differ may draw the same curve (in mode "uniform" x has no effect).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np

from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.options import option
from ropewalk.search.base import SearchMethod, at_least, ranked
from ropewalk.search.space import Candidate, SearchSpace

_X_STEP = 0.05  # grid of the inner control points' depth
_REDRAWS = 100  # a child whose factors were seen is redrawn so often; then it is drawn in a wider way

Born = tuple[Candidate, tuple[Candidate, ...]]  # a child and its parents
Draw = Callable[[np.random.Generator], Born]


@dataclass(frozen=True)
class Options:
    """How the population is kept and renewed."""

    population: int = option(32, "Candidates of the first generation.")
    parents: int = option(16, "Best candidates so far that children are made of.")
    mutations: int = option(16, "Children by mutation in each later generation.")
    crossovers: int = option(16, "Children by crossover in each later generation.")
    generations: int = option(20, "Generations, the first one counted.")
    mutation_probability: float = option(0.3, "That a control point is redrawn in a mutation (one always is).")
    initial_probability: float = option(
        1.0, "The same in the first generation, which mutates the initial level; 0 redraws one point at a time."
    )
    radius: float = option(0.2, "How far a redrawn factor may lie from the parent's.")
    initial_factor: float = option(1.0, "Level around which the first generation is drawn.")


class BezierGA(SearchMethod):
    """Genetic algorithm with truncation selection and elitism; see `Options`."""

    name: ClassVar[str] = "bezier-ga"
    OPTIONS: ClassVar[type] = Options
    options: Options

    def __init__(self, space: SearchSpace, seed: int = 0, **options: object) -> None:
        self._seen: set[tuple[float | None, ...]] = set()  # factors of all that were born
        super().__init__(space, seed, **options)

    @property
    def candidates_in_all(self) -> int:
        """Candidates of a whole run, the identity among them, if the space holds as many."""
        later = self.options.mutations + self.options.crossovers
        return self.options.population + (self.options.generations - 1) * later

    def rival(self) -> Candidate | None:
        """The last one that would still become a parent."""
        elite = self.elite()
        return elite[-1] if len(elite) == self.options.parents else None

    def elite(self) -> list[Candidate]:
        """The best individuals so far, best first; failed ones (NaN) last, ties in the order of birth."""
        return [candidate for candidate, _ in ranked(self.told)[: self.options.parents]]

    def candidate_of(self, factors: ScalingFactors) -> Candidate:
        """The curve of factors to start from. Raises `RopewalkError` unless they lie on one of the space."""
        points = factors.found.get("control_points") or ()
        if len(points) == self.space.num_points:
            candidate = Candidate.from_json({"control_points": points})
            if self.space.factors(candidate).values == factors.values:
                return candidate
        raise RopewalkError(
            f"method {self.name} starts from a curve of {self.space.num_points} control points, and these factors "
            "don't say one that gives them: --method default starts from any factors"
        )

    def born(self) -> list[Candidate]:
        """The first population, or children of the elite."""
        if self.generation >= self.options.generations:
            return []
        return self._children() if self.generation else self._first_population()

    def _first_population(self) -> list[Candidate]:
        """The identity, the initial level, then mutants of the level."""
        level = self.space.level(self.options.initial_factor)
        size = self.options.population
        born = [child for child in (self.space.identity(), level)[:size] if self._is_new(child)]
        for index in range(len(born), size):
            if not self._append_new(born, self.rng(index), partial(self._first_mutant, level)):
                break
        return born

    def _children(self) -> list[Candidate]:
        elite = self.elite()
        born: list[Candidate] = []
        for index in range(self.options.mutations + self.options.crossovers):
            makers = (self._mutant,) if index < self.options.mutations else (self._cross, self._mutant)
            if not self._append_new(born, self.rng(index), *[partial(make, elite) for make in makers]):
                break
        return born

    def _append_new(self, born: list[Candidate], rng: np.random.Generator, *draws: Draw) -> bool:
        """Append the first child with factors not seen before: by each way of drawing in turn, then from anywhere.

        False where all are in vain: a small space is used up, and the generation ends here.
        """
        for draw in (*draws, self._anywhere):
            for _ in range(_REDRAWS):
                child, parents = draw(rng)
                if self._is_new(child):
                    born.append(child)
                    self._parents[child] = parents
                    return True
        return False

    def _is_new(self, child: Candidate) -> bool:
        """Whether no candidate before had these factors; from now on one has."""
        factors = self.space.factors(child).values
        if factors in self._seen:
            return False
        self._seen.add(factors)
        return True

    def _anywhere(self, rng: np.random.Generator) -> Born:
        return self._mutate(self.space.identity(), rng, probability=1.0, radius=math.inf), ()

    def _first_mutant(self, level: Candidate, rng: np.random.Generator) -> Born:
        return self._mutate(level, rng, probability=self.options.initial_probability), ()

    def _mutant(self, elite: list[Candidate], rng: np.random.Generator) -> Born:
        parent = elite[rng.integers(len(elite))]
        return self._mutate(parent, rng, probability=self.options.mutation_probability), (parent,)

    def _mutate(
        self, parent: Candidate, rng: np.random.Generator, *, probability: float, radius: float | None = None
    ) -> Candidate:
        """Redraw each point with `probability`, at least one: its factor near the parent's, an inner depth anywhere."""
        radius = self.options.radius if radius is None else radius
        redrawn = rng.random(len(parent.control_points)) < probability
        if not redrawn.any():
            redrawn[rng.integers(len(redrawn))] = True
        grid = self.space.grid()
        points = []
        for index, (x, y) in enumerate(parent.control_points):
            if not redrawn[index]:
                points.append((x, y))
                continue
            near = grid[np.abs(grid - y) <= radius + 1e-9]
            factor = float(rng.choice(near if len(near) else grid))
            inner = 0 < index < len(parent.control_points) - 1
            points.append((float(np.round(rng.integers(0, 21) * _X_STEP, 10)) if inner else x, factor))
        return Candidate(tuple(_ordered(points)))

    def _cross(self, elite: list[Candidate], rng: np.random.Generator) -> Born:
        """A child of two parents; one that is no curve is a mutant instead."""
        if len(elite) < 2:
            return self._mutant(elite, rng)
        one, other = (elite[index] for index in rng.choice(len(elite), size=2, replace=False))
        child = self._combine(one, other, rng)
        return self._mutant(elite, rng) if child is None else (child, (one, other))

    def _combine(self, one: Candidate, other: Candidate, rng: np.random.Generator) -> Candidate | None:
        """Each point from one of two parents; None if the x are out of order then."""
        chosen = rng.random(len(one.control_points)) < 0.5
        points = [
            a if first else b for a, b, first in zip(one.control_points, other.control_points, chosen, strict=True)
        ]
        return None if any(left[0] > right[0] for left, right in pairwise(points)) else Candidate(tuple(points))

    def check(self) -> None:
        """Raise `RopewalkError` for options that can't be meant."""
        own = self.options
        at_least(1, population=own.population, parents=own.parents, generations=own.generations)
        at_least(0, seed=self.seed, mutations=own.mutations, crossovers=own.crossovers)
        if own.mutations + own.crossovers < 1:
            raise RopewalkError("0 mutations and 0 crossovers: expected at least one child")
        for name in ("mutation_probability", "initial_probability"):
            if not 0 <= getattr(own, name) <= 1:
                raise RopewalkError(f"{name.replace('_', ' ')} is {getattr(own, name)}, expected 0 to 1")
        if not 0 < own.radius < math.inf:
            raise RopewalkError(f"radius is {own.radius}, expected a number > 0")
        if not self.space.low <= own.initial_factor <= self.space.high:
            raise RopewalkError(
                f"initial factor {own.initial_factor} is outside the bounds {self.space.low} to {self.space.high}"
            )


METHOD = BezierGA


def _ordered(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points with their inner x sorted; the factors stay where they are."""
    x = [points[0][0], *sorted(point[0] for point in points[1:-1]), points[-1][0]]
    return [(depth, factor) for depth, (_, factor) in zip(x, points, strict=True)]
