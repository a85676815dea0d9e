"""How much the control points of given factors matter: U around them, and the directions in which it is flat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ropewalk.analysis.base import Analysis, Json, Subject
from ropewalk.analysis.parts.effects import cells, difference, direction, effect, size, too_few
from ropewalk.analysis.parts.surface import Surface, design
from ropewalk.bezier import curve_factors, depths
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors
from ropewalk.objectives import position_weights
from ropewalk.options import option
from ropewalk.stats import holm

if TYPE_CHECKING:
    from ropewalk.report.panel import Panel

LOWEST = 0.05  # a factor that the changes would bring below is refused: positions would be stretched beyond sense


@dataclass(frozen=True)
class Options:
    """How far, and along how many points."""

    delta: float = option(0.3, "By how much a control point is raised and lowered.")
    points: int = option(4, "Control points, evenly spread, of factors that don't name their own.")


class Sensitivity(Analysis):
    """Control points ± delta, each alone and each two together; a quadratic surface through what U does.

    What is added to the factors is the curve of the changed points less that of the points as they are, so factors on
    no curve are served too, and points of 1 stand for them. Each record has a surface of its own, of which the mean is
    shown: intervals come from the bootstrap over records, p-values from exchanging their signs. The directions are the
    eigenvectors of the mean surface's Hessian. Intervals know nothing of how well the surface fits, so a direction
    counts as flat too where U changes by less than the surface is off.
    """

    name: ClassVar[str] = "sensitivity"
    question: ClassVar[str] = "Which control points matter, and in which directions is U flat?"
    example: ClassVar[str] = "ropewalk analyze sensitivity --model demo --keys 10 --factors kv"
    OPTIONS: ClassVar[type] = Options

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        if not 0 < self.options.delta < math.inf:
            raise DataError(f"analysis sensitivity: option 'delta' is {self.options.delta}, expected a number above 0")
        if not 2 <= self.options.points <= 8:
            raise DataError(f"analysis sensitivity: option 'points' is {self.options.points}, expected 2 to 8")

    def records(self, subject: Subject) -> Json:
        """What each change does to U, the fitted surface, and U along its directions."""
        given = subject.one_set
        basis = _basis(subject, given, self.options.points)
        steps = design(len(basis))
        arms = {_name(step): _changed(given, self.options.delta * (step @ basis)) for step in steps}
        scored = subject.score({"vanilla": None, **arms}, stage="Control points")
        centre = scored[_name(steps[0])]
        weights = position_weights(len(centre.positions))
        gains = np.array([(scored[name].log_likelihoods - centre.log_likelihoods) @ weights for name in arms])
        if not np.isfinite(gains).all():
            raise DataError("some log-likelihoods are not finite, so there is no surface; a smaller --delta may help")
        surface = Surface.fit(steps, gains.T)
        return {
            "positions": list(centre.positions),
            "records": len(centre.records),
            "delta": self.options.delta,
            "points": len(basis),
            "reach": [_reach(row, subject.rotary_layers) for row in basis],
            "factors": list(given.values),
            "over_vanilla": effect(scored["vanilla"], centre),
            "alone": [
                {sign: difference(gains[_place(steps, point, value)]) for sign, value in (("-", -1), ("+", 1))}
                for point in range(len(basis))
            ],
            "surface": surface.to_json(),
            "directions": _directions(surface),
        }

    def answer(self, records: Json) -> str:
        """One sentence that answers the question, with an interval."""
        found = records["directions"]
        flat = [one for one in found if not _matters(one, records["surface"]["misfit"])]
        steep = max(found, key=lambda one: max(abs(one["slope"]["difference"]), abs(one["curvature"]["difference"])))
        most = max(("slope", "curvature"), key=lambda part: abs(float(steep[part]["difference"])))
        back = "either way" if most == "curvature" else "the other way by the opposite"
        return (
            f"Within ±{records['delta']:g} of the control points U is flat along {len(flat)} of {len(found)} "
            f"directions (as far as {records['records']} records and the fit tell); along the steepest, "
            f"{_weights(steep)}, it changes by {size(steep[most])}, {back}."
        )

    def remarks(self, records: Json) -> list[str]:
        """The most sensitive point, what the surface explains, and the gain that all this is about."""
        rows = [(point, sign, row) for point, both in enumerate(records["alone"], 1) for sign, row in both.items()]
        surface = records["surface"]
        point, sign, row = max(rows, key=lambda item: abs(float(item[2]["difference"])))
        return [
            *too_few(records["records"], 2 * len(records["directions"])),
            f"Alone, control point {point} {sign}{records['delta']:g} (mostly layers {records['reach'][point - 1]}) "
            f"changes U the most: {size(row)}.",
            f"The quadratic surface explains {100 * surface['explained']:.0f} % of what U does in the design and is "
            f"off by {surface['misfit']:.2g} nats a token there; what is smaller is called flat.",
            f"The factors themselves are above vanilla in U by {size(records['over_vanilla']['likelihood'])}.",
        ]

    def panels(self, records: Json) -> list[Panel]:
        """Each point alone, the directions, and the surface over the steepest two."""
        return [_alone_panel(records), _directions_panel(records), _surface_panel(records)]


def _basis(subject: Subject, given: ScalingFactors, points: int) -> Any:
    """What a control point that is raised by 1 adds to each rotary layer's factor, [points, rotary layers]."""
    found = given.found
    own = found.get("control_points") or [[x, 1.0] for x in depths(points)]
    method = found.get("method")
    space = method.get("space", {}) if isinstance(method, dict) else {}
    skipped, rotary = int(space.get("skip_first", 0)), len(subject.rotary_layers)
    rows = []
    for point in range(len(own)):
        raised = [(x, 2.0 if number == point else 1.0) for number, (x, _) in enumerate(own)]
        scaled = curve_factors(raised, rotary - skipped, space.get("mode", "depth")) - 1.0
        rows.append([*[0.0] * skipped, *scaled.tolist()])
    return np.array(rows)


