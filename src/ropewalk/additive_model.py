"""An additive model of fitness: for each layer a smooth function of its factor, learnt from noisy scores of candidates.

    fitness(s) = Σ_l g_l(s_l),  g_l(1) = 0,  g_l ~ Gaussian process

This is Bayesian linear regression on the values of every g_l at the nodes of a grid, interpolated linearly in between.
Two things tell it from a textbook one: candidates that were scored on the same records share a random offset, for a
record likes some changes more than others whatever the layer, and the noise of a bad candidate grows with how bad it
is. Both are estimated. The prior's amplitude is the one of greatest evidence.

What must not grow beyond a limit, such as the loss at a position, is additive too, and learnt from the same candidates:
the optimum is then the best one that is expected to keep all limits (constrained_choice.py).
Source: additive Gaussian processes (D. Duvenaud et al., NeurIPS 2011); random intercepts as in any mixed model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from ropewalk.constrained_choice import constrained_choice

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

AMPLITUDES = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the prior, as multiples of the noise
PASSES = 2  # of reweighting: the noise depends on the fitted values
NOISE_SHARE = 0.7  # of the spread within groups that is noise at a fitness of 0
NOISE_GROWTH = 0.8  # standard deviation of the noise for each unit of fitness below 0
JITTER = 1e-6
ROUNDING = 1e-12  # a spread of scores as small as that is none


@dataclass(frozen=True)
class Posterior:
    """What is known of the functions at the nodes, [layers · nodes]: mean, and the precision's Cholesky factor."""

    mean: Array
    cholesky: Array
    evidence: float


