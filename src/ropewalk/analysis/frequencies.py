"""Which rotary pairs matter: factors on the slow ones or on the fast ones alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ropewalk.analysis.base import Analysis, Json, Subject
from ropewalk.analysis.parts.effects import cells, direction, effect, size, too_few, with_holm
from ropewalk.analysis.parts.given import numbers
from ropewalk.errors import DataError
from ropewalk.events import Scored, Stage
from ropewalk.factors import ScalingFactors
from ropewalk.options import option
from ropewalk.results import TaskResult

if TYPE_CHECKING:
    from ropewalk.report.panel import Panel

KINDS = ("all", "slow", "fast")
FOUND = "given factors"


@dataclass(frozen=True)
class Options:
    """How much is scaled, and what is slow."""

    scales: str = option("0.9,1.1", "Factors that the pairs get in all layers; commas between them.")
    wavelength: float | None = option(
        None, "Pairs that turn less than once in so many tokens are slow; without: in the longest prompt."
    )


class Frequencies(Analysis):
    """Each factor on all rotary pairs, on the slow and on the fast ones alone; the others turn as trained.

    A pair i turns by p·θ_i, so it repeats after 2π/θ_i tokens. Those that do not repeat within the prompt tell how far
    away a token is; the others only how near ones lie. Scored by model.forward: slower than other analyses.
    """

    name: ClassVar[str] = "frequencies"
    question: ClassVar[str] = "Which rotary pairs matter, the slow or the fast ones: is it the decay?"
    example: ClassVar[str] = "ropewalk analyze frequencies --model demo --keys 10 --limit 10"
    own_loop: ClassVar[bool] = False
    OPTIONS: ClassVar[type] = Options

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        self._scales = numbers(self.name, "scales", self.options.scales, low=0.0)
        wavelength = self.options.wavelength
        if wavelength is not None and not 0 < wavelength < math.inf:
            raise DataError(f"analysis frequencies: option 'wavelength' is {wavelength}, expected a number above 0")

    def records(self, subject: Subject) -> Json:
        """Each factor on each kind of pairs against vanilla."""
        from ropewalk.analysis.parts.pairs import rotary_frequencies

        evaluator = subject.evaluator
        if evaluator.fallback_reason is None:
            raise DataError("analysis frequencies needs model.forward: make the evaluator with own_loop=False")
        longest = max(len(evaluator.prompt_ids(number)) for number in range(len(evaluator.examples)))
        wavelength = self.options.wavelength or float(longest)
        turns = rotary_frequencies(subject.model)
        slow = sum(turn < 2 * math.pi / wavelength for turn in turns)
        if slow in (0, len(turns)):
            kind = "fast" if slow == 0 else "slow"
            raise DataError(
                f"all {len(turns)} rotary pairs are {kind} at a wavelength of {wavelength:g} tokens: they repeat after "
                f"{2 * math.pi / turns[0]:.4g} to {2 * math.pi / turns[-1]:.4g}; give --wavelength between"
            )
        arms = {f"{scale:g}": subject.only(subject.rotary_layers, scale) for scale in self._scales}
        arms |= {FOUND: subject.one_set} if subject.factors else {}
        vanilla, scored = _score(subject, arms, wavelength)
        return {
            "positions": list(vanilla.positions),
            "records": len(vanilla.records),
            "metric": vanilla.metric,
            "vanilla": vanilla.summary(),
            "longest_prompt": longest,
            "wavelength": wavelength,
            "turns": turns,
            "slow": slow,
            "arms": {
                arm: with_holm({kind: effect(vanilla, result) for kind, result in results.items()})
                for arm, results in scored.items()
            },
            "slow_over_fast": {
                arm: effect(results["fast"], results["slow"])["likelihood"] for arm, results in scored.items()
            },
        }

    def answer(self, records: Json) -> str:
        """One sentence that answers the question, with an interval."""
        arm = FOUND if FOUND in records["arms"] else next(iter(records["arms"]))
        found = {kind: row["likelihood"] for kind, row in records["arms"][arm].items()}
        what, change = ("The given factors", "change") if arm == FOUND else (f"The factor {arm}", "changes")
        verdict = _verdict(found, records["slow_over_fast"][arm])
        return (
            f"{what} on the slow pairs alone ({records['slow']} of {len(records['turns'])}, which turn less than once "
            f"in {records['wavelength']:g} tokens) {change} U by {size(found['slow'])}, on the fast pairs alone by "
            f"{size(found['fast'])}, on all by {size(found['all'])}: {verdict}."
        )

    def remarks(self, records: Json) -> list[str]:
        """How slow and fast compare, for each factor."""
        return [
            f"{_title(arm)}: U with the slow pairs alone less U with the fast pairs alone is {size(row)}."
            for arm, row in records["slow_over_fast"].items()
        ] + too_few(records["records"], len(KINDS))

    def panels(self, records: Json) -> list[Panel]:
        """U of each kind, then each factor by position."""
        return [_kinds_panel(records), *(_position_panel(records, arm) for arm in records["arms"])]


def _score(
    subject: Subject, arms: dict[str, ScalingFactors], wavelength: float
) -> tuple[TaskResult, dict[str, dict[str, TaskResult]]]:
    """Vanilla, and each arm on each kind of pairs; what is kept is not scored again."""
    from ropewalk.analysis.parts.pairs import pairs_scaled

    settings = subject.settings_of(next(iter(subject.evaluators)))
    wanted = {(arm, kind): {**settings, "arm": list(arms[arm].values)} for arm in arms for kind in KINDS[1:]}
    keys = {place: {**key, "pairs": place[1], "wavelength": wavelength} for place, key in wanted.items()}
    whole = subject.score({"vanilla": None, **arms}, stage="All pairs")
    missing = sum(subject.kept.find(key) is None for key in keys.values())
    if missing:
        subject.on_event(Stage("Some pairs", missing * len(subject.evaluator.examples)))

    def scored(arm: str, kind: Any) -> Json:
        with pairs_scaled(subject.model, arms[arm], kind, wavelength, any_model=subject.any_model):
            result = subject.evaluator.score(None, on_progress=lambda count: subject.on_event(Scored(count)))
        return result.to_dict()

    found: dict[str, dict[str, TaskResult]] = {arm: {"all": whole[arm]} for arm in arms}
    for (arm, kind), key in keys.items():
        found[arm][kind] = TaskResult.from_dict(
            subject.kept.get(key, lambda arm=arm, kind=kind: scored(arm, kind))  # type: ignore[misc]
        )
    return whole["vanilla"], found


def _verdict(found: Json, slow_over_fast: Json) -> str:
    """Which pairs matter. That one is outside the noise and the other is not does not yet say that they differ."""
    outside = [kind for kind in KINDS[1:] if direction(found[kind])]
    if len(outside) != 1:
        more = {1: ", the slow ones more", -1: ", the fast ones more", 0: ""}[direction(slow_over_fast)]
        return f"both matter{more}" if outside else "neither matters beyond the noise"
    if not direction(slow_over_fast):
        return f"the {outside[0]} ones matter, but not beyond the noise more than the others"
    if outside == ["slow"]:
        return "it is the slow ones that matter, which set the decay over the length of the prompt"
    return "it is not the decay over the length of the prompt that matters, which the slow ones set"


def _title(arm: str) -> str:
    return "Given factors" if arm == FOUND else f"Factor {arm}"


def _kinds_panel(records: Json) -> Panel:
    from ropewalk.report.intervals import interval_layers, named_axis
    from ropewalk.report.panel import Panel

    names = {"all": "all pairs", "slow": "slow pairs alone", "fast": "fast pairs alone"}
    rows: list[dict[str, Any]] = [
        {"arm": arm, "x": names[kind], "y": row["difference"], "low": row["low"], "high": row["high"]}
        for arm, found in records["arms"].items()
        for kind in KINDS
        if (row := found[kind]["likelihood"])["difference"] is not None
    ]
    return Panel(
        key="frequencies-kinds",
        title="Factors on some of the rotary pairs",
        note=f"U of the log-likelihood above vanilla, {records['records']} records, 95 % intervals. Slow pairs turn "
        f"less than once in {records['wavelength']:g} tokens: {records['slow']} of {len(records['turns'])}.",
        label="Points with intervals: the change of U with factors on all, on slow and on fast pairs.",
        chart=interval_layers(
            rows, named_axis(list(names.values()), None), "nats a token above vanilla", ["", *records["arms"]]
        ),
        columns=("factor", "pairs", "U", "95 % interval", "p (Holm)", "points"),
        rows=[
            [arm, kind, *cells(found[kind]["likelihood"]), cells(found[kind]["accuracy"], 100)[0]]
            for arm, found in records["arms"].items()
            for kind in KINDS
        ],
    )


def _position_panel(records: Json, arm: str) -> Panel:
    from ropewalk.report.intervals import interval_layers, named_axis
    from ropewalk.report.panel import Panel

    positions, found = [f"@{position}" for position in records["positions"]], records["arms"][arm]
    rows: list[dict[str, Any]] = [
        {"arm": kind, "x": at, "y": row["difference"], "low": row["low"], "high": row["high"]}
        for kind in KINDS
        for at, row in zip(positions, found[kind]["by_position"], strict=True)
        if row["difference"] is not None
    ]
    return Panel(
        key=f"frequencies-{arm.replace(' ', '-')}",
        title=f"{_title(arm)} by position",
        note="Log-likelihood above vanilla at each gold position, with 95 % intervals.",
        label="Points with intervals: the change of the log-likelihood by gold position, for each kind of pairs.",
        chart=interval_layers(rows, named_axis(positions, "gold position"), "nats a token above vanilla", KINDS),
        columns=("position", "all", "slow", "fast"),
        rows=[
            [at, *(cells(found[kind]["by_position"][place])[0] for kind in KINDS)] for place, at in enumerate(positions)
        ],
    )


ANALYSIS = Frequencies