def _changed(given: ScalingFactors, added: Any) -> ScalingFactors:
    """The factors with something added in every rotary layer. Raises `DataError` where one would all but vanish."""
    values, added = list(given.values), iter(added.tolist())
    changed = [None if value is None else value + next(added) for value in values]
    smallest = min(value for value in changed if value is not None)
    if smallest < LOWEST:
        raise DataError(f"a factor would become {smallest:.3g}, expected at least {LOWEST}; give a smaller --delta")
    return ScalingFactors(changed)


def _name(step: Any) -> str:
    return " ".join(f"{int(value):+d}" for value in step)


def _place(steps: Any, point: int, value: int) -> int:
    """The arm in which this point alone is changed."""
    wanted = np.zeros(steps.shape[1])
    wanted[point] = value
    return int(np.flatnonzero((steps == wanted).all(axis=1))[0])


def _reach(row: Any, rotary: list[int]) -> str:
    """The layers that get at least half of the point's largest part."""
    layers = [layer for layer, part in zip(rotary, row, strict=True) if part >= max(row) / 2]
    return f"{layers[0]} to {layers[-1]}"


def _directions(surface: Surface) -> list[Json]:
    """Unit steps along the Hessian's eigenvectors, the most curved first; p-values corrected for their number (Holm).

    curvature: the mean change at both ends of a step; slope: half the difference between them.
    """
    found: list[Json] = []
    for vector in surface.eigenvectors():
        slope, curvature = surface.along(vector)
        found.append({"vector": vector.tolist(), "slope": difference(slope), "curvature": difference(curvature)})
    rows = [one[part] for one in found for part in ("slope", "curvature")]
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = float(p)
    return found


def _matters(one: Json, misfit: float) -> bool:
    """Whether U changes along it outside the noise, and by more than the surface is off."""
    rows = (one["slope"], one["curvature"])
    return any(direction(row) and abs(row["difference"]) > misfit for row in rows)