class AdditiveModel:
    """The functions of `layers` layers over `nodes` (ascending factors, 1 among them); length: of their smoothness."""

    def __init__(self, layers: int, nodes: Array, length: float) -> None:
        self.layers, self.nodes = layers, nodes
        scaled = (nodes[:, None] - nodes) / length
        at_one = np.exp(-(((nodes - 1) / length) ** 2) / 2)
        # Conditioned on g(1) = 0. At the node 1 itself the variance is only the jitter.
        self._covariance = np.exp(-(scaled**2) / 2) - np.outer(at_one, at_one) + JITTER * np.eye(len(nodes))
        self._precision = np.linalg.inv(self._covariance)
        self._log_determinant = float(np.linalg.slogdet(self._covariance)[1])
        self.posterior = self._prior(1.0)
        self.noise = 0.0
        self._order = np.argsort(np.abs(nodes - 1), kind="stable")  # of equal values the node nearest to 1 is taken
        self._optimum = np.ones(layers)
        self._penalty = np.zeros(layers * len(nodes))  # what constraints cost at each node

    def fit(
        self,
        factors: Array,
        scores: Array,
        groups: Sequence[int],
        losses: Array | None = None,
        limits: Sequence[float] = (),
    ) -> None:
        """Learn from candidates: factors [N, layers], scores [N], groups [N] (who were scored on the same records).

        losses, limits: [N, K] and [K], what must not exceed its limit; 0 at factor 1, as the score is. With fewer than
        two candidates whose numbers are finite nothing is learnt.
        """
        lost = np.zeros((len(scores), 0)) if losses is None else losses
        finite = np.isfinite(scores) & np.isfinite(lost).all(axis=1)
        if finite.sum() < 2:
            return
        features, values = self._features(factors[finite]), scores[finite]
        members = np.unique(np.asarray(groups)[finite], return_inverse=True)[1].astype(np.int64)
        self.noise = _spread_within(values, members)
        fitted = features @ self.posterior.mean
        for _ in range(PASSES):
            deviation = NOISE_SHARE * self.noise + NOISE_GROWTH * np.maximum(0.0, -fitted)
            information, projected = self._information(features, values, lost[finite], members, deviation**-2)
            found = self._posteriors(information, projected[:, 0])
            self.posterior = max(found, key=lambda posterior: posterior.evidence)
            fitted = features @ self.posterior.mean
        self._constrain(projected[:, 1:], np.asarray(limits, dtype=np.float64))

    def predict(self, factors: Array) -> Array:
        """Expected fitness of candidates [N, layers] -> [N]."""
        return np.asarray(self._features(factors) @ self.posterior.mean)

    def best(self, caution: float = 0.0) -> Array:
        """The factors, [layers], with the highest expected functions, each less `caution` standard deviations.

        Without caution they are expected to keep all limits; with it their functions pay for what they lose.
        """
        if not caution:
            return self._optimum
        mean = self.posterior.mean
        inverse = linalg.solve_triangular(self.posterior.cholesky, np.eye(len(mean)), lower=True)
        return self._highest(mean - caution * np.sqrt((inverse**2).sum(axis=0)))

    def sample(self, rng: np.random.Generator, exploration: float = 1.0) -> Array:
        """The best factors, [layers], of functions drawn from the posterior (Thompson sampling).

        exploration: the drawn deviations from the mean are multiplied with it.
        """
        drawn = rng.standard_normal(len(self.posterior.mean))
        deviation = linalg.solve_triangular(self.posterior.cholesky, drawn, lower=True, trans="T")
        return self._highest(self.posterior.mean + exploration * deviation)

    def _highest(self, functions: Array) -> Array:
        """The node of each layer's highest value, less what constraints cost there."""
        rows = (functions - self._penalty).reshape(self.layers, len(self.nodes))[:, self._order]
        return np.asarray(self.nodes[self._order[rows.argmax(axis=1)]])

    def _features(self, factors: Array) -> Array:
        """Weights of linear interpolation, [N, layers · nodes]."""
        place = np.interp(factors, self.nodes, np.arange(len(self.nodes)))
        left = np.minimum(place.astype(np.int64), max(0, len(self.nodes) - 2))
        share = place - left
        features = np.zeros((*factors.shape, len(self.nodes)))
        np.put_along_axis(features, left[..., None], (1 - share)[..., None], axis=2)
        if len(self.nodes) > 1:
            np.put_along_axis(features, left[..., None] + 1, share[..., None], axis=2)
        return features.reshape(len(factors), -1)

    def _information(
        self, features: Array, values: Array, losses: Array, members: Integers, weights: Array
    ) -> tuple[Array, Array]:
        """What the scores and losses say of their functions, the groups' offsets (of the noise's size) integrated out.

        Precision [p, p] and, in columns, the right-hand sides [p, 1 + K].
        """
        weighted = features * weights[:, None]
        order = np.argsort(members, kind="stable")
        firsts = np.searchsorted(members[order], np.arange(int(members.max()) + 1))
        offset = np.add.reduceat(weighted[order], firsts, axis=0)
        total = np.bincount(members, weights)
        targets = np.column_stack([values, losses])
        level = np.add.reduceat((weights[:, None] * targets)[order], firsts, axis=0)
        shrunk = (1 / (total + 1 / self.noise**2))[:, None]
        information = features.T @ weighted - offset.T @ (offset * shrunk)
        return information, weighted.T @ targets - offset.T @ (shrunk * level)

    def _posteriors(self, information: Array, projected: Array) -> list[Posterior]:
        """The posterior under each of the amplitudes."""
        return [self._solve(information, projected, self.noise * size) for size in AMPLITUDES]

    def _constrain(self, projected: Array, limits: Array) -> None:
        """The optimum under the limits, and what they cost at each node; projected: of the losses, [p, K].

        The losses' functions are learnt with the precision of the score's: noise and amplitude in the same proportion.
        """
        shape = (-1, self.layers, len(self.nodes))
        losses = np.asarray(linalg.cho_solve((self.posterior.cholesky, True), projected)).T.reshape(shape)
        gains = self.posterior.mean.reshape(shape[1:])[:, self._order]
        still = np.zeros(self.layers, dtype=np.int64)  # factor 1, which loses nothing
        chosen, multipliers = constrained_choice(gains, losses[:, :, self._order], limits, still)
        self._optimum = np.asarray(self.nodes[self._order[chosen]])
        self._penalty = np.tensordot(multipliers, losses, axes=1).ravel()

    def _prior(self, amplitude: float) -> Posterior:
        size = self.layers * len(self.nodes)
        return self._solve(np.zeros((size, size)), np.zeros(size), amplitude)

    def _solve(self, information: Array, projected: Array, amplitude: float) -> Posterior:
        """The posterior under a prior of that amplitude, and the evidence but for what all amplitudes share."""
        precision = information + linalg.block_diag(*[self._precision / amplitude**2] * self.layers)
        cholesky = linalg.cholesky(precision, lower=True)
        mean = linalg.cho_solve((cholesky, True), projected)
        prior = self.layers * (self._log_determinant + 2 * len(self.nodes) * np.log(amplitude))
        evidence = (projected @ mean - prior) / 2 - float(np.log(np.diag(cholesky)).sum())
        return Posterior(np.asarray(mean), np.asarray(cholesky), float(evidence))


def _spread_within(values: Array, members: Integers) -> float:
    """Robust standard deviation of the scores around their group's median; never 0."""
    counts = np.bincount(members)
    firsts = np.cumsum(counts) - counts
    ordered = values[np.lexsort((values, members))]  # group by group, each in ascending order
    medians = (ordered[firsts + (counts - 1) // 2] + ordered[firsts + counts // 2]) / 2
    alone = len(medians) > len(values) / 2  # groups of one have no spread within
    centred = np.abs(values - (np.median(values) if alone else medians[members]))
    spread = 1.4826 * float(np.median(centred[centred > 0])) if (centred > 0).any() else 0.0
    return spread if spread > ROUNDING else max(float(np.abs(values).mean()), JITTER)
