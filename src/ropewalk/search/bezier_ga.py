"""The paper's search: a genetic algorithm over the control points of a Bézier curve (arXiv 2503.04355, section 3.3).

    method = BezierGA(space, seed=0)
    while candidates := method.ask():
        method.tell(candidates, [fitness(space.factors(candidate)) for candidate in candidates])

Differences from the paper: factors below 1 are allowed, and the identity is in the first population. No two candidates
of a run give the same factors: that is what a child "seen before" means here, for control points that differ may draw
the same curve (in mode "uniform" x has no effect).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from ropewalk.errors import RopewalkError
from ropewalk.search.space import Candidate, SearchSpace

_X_STEP = 0.05  # grid of the inner control points' depth
_REDRAWS = 100  # a child whose factors were seen is redrawn so often; then it is drawn in a wider way

Draw = Callable[[np.random.Generator], Candidate]


class BezierGA:
    """Genetic algorithm with truncation selection and elitism.

    population: size of the first generation. parents: the best individuals so far, from which children are made.
    mutations, crossovers: children a generation. generations: counting the first. mutation_probability: that a control
    point is redrawn in a mutation (one always is). initial_probability: the same for the first population, which
    mutates the initial level; 0 redraws one point at a time, which soonest tells a small search what matters. radius:
    a redrawn factor lies within ± radius of the parent's, on the space's grid. initial_factor: level of the individuals
    that the first population is drawn around.
    """

    name: ClassVar[str] = "bezier-ga"

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        *,
        population: int = 32,
        parents: int = 16,
        mutations: int = 16,
        crossovers: int = 16,
        generations: int = 20,
        mutation_probability: float = 0.3,
        initial_probability: float = 1.0,
        radius: float = 0.2,
        initial_factor: float = 1.0,
    ) -> None:
        self.space, self.seed = space, seed
        self.population, self.parents = population, parents
        self.mutations, self.crossovers, self.generations = mutations, crossovers, generations
        self.mutation_probability, self.initial_probability = mutation_probability, initial_probability
        self.radius, self.initial_factor = radius, initial_factor
        self._check()
        self._told: list[tuple[Candidate, float]] = []  # of complete generations, in the order of birth
        self._seen: set[tuple[float | None, ...]] = set()  # factors of all that were born
        self._generation = 0
        self._born = self._first_population()
        self._asked = 0
        self._scores: dict[int, float] = {}

    @property
    def candidates_in_all(self) -> int:
        """Candidates of a whole run, the identity among them, if the space holds as many."""
        return self.population + (self.generations - 1) * (self.mutations + self.crossovers)

    def ask(self, n: int | None = None) -> list[Candidate]:
        """Up to n further candidates of the current generation (None: all that are left)."""
        if n is not None and n < 0:
            raise ValueError(f"{n} candidates are asked for, expected at least 0")
        stop = len(self._born) if n is None else min(len(self._born), self._asked + n)
        candidates = self._born[self._asked : stop]
        self._asked = stop
        return candidates

    def tell(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Take fitness; the next generation opens when every member of this one is told.

        Raises `ValueError`, and takes none of them, if one was not asked for in this generation or is told twice.
        """
        open_slots = {self._born[slot]: slot for slot in range(self._asked) if slot not in self._scores}
        told: dict[int, float] = {}
        for candidate, score in zip(candidates, scores, strict=True):
            slot = open_slots.pop(candidate, None)
            if slot is None:
                raise ValueError(f"{candidate} is told but was not asked for in this generation, or is told twice")
            told[slot] = float(score)
        self._scores |= told
        if self._born and len(self._scores) == len(self._born):
            self._told += [(candidate, self._scores[slot]) for slot, candidate in enumerate(self._born)]
            self._generation += 1
            self._asked, self._scores = 0, {}
            self._born = self._children() if self._generation < self.generations else []

    def elite(self) -> list[Candidate]:
        """The best individuals so far, best first; failed ones (NaN) last, ties in the order of birth."""
        ranked = sorted(self._told, key=lambda pair: (math.isnan(pair[1]), -pair[1]))
        return [candidate for candidate, _ in ranked[: self.parents]]

    def settings(self) -> dict[str, Any]:
        """All that determines the proposals, as JSON."""
        names = ("population", "parents", "mutations", "crossovers", "generations", "mutation_probability", "radius")
        options = {name: getattr(self, name) for name in (*names, "initial_probability", "initial_factor")}
        return {"method": self.name, "seed": self.seed, "space": self.space.settings(), **options}

    def _first_population(self) -> list[Candidate]:
        """The identity, the initial level, then mutants of the level."""
        level = self.space.level(self.initial_factor)
        born = [child for child in (self.space.identity(), level)[: self.population] if self._is_new(child)]
        for index in range(len(born), self.population):
            rng = np.random.default_rng([self.seed, 0, index])
            if not self._append_new(
                born, rng, lambda rng: self._mutate(level, rng, probability=self.initial_probability)
            ):
                break
        return born

    def _children(self) -> list[Candidate]:
        elite = self.elite()
        born: list[Candidate] = []
        for index in range(self.mutations + self.crossovers):
            rng = np.random.default_rng([self.seed, self._generation, index])
            makers = (self._mutant,) if index < self.mutations else (self._cross, self._mutant)
            if not self._append_new(born, rng, *[partial(make, elite) for make in makers]):
                break
        return born

    def _append_new(self, born: list[Candidate], rng: np.random.Generator, *draws: Draw) -> bool:
        """Append the first child with factors not seen before: by each way of drawing in turn, then from anywhere.

        False where all are in vain: a small space is used up, and the generation ends here.
        """
        for draw in (*draws, self._anywhere):
            for _ in range(_REDRAWS):
                child = draw(rng)
                if self._is_new(child):
                    born.append(child)
                    return True
        return False

    def _is_new(self, child: Candidate) -> bool:
        """Whether no candidate before had these factors; from now on one has."""
        factors = self.space.factors(child).values
        if factors in self._seen:
            return False
        self._seen.add(factors)
        return True

    def _anywhere(self, rng: np.random.Generator) -> Candidate:
        return self._mutate(self.space.identity(), rng, probability=1.0, radius=math.inf)

    def _mutant(self, elite: list[Candidate], rng: np.random.Generator) -> Candidate:
        return self._mutate(elite[rng.integers(len(elite))], rng, probability=self.mutation_probability)

    def _mutate(
        self, parent: Candidate, rng: np.random.Generator, *, probability: float, radius: float | None = None
    ) -> Candidate:
        """Redraw each point with `probability`, at least one: its factor near the parent's, an inner depth anywhere."""
        radius = self.radius if radius is None else radius
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

    def _cross(self, elite: list[Candidate], rng: np.random.Generator) -> Candidate:
        """Each point from one of two parents; a child whose x are out of order is a mutant instead."""
        if len(elite) < 2:
            return self._mutant(elite, rng)
        one, other = (elite[index] for index in rng.choice(len(elite), size=2, replace=False))
        chosen = rng.random(len(one.control_points)) < 0.5
        points = [
            a if first else b for a, b, first in zip(one.control_points, other.control_points, chosen, strict=True)
        ]
        if any(left[0] > right[0] for left, right in pairwise(points)):
            return self._mutant(elite, rng)
        return Candidate(tuple(points))

    def _check(self) -> None:
        for name in ("population", "parents", "generations"):
            if getattr(self, name) < 1:
                raise RopewalkError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.mutations < 0 or self.crossovers < 0 or self.mutations + self.crossovers < 1:
            raise RopewalkError(
                f"{self.mutations} mutations and {self.crossovers} crossovers: expected at least one child"
            )
        for name in ("mutation_probability", "initial_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise RopewalkError(f"{name.replace('_', ' ')} is {getattr(self, name)}, expected 0 to 1")
        if not 0 < self.radius < math.inf:
            raise RopewalkError(f"radius is {self.radius}, expected a number > 0")
        if self.seed < 0:
            raise RopewalkError(f"seed is {self.seed}, expected at least 0")
        if not self.space.low <= self.initial_factor <= self.space.high:
            raise RopewalkError(
                f"initial factor {self.initial_factor} is outside the bounds {self.space.low} to {self.space.high}"
            )


METHOD = BezierGA


def _ordered(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points with their inner x sorted; the factors stay where they are."""
    x = [points[0][0], *sorted(point[0] for point in points[1:-1]), points[-1][0]]
    return [(depth, factor) for depth, (_, factor) in zip(x, points, strict=True)]
