"""A control: a straight line over the depth, from a factor of the first layer to one of the last, coarse to fine.

Reviewers of the paper's follow-up (arXiv 2606.27705) found a line almost as good as a curve: it is to be beaten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.options import option
from ropewalk.search import uniform
from ropewalk.search.space import Candidate


@dataclass(frozen=True)
class Options(uniform.Options):
    """How finely the two ends are tried."""

    population: int | None = option(
        25, "Candidates of the first generation at most: all pairs of evenly spread ends; left open: of the grid's."
    )
    neighbours: int = option(1, "Factors tried on either side of both ends of the best so far in a later generation.")
    generations: int = option(4, "Generations; with one neighbour each halves the distance of the factors tried.")


class Line(uniform.Uniform):
    """`uniform` with two numbers, the ends of the line."""

    name: ClassVar[str] = "line"
    OPTIONS: ClassVar[type] = Options
    numbers: ClassVar[int] = 2
    options: Options

    def place(self, point: tuple[float, ...]) -> Candidate:
        """Evenly spread control points on the line: their curve is the line, in both modes."""
        first, last = point
        x = np.linspace(0, 1, self.space.num_points)
        y = np.linspace(first, last, self.space.num_points)
        return Candidate(tuple((float(depth), float(factor)) for depth, factor in zip(x, y, strict=True)))


METHOD = Line
