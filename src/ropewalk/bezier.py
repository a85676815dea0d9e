"""Bézier curves over the depth of a model: few control points become one factor per layer, and back.

Source: arXiv 2503.04355, section 3 (cubic curve); any number of control points here. A control point is (x, y):
x the depth in [0, 1] (0 is the first scaled layer, 1 the last), y the scaling factor.

Two ways to read the curve B(t) at layer k of n, whose depth is d = k / (n - 1):

* mode "depth": find t with x(t) = d, take y(t). Every coordinate counts.
* mode "uniform": t = d and x is ignored, as in the paper's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ropewalk.errors import FactorsError

Mode = Literal["depth", "uniform"]
Array = NDArray[np.float64]

BISECTIONS = 64  # halves [0, 1] below the spacing of float64
LOWEST_FITTED = 1e-3  # of the smallest factor: a fitted control point stays above, for a factor must be > 0
SAMPLED_STARTS = 80
REFINED_STARTS = 4
EXACT = 1e-14  # of the smallest factor: a residual that is rounding alone


def check_control_points(control_points: ArrayLike, mode: Mode = "depth") -> Array:
    """Return the control points as float64 [P, 2] or raise `FactorsError`.

    Required: P >= 2, all finite, y > 0. In mode "depth" also x[0] = 0, x[-1] = 1 and the inner x in [0, 1]; from
    five points on they must be sorted, for only then is x(t) monotone (up to four it is in any order).
    """
    _check_mode(mode)
    try:
        given = np.array(control_points)
        points = given.astype(np.float64)
    except (TypeError, ValueError):
        raise FactorsError(f"control points {control_points!r}: expected a list of (x, y) pairs") from None
    if given.dtype.kind not in "iuf":
        raise FactorsError(f"control points {control_points!r}: expected numbers")
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


def _check_mode(mode: str) -> None:
    if mode not in get_args(Mode):
        raise FactorsError(f"mode {mode!r}: expected one of {', '.join(get_args(Mode))}")


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
    t = _parameters(tuple(points[:, 0].tolist()), num_layers) if mode == "depth" else depths(num_layers)
    return curve(points[:, 1], t)


@lru_cache(maxsize=1024)  # a search has few different x, on a grid or even, and thousands of curves
def _parameters(x: tuple[float, ...], num_layers: int) -> Array:
    """The parameter t of each of `num_layers` scaled layers, [num_layers]; read-only, for it is shared."""
    t = solve_depth(x, depths(num_layers))
    t.flags.writeable = False
    return t


@dataclass(frozen=True)
class CurveFit:
    """The least-squares curve through given factors. `residual` is the root mean square error, in factor units."""

    control_points: Array
    residual: float


def fit_curve(factors: ArrayLike, num_points: int = 4, mode: Mode = "depth") -> CurveFit:
    """The Bézier curve of `num_points` control points that is nearest to `factors` [n] in least squares.

    Given x, the y are a linear least-squares problem with y > 0, solved exactly. In mode "depth" the inner x are found
    by bounded nonlinear least squares around it (variable projection) from the best of a fixed set of starts: up to
    four points a grid, from five on a sample of sorted x, where the result may be a local optimum. With fewer factors
    than points the flattest curve is taken. The control points can always be given to `curve_factors`.

    Raises `FactorsError` for factors that are not finite and positive, or fewer than two points.
    """
    _check_mode(mode)
    try:
        target = np.asarray(factors, dtype=np.float64)
    except (TypeError, ValueError):
        raise FactorsError(f"factors must be a list of numbers, got {factors!r}") from None
    if target.ndim != 1 or target.size == 0 or not np.isfinite(target).all() or (target <= 0).any():
        raise FactorsError(f"factors must be a non-empty list of finite numbers > 0, got {factors!r}")
    if num_points < 2:
        raise FactorsError(f"a curve needs at least 2 control points, got {num_points}")
    depth = depths(target.size)
    even = np.linspace(0.0, 1.0, num_points)
    best = _fit_at(even, depth, target, mode)
    if mode == "uniform" or num_points == 2:
        return best
    for start in _starts(num_points, depth, target):
        if best.residual < EXACT * target.min():
            break
        best = min(best, _fit_at(_fit_x(start, depth, target), depth, target, mode), key=lambda fit: fit.residual)
    return best


def _fit_at(x: Array, depth: Array, target: Array, mode: Mode) -> CurveFit:
    points = np.stack([x, _fit_y(_basis(x, depth, mode), target)], axis=1)
    error = curve_factors(points, target.size, mode) - target
    return CurveFit(points, float(np.sqrt(np.mean(error**2))))


def _basis(x: Array, depth: Array, mode: Mode) -> Array:
    """Bernstein weights [N, P] at the given depths: factors = basis @ y."""
    t = solve_depth(x, depth) if mode == "depth" else depth
    return np.stack([curve(row, t) for row in np.eye(len(x))], axis=1)


def _fit_y(basis: Array, target: Array) -> Array:
    """The positive y nearest to `target` through `basis`, whose rows sum to 1: shifting y shifts the curve."""
    middle = np.median(target)  # measured from here, so that the shortest solution is the flattest curve
    y = np.asarray(middle + np.linalg.lstsq(basis, target - middle, rcond=None)[0], dtype=np.float64)
    lowest = LOWEST_FITTED * target.min()
    if y.min() >= lowest:
        return y
    from scipy.optimize import nnls  # only the inverse needs scipy; curves must stay cheap to import

    return np.asarray(lowest + nnls(basis, target - lowest)[0], dtype=np.float64)


def _starts(num_points: int, depth: Array, target: Array) -> list[Array]:
    """The best inner x to start from, out of a grid (up to four points) or a fixed sample."""
    inner = num_points - 2
    if inner <= 2:
        axes = np.meshgrid(*[np.linspace(0.02, 0.98, 9)] * inner)  # off the bounds, where the optimiser can't start
        tried = np.stack([axis.ravel() for axis in axes], axis=1)
    else:
        tried = np.sort(np.random.default_rng(0).random((SAMPLED_STARTS, inner)), axis=1)
    errors = [float(np.sum(_residuals(x, depth, target) ** 2)) for x in tried]
    return [tried[index] for index in np.argsort(errors, kind="stable")[:REFINED_STARTS]]


def _with_ends(inner: Array) -> Array:
    ordered = np.sort(inner) if len(inner) > 2 else inner
    return np.concatenate([[0.0], np.clip(ordered, 0.0, 1.0), [1.0]])


def _residuals(inner: Array, depth: Array, target: Array) -> Array:
    basis = _basis(_with_ends(inner), depth, "depth")
    return np.asarray(basis @ _fit_y(basis, target) - target)


def _fit_x(start: Array, depth: Array, target: Array) -> Array:
    from scipy.optimize import least_squares

    tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
    found = least_squares(_residuals, start, bounds=(0.0, 1.0), args=(depth, target), max_nfev=200, **tight)
    return _with_ends(found.x)
