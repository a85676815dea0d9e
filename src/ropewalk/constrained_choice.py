"""The best value of each of many separate choices under constraints on sums: a multiple-choice knapsack.

    maximise Σ_l gain_l(c_l)  so that  Σ_l loss_kl(c_l) <= limit_k for every k

HiGHS solves it as an integer program; the limits' prices, Lagrange's multipliers, are those of its linear relaxation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

# What is lost by these is far below the noise of what is learnt from scores. No limit of time: the choice may not
# depend on the machine.
MIP = {"mip_rel_gap": 0.02, "node_limit": 50}


def constrained_choice(gains: Array, losses: Array, limits: Array, feasible: Integers) -> tuple[Integers, Array]:
    """The choices, [L], and the multipliers, [K] >= 0. Of equal values the first one is chosen where no limit binds.

    gains: [L, N]. losses: [K, L, N]. limits: [K]. feasible: [L], choices that keep all limits, taken if none better is
    found.
    """
    layers = np.arange(len(gains))
    free = gains.argmax(axis=1)
    if (losses[:, layers, free].sum(axis=1) <= limits).all():
        return free, np.zeros(len(losses))
    costs = losses.reshape(len(losses), -1)
    scale = np.maximum(np.abs(costs).max(axis=1), np.finfo(np.float64).tiny)  # the solver's tolerances are absolute
    unit = max(float(np.abs(gains).max()), float(np.finfo(np.float64).tiny))
    one_each = sparse.kron(sparse.eye(len(gains)), np.ones(gains.shape[1]), format="csr")
    relaxed = optimize.linprog(
        -gains.ravel() / unit, costs / scale[:, None], limits / scale, one_each, np.ones(len(gains)), bounds=(0, 1)
    )
    multipliers = np.zeros(len(limits))
    if relaxed.success:
        multipliers = np.maximum(0.0, -relaxed.ineqlin.marginals) * unit / scale
    whole = optimize.milp(
        -gains.ravel() / unit,
        integrality=np.ones(gains.size),
        bounds=optimize.Bounds(0, 1),
        constraints=[
            optimize.LinearConstraint(costs / scale[:, None], -np.inf, limits / scale),
            optimize.LinearConstraint(one_each, 1, 1),
        ],
        options=MIP,
    )
    if whole.x is None:
        return feasible, multipliers
    found = whole.x.reshape(gains.shape).argmax(axis=1)
    better = gains[layers, found].sum() > gains[layers, feasible].sum()
    return (found if better else feasible), multipliers
