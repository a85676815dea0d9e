"""A control: the genetic algorithm with a free factor for each layer and no curve.

The paper's central claim is that the curve beats it at an equal budget. Everything but the genes is `bezier-ga`'s.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ropewalk.factors import ScalingFactors
from ropewalk.search.bezier_ga import BezierGA
from ropewalk.search.space import Candidate


class LayerwiseGA(BezierGA):
    """Mutation and crossover of single layers' factors, on the space's grid."""

    name: ClassVar[str] = "layerwise-ga"

    def candidate_of(self, factors: ScalingFactors) -> Candidate:
        """The candidate of factors to start from."""
        return self.space.free(factors)

    def _mutate(
        self, parent: Candidate, rng: np.random.Generator, *, probability: float, radius: float | None = None
    ) -> Candidate:
        """Redraw each layer with `probability`, at least one: its factor near the parent's."""
        radius = self.options.radius if radius is None else radius
        factors, grid = self._genes(parent), self.space.grid()
        redrawn = rng.random(len(factors)) < probability
        if not redrawn.any():
            redrawn[rng.integers(len(redrawn))] = True
        for layer in np.flatnonzero(redrawn):
            near = grid[np.abs(grid - factors[layer]) <= radius + 1e-9]
            factors[layer] = rng.choice(near if len(near) else grid)
        return self.space.layerwise(factors)

    def _combine(self, one: Candidate, other: Candidate, rng: np.random.Generator) -> Candidate | None:
        """Each layer from one of two parents."""
        first, second = self._genes(one), self._genes(other)
        return self.space.layerwise(np.where(rng.random(len(first)) < 0.5, first, second))

    def _genes(self, candidate: Candidate) -> np.ndarray:
        values = self.space.factors(candidate).values
        return np.array([values[layer] for layer in self.space.scaled_layers], dtype=np.float64)


METHOD = LayerwiseGA
