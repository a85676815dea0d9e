"""A control: CMA-ES over the factors of all layers, which starts out smooth over the depth and grows rough.

The first covariance says that neighbouring layers move together, over a length of `smoothness` of the depth, and that a
share `roughness` of their variance is each layer's own: the first steps are along curves, as the paper's are, and the
adaptation frees single layers where that pays. Each generation is scored on records of its own, the same for all its
members, so that nothing is learnt by heart; there are few of them at first, when the differences are large, and more
later. The first member of a generation is the mean of the distribution: it is what is proposed in the end, for an
average of many samples is better than the luckiest one, and whom the others race against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.errors import RopewalkError
from ropewalk.options import option
from ropewalk.search import cma_es
from ropewalk.search.base import Told, at_least
from ropewalk.search.cma_es import Array
from ropewalk.search.space import Candidate, SearchSpace

FINAL_MEANS = 3  # finalists: the mean at the end, and earlier ones at even distances


@dataclass(frozen=True)
class Options(cma_es.Options):
    """How the distribution is sampled, and what its samples are scored on."""

    population: int = option(14, "Candidates of a generation, beside their mean.")
    generations: int = option(60, "Generations.")
    sigma: float = option(0.06, "Standard deviation of a factor in the first generation.")
    smoothness: float = option(0.25, "Distance in depth (0 to 1) over which the first samples vary together.")
    roughness: float = option(0.2, "Share of a layer's variance that is its own in the first samples.")
    first_records: int = option(8, "Records of each task that the first generation is scored on.")
    last_records: int = option(24, "The same for the last one; in between the number grows geometrically.")


class SmoothCma(cma_es.CmaEs):
    """Smooth-to-rough CMA-ES on changing records; see `Options` and the module."""

    name: ClassVar[str] = "smooth-cma"
    OPTIONS: ClassVar[type] = Options
    options: Options

    def __init__(self, space: SearchSpace, seed: int = 0, **options: object) -> None:
        self._means: list[Told] = []  # one a generation that was told
        super().__init__(space, seed, **options)

    def check(self) -> None:
        """Raise `RopewalkError` for options that can't be meant."""
        super().check()
        own = self.options
        at_least(1, first_records=own.first_records, last_records=own.last_records)
        if not own.smoothness > 0 or not 0 <= own.roughness <= 1:
            raise RopewalkError(
                f"smoothness {own.smoothness} and roughness {own.roughness}: expected smoothness > 0 and 0 <= "
                "roughness <= 1"
            )

    @property
    def candidates_in_all(self) -> int:
        """Candidates of a whole run, the means and the identity among them."""
        return (self.options.population + 1) * self.options.generations + 1

    def start(self) -> Array:
        """Factor 1 in every layer."""
        return np.ones(len(self.space.scaled_layers))

    def covariance(self) -> Array:
        """A squared exponential over the depth, and each layer's own share."""
        depth = np.linspace(0, 1, len(self.space.scaled_layers))
        near = np.exp(-(((depth[:, None] - depth) / self.options.smoothness) ** 2) / 2)
        own = max(self.options.roughness, 1e-6)  # never singular
        return np.asarray((1 - own) * near + own * np.eye(len(depth)))

    def place(self, vector: Array) -> Candidate:
        """The candidate with a vector of factors."""
        return self.space.layerwise(np.clip(vector, self.space.low, self.space.high))

    def born(self) -> list[Candidate]:
        """The mean and samples around it; after the last generation the mean alone, which is the result."""
        if self.generation > self.options.generations or (self.generation and self.space.low == self.space.high):
            return []
        self._vectors = {}
        mean = self.mean()
        if self.generation == self.options.generations or self.space.low == self.space.high:
            return [mean]
        return [mean, *self.samples({self.space.factors(mean).values})]

    def learn(self, told: list[Told]) -> None:  # type: ignore[override]
        """Update the distribution; its mean comes first."""
        super().learn(told)
        self._means.append(told[0])

    def mean(self) -> Candidate:
        """The mean of the distribution."""
        return self.place(self.optimizer.mean)

    def records(self, slot: int, available: int) -> list[int]:
        """The next records in turn, from the first ones again after the last."""
        return self._window(self.generation, available)

    def sizes(self, available: Sequence[int]) -> list[tuple[int, tuple[tuple[int, ...], ...]]]:
        """What each generation scores, and the last mean."""
        counts = [self.options.population + 1] * self.options.generations + [1]
        return [
            (candidates, tuple(tuple(self._window(generation, count)) for count in available))
            for generation, candidates in enumerate(counts)
        ]

    def rival(self) -> Candidate | None:
        """The mean."""
        return self.mean() if self.generation < self.options.generations else None

    def finalists(self) -> list[Candidate]:
        """The last mean, and earlier ones."""
        means = [candidate for candidate, score in self._means if np.isfinite(score)][::-1]
        chosen = means[: 1 + (FINAL_MEANS - 1) * max(1, len(means) // 4) : max(1, len(means) // 4)]
        return list(dict.fromkeys(chosen))

    def _window(self, generation: int, available: int) -> list[int]:
        start = sum(self._size(earlier, available) for earlier in range(generation))
        return sorted((start + index) % available for index in range(self._size(generation, available)))

    def _size(self, generation: int, available: int) -> int:
        done = min(1.0, generation / max(1, self.options.generations - 1))
        first, last = self.options.first_records, self.options.last_records
        return min(available, round(float(first * (last / first) ** done)))


METHOD = SmoothCma
