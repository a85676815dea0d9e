"""A quadratic surface through the responses of a small design, one for each record, and its mean."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def design(dimensions: int) -> Array:
    """[1 + 2·P + 2·P·(P−1), P] of −1, 0, 1: the centre, each one alone, each two together, up and down.

    Two together also move against each other: where U is not quadratic, what was never tried would be made up.
    """
    eye, signs = np.eye(dimensions), (-1, 1)
    alone = [sign * step for step in eye for sign in signs]
    pairs = [
        first * eye[one] + second * eye[other]
        for one, other in combinations(range(dimensions), 2)
        for first, second in product(signs, signs)
    ]
    return np.array([np.zeros(dimensions), *alone, *pairs])


@dataclass(frozen=True)
class Surface:
    """f(z) = g·z + ½ z·H·z, least squares over the design, for each record. 0 at the centre, which is the reference.

    slopes: g, [records, P]. hessians: H, [records, P, P]. explained: R² of the mean surface over the design;
    misfit: by how much it is off there, root mean square.
    """

    slopes: Array
    hessians: Array
    explained: float
    misfit: float

    @classmethod
    def fit(cls, steps: Array, responses: Array) -> Self:
        """steps: [arms, P]. responses: [records, arms], above the centre."""
        dimensions = steps.shape[1]
        rows, columns = np.triu_indices(dimensions)
        shares = np.where(rows == columns, 0.5, 1.0)  # z·H·z / 2 has every mixed term twice
        terms = np.concatenate([steps, shares * steps[:, rows] * steps[:, columns]], axis=1)
        found = responses @ np.linalg.pinv(terms).T
        hessians = np.zeros((len(responses), dimensions, dimensions))
        hessians[:, rows, columns] = hessians[:, columns, rows] = found[:, dimensions:]
        mean, fitted = responses.mean(axis=0), (terms @ found.T).mean(axis=1)
        left, spread = float(((mean - fitted) ** 2).mean()), float(mean.var())
        explained = 1.0 if spread == 0 else 1 - left / spread
        return cls(found[:, :dimensions], hessians, explained, float(np.sqrt(left)))

    def eigenvectors(self) -> list[Array]:
        """Unit vectors [P] of the mean Hessian, by falling size of curvature; the largest part of each is above 0."""
        values, vectors = np.linalg.eigh(self.hessians.mean(axis=0))
        order = np.argsort(-np.abs(values), kind="stable")
        found = [vectors[:, number] for number in order]
        return [vector * np.sign(vector[np.argmax(np.abs(vector))]) for vector in found]

    def along(self, vector: Array) -> tuple[Array, Array]:
        """For each record slope and curvature of a unit step: (f(v) − f(−v)) / 2 and (f(v) + f(−v)) / 2, [records]."""
        return self.slopes @ vector, np.einsum("rij,i,j->r", self.hessians, vector, vector) / 2

    def mean_at(self, step: Array) -> float:
        """The mean surface at one step [P]."""
        slope, curvature = self.along(step)
        return float((slope + curvature).mean())

    def to_json(self) -> dict[str, Any]:
        """The mean surface."""
        return {
            "slope": self.slopes.mean(axis=0).tolist(),
            "hessian": self.hessians.mean(axis=0).tolist(),
            "explained": self.explained,
            "misfit": self.misfit,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """A surface whose only record is the mean one."""
        slope, hessian = np.array([document["slope"]]), np.array([document["hessian"]])
        return cls(slope, hessian, float(document["explained"]), float(document["misfit"]))
