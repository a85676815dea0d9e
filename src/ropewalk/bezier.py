"""Bézier curves over the depth of a model: few control points become one factor per layer, and back.

Source: arXiv 2503.04355, section 3 (cubic curve); any number of control points here. A control point is (x, y):
x the depth in [0, 1] (0 is the first scaled layer, 1 the last), y the scaling factor.

Two ways to read the curve B(t) at layer k of n, whose depth is d = k / (n - 1):

* mode "depth": find t with x(t) = d, take y(t). Every coordinate counts.
* mode "uniform": t = d and x is ignored, as in the paper's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ropewalk.errors import FactorsError

Mode = Literal["depth", "uniform"]
Array = NDArray[np.float64]

BISECTIONS = 64  # halves [0, 1] below the spacing of float64


def check_control_points(control_points: ArrayLike, mode: Mode = "depth") -> Array:
    """Return the control points as float64 [P, 2] or raise `FactorsError`.

    Required: P >= 2, all finite, y > 0. In mode "depth" also x[0] = 0, x[-1] = 1 and the inner x in [0, 1]; from
    five points on they must be sorted, for only then is x(t) monotone (up to four it is in any order).
    """
    if mode not in get_args(Mode):
        raise FactorsError(f"mode {mode!r}: expected one of {', '.join(get_args(Mode))}")
    try:
        points = np.array(control_points, dtype=np.float64)
    except (TypeError, ValueError):
        raise FactorsError(f"control points {control_points!r}: expected a list of (x, y) pairs") from None
    if points.ndim != 2 or points.shape[0] < 2 or points.shape[1] != 2:
        raise FactorsError(f"control points have shape {list(points.shape)}, expected [P, 2] with P >= 2")
    if not np.isfinite(points).all():
        raise FactorsError(f"control points must be finite, got {points.tolist()}")
    x, y = points.T
    if (y <= 0).any():
        raise FactorsError(f"control points need y > 0 (y is a scaling factor), got y = {y.tolist()}")
    if mode == "depth":
        if x[0] != 0 or x[-1] != 1 or (x < 0).any() or (x > 1).any():
            raise FactorsError(f"x must run from 0 to 1 with the inner ones in [0, 1], got x = {x.tolist()}")
        if len(x) > 4 and (np.diff(x) < 0).any():
            raise FactorsError(f"with five or more control points x must be sorted, got x = {x.tolist()}")
    return points


def curve(coordinates: ArrayLike, t: ArrayLike) -> Array:
    """One coordinate of the curve at parameters t in [0, 1], by de Casteljau's scheme.

    coordinates: [P]; t: [N]; returns [N]. Exact at t = 0 and t = 1, and where all coordinates are equal: factors
    of 1 must come out as exactly 1, for they promise the unchanged model.
    """
    parameter = np.asarray(t, dtype=np.float64)
    levels = np.repeat(np.asarray(coordinates, dtype=np.float64)[:, None], parameter.size, axis=1)
    while len(levels) > 1:
        low, high = levels[:-1], levels[1:]
        step = high - low
        levels = np.where(parameter < 0.5, low + step * parameter, high - step * (1 - parameter))
    return np.asarray(levels[0])


def solve_depth(x: ArrayLike, depth: ArrayLike) -> Array:
    """The parameters t with x(t) = depth, for a monotone x(t) from 0 to 1, by bisection in float64.

    x: [P]; depth: [N] in [0, 1]; returns [N]. Bisection needs no derivative, so a triple root (x'(t) = 0) is no
    special case; there t is only known to the cube root of the rounding error, as is inherent in the problem.
    """
    target = np.asarray(depth, dtype=np.float64)
    low, high = np.zeros_like(target), np.ones_like(target)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        below = curve(x, middle) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    t = 0.5 * (low + high)
    return np.where(target <= 0, 0.0, np.where(target >= 1, 1.0, t))


def depths(num_layers: int) -> Array:
    """Depth k / (n - 1) of each scaled layer, [n]; one layer alone has depth 0."""
    if num_layers < 1:
        raise FactorsError(f"number of scaled layers is {num_layers}, expected at least 1")
    return np.linspace(0.0, 1.0, num_layers)


def curve_factors(control_points: ArrayLike, num_layers: int, mode: Mode = "depth") -> Array:
    """The factor of each of `num_layers` scaled layers, float64 [num_layers]; layer 0 gets P0's end of the curve."""
    points = check_control_points(control_points, mode)
    depth = depths(num_layers)
    t = solve_depth(points[:, 0], depth) if mode == "depth" else depth
    return curve(points[:, 1], t)


@dataclass(frozen=True)
class CurveFit:
    """The least-squares curve through given factors. `residual` is the root mean square error, in factor units."""

    control_points: Array
    residual: float


def fit_curve(factors: ArrayLike, num_points: int = 4, mode: Mode = "depth") -> CurveFit:
    """The Bézier curve of `num_points` control points that is nearest to `factors` [n] in least squares.

    Given x, the y are a linear least-squares problem, solved exactly. In mode "depth" the inner x are found by
    bounded nonlinear least squares around it (variable projection) from several fixed starts. Sorted x only from
    five points on. Raises `FactorsError` for factors that are not finite and positive, or fewer than two points.
    """
    target = np.asarray(factors, dtype=np.float64)
    if target.ndim != 1 or target.size == 0 or not np.isfinite(target).all() or (target <= 0).any():
        raise FactorsError(f"factors must be a non-empty list of finite numbers > 0, got {factors!r}")
    if num_points < 2:
        raise FactorsError(f"a curve needs at least 2 control points, got {num_points}")
    depth = depths(target.size)
    even = np.linspace(0.0, 1.0, num_points)
    candidates = [even]
    if mode == "depth" and num_points > 2 and target.size > 2:
        candidates += [_fit_x(start, depth, target) for start in _starts(num_points)]
    best_x, (best_y, error) = min(
        ((x, _fit_y(x, depth, target, mode)) for x in candidates), key=lambda fit: (fit[1][1], fit[0].tolist())
    )
    return CurveFit(np.stack([best_x, best_y], axis=1), error)


def _basis(x: Array, depth: Array, mode: Mode) -> Array:
    """Bernstein weights [N, P] at the given depths: factors = basis @ y."""
    t = solve_depth(x, depth) if mode == "depth" else depth
    return np.stack([curve(row, t) for row in np.eye(len(x))], axis=1)


def _fit_y(x: Array, depth: Array, target: Array, mode: Mode) -> tuple[Array, float]:
    basis = _basis(x, depth, mode)
    y = np.linalg.lstsq(basis, target, rcond=None)[0]
    return y, float(np.sqrt(np.mean((basis @ y - target) ** 2)))


def _starts(num_points: int) -> list[Array]:
    """Inner x to start from: evenly spread, and crowded towards either end, the middle or both ends."""
    even = np.linspace(0.0, 1.0, num_points)[1:-1]
    return [even, even**2, np.sqrt(even), 0.5 + (even - 0.5) * 0.3, np.clip(0.5 + (even - 0.5) * 2.0, 0.02, 0.98)]


def _fit_x(start: Array, depth: Array, target: Array) -> Array:
    from scipy.optimize import least_squares  # only the inverse needs scipy; curves must stay cheap to import

    def with_ends(inner: Array) -> Array:
        ordered = np.sort(inner) if len(inner) > 2 else inner
        return np.concatenate([[0.0], np.clip(ordered, 0.0, 1.0), [1.0]])

    def residuals(inner: Array) -> Array:
        basis = _basis(with_ends(inner), depth, "depth")
        return np.asarray(basis @ np.linalg.lstsq(basis, target, rcond=None)[0] - target)

    found = least_squares(residuals, start, bounds=(0.0, 1.0), xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=200)
    return with_ends(found.x)