def _weights(one: Json) -> str:
    """A direction in words: the share of each control point."""
    return "(" + ", ".join(f"{value:+.2f}" for value in one["vector"]) + ")"


def _alone_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, named_axis
    from ropewalk.report.panel import Panel

    delta = f"{records['delta']:g}"
    shown = [
        (f"point {point}", f"{sign}{delta}", row)
        for point, both in enumerate(records["alone"], 1)
        for sign, row in both.items()
    ]
    rows: list[dict[str, Any]] = [
        {"arm": change, "x": point, "y": row["difference"], "low": row["low"], "high": row["high"]}
        for point, change, row in shown
    ]
    points = list(dict.fromkeys(point for point, _, _ in shown))
    return Panel(
        key="sensitivity-alone",
        title="One control point changed",
        note=f"U of the log-likelihood against the factors as given, {records['records']} records, 95 % intervals.",
        label="Points with intervals: the change of U for each control point raised and lowered.",
        chart=interval_layers(rows, named_axis(points, None), "nats a token", ["", f"-{delta}", f"+{delta}"]),
        columns=("point", "change", "U", "95 % interval", "p"),
        rows=[[point, change, *cells(row)] for point, change, row in shown],
    )


def _directions_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, named_axis
    from ropewalk.report.panel import Panel

    shown = [
        (f"direction {number}", part, one[part])
        for number, one in enumerate(records["directions"], 1)
        for part in ("slope", "curvature")
    ]
    rows: list[dict[str, Any]] = [
        {"arm": part, "x": name, "y": row["difference"], "low": row["low"], "high": row["high"]}
        for name, part, row in shown
    ]
    names = list(dict.fromkeys(name for name, _, _ in shown))
    shares = [_weights(one) for one in records["directions"]]
    return Panel(
        key="sensitivity-directions",
        title="Directions of the fitted surface",
        note=f"What a step of {records['delta']:g} along each eigenvector of the Hessian changes in U: curvature, the "
        "mean of both ways, and slope, half their difference; 95 % intervals. A direction with both at 0 is flat. "
        "The table says each direction's share of the control points.",
        label="Points with intervals: slope and curvature of U along each direction.",
        chart=interval_layers(rows, named_axis(names, None), "nats a token", ["", "slope", "curvature"]),
        columns=("direction", "part", "U", "95 % interval", "p (Holm)", "control points"),
        rows=[
            [name, part, *cells(row), weights]
            for (name, part, row), weights in zip(shown, [w for w in shares for _ in range(2)], strict=True)
        ],
    )


def _surface_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import heat_layers, named_axis
    from ropewalk.report.panel import Panel

    surface = Surface.from_json(records["surface"])
    first, second = (np.array(one["vector"]) for one in records["directions"][:2])
    steps = np.linspace(-1, 1, 9)
    labels = [f"{records['delta'] * step:+.3g}" for step in steps]
    values = [[float(surface.mean_at(x * first + y * second)) for x in steps] for y in steps]
    rows: list[dict[str, Any]] = [
        {"x": labels[column], "y": labels[row], "value": values[row][column]}
        for row in range(len(steps))
        for column in range(len(steps))
    ]
    return Panel(
        key="sensitivity-surface",
        title="U around the given factors, along the two most curved directions",
        note="The fitted surface: U of the log-likelihood against the factors as given, nats a token. Blue gains, "
        f"orange loses. Across: {_weights(records['directions'][0])}; up: {_weights(records['directions'][1])}.",
        label="Heat map of the fitted change of U along two directions of the control points.",
        chart=heat_layers(rows, named_axis(labels, "along direction 1"), "along direction 2", labels[::-1]),
        columns=("direction 2", *labels),
        rows=[[labels[row], *(f"{value:+.4f}" for value in values[row])] for row in range(len(steps))[::-1]],
    )


ANALYSIS = Sensitivity
