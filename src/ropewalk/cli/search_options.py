"""What a search is told on the command line, and the plan that it becomes for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ropewalk.bezier import Mode
from ropewalk.builtin_text import BUILTIN
from ropewalk.cli.given_factors import given_factors
from ropewalk.cli.mix import MixedTask
from ropewalk.cli.options import SEARCH, ShortText, described, number
from ropewalk.constraints import PositionFloor, ShortTextLimit
from ropewalk.errors import RopewalkError
from ropewalk.objectives import DEFAULT_WEIGHTS, Kind, Measure, Objective
from ropewalk.records import read_text
from ropewalk.search import method_class
from ropewalk.search.base import SearchMethod

if TYPE_CHECKING:
    from ropewalk.run import SearchPlan
    from ropewalk.tasks.base import Task

SEARCH_RECORDS = 24  # of a task, where the method scores all candidates on the same ones
TURNING_RECORDS = (
    96  # where it takes a few of them in turn: many cost vanilla's pass alone, and can't be learnt by heart
)
SHORT_WINDOW, SHORT_WINDOWS = 256, 16  # tokens of a short text, and how many of them a candidate reads

# What `mend` may be told too.
Minutes = Annotated[float | None, described("Minutes of scoring, after which no further candidates begin.")]
ValidationLimit = Annotated[int, number("Validation records of each task, each at every position.")]
TestLimit = Annotated[int, number("Test records of each task, each at every position.")]
ControlBudget = Annotated[
    int | None,
    number("Evaluations to find the best uniform factor, and the best line. Default: a tenth of the search's."),
]


@Parameter(name="*", group=SEARCH)
@dataclass(frozen=True)
class SearchOptions:
    """How to search; what is None is the method's own choice."""

    method: Annotated[str, described("Search method.", metavar="NAME")] = "default"
    budget: Annotated[
        int | None,
        number("Candidate·prompt evaluations of the search; chooses the generations unless they are given."),
    ] = None
    time: Minutes = None
    objective: Annotated[Kind, described("What is maximised over the positions: U, their mean, or the worst one.")] = (
        "utilisation"
    )
    weights: Annotated[
        str | None,
        described("Weights of first, middle and last position in U, or one each. Default 0.8,1,1.2.", metavar="LIST"),
    ] = None
    measure: Annotated[
        Measure | None, described("What is measured at a position: log-likelihood or accuracy. Default: by method.")
    ] = None
    max_position_loss: Annotated[
        float | None,
        described("Constraint: no position below vanilla by more than this, in nats a token or in accuracy."),
    ] = None
    max_short_perplexity: Annotated[
        float | None, described("Constraint: perplexity of short texts at most this many per cent above vanilla's.")
    ] = None
    short_text: ShortText = BUILTIN
    racing: Annotated[
        bool | None, described("Stop candidates early that a paired test puts below the elite. Default: by method.")
    ] = None
    low: Annotated[float | None, described("Smallest factor. Default: by method, mostly 0.8.")] = None
    high: Annotated[float | None, described("Largest factor. Default: by method, mostly 1.3.")] = None
    step: Annotated[float | None, described("Grid of the factors, for methods with a grid. Default 0.05.")] = None
    control_points: Annotated[int | None, number("Control points of a curve. Default 4.")] = None
    mode: Annotated[Mode | None, described("How a curve is read; uniform: as in the paper's code. Default depth.")] = (
        None
    )
    skip_first: Annotated[int | None, number("Rotary layers left alone from the front (the paper: 2). Default 0.")] = (
        None
    )
    start: Annotated[
        Path | None,
        described("factors.json, by hand too, or a name of the zoo: the first generation scores it.", metavar="FILE"),
    ] = None
    finalists: Annotated[int, number("Best candidates that meet vanilla on validation records; 0: none.")] = 4
    validation_limit: ValidationLimit = 24
    test_limit: TestLimit = 100
    control_budget: ControlBudget = None

    def check(self) -> None:
        """Raise `RopewalkError` for what can't be meant, before a model is loaded."""
        method_class(self.method)
        for name, lowest in (("budget", 1), ("finalists", 0), ("control_budget", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise RopewalkError(f"--{name.replace('_', '-')} is {value}, expected at least {lowest}")
        if self.time is not None and not self.time > 0:
            raise RopewalkError(f"--time is {self.time} minutes, expected a number above 0")
        read_text(self.short_text)
        if self.start is not None:
            given_factors(self.start)

    def target(self, tasks: Sequence[MixedTask]) -> Objective:
        """What is maximised over the tasks, and what must not get worse."""
        weights = DEFAULT_WEIGHTS if self.weights is None else parse_weights(self.weights)
        measure = self.measure or method_class(self.method).MEASURE
        return Objective(
            tuple(task.part(measure, self.objective, weights) for task in tasks),
            None if self.max_position_loss is None else PositionFloor(self.max_position_loss),
            None if self.max_short_perplexity is None else ShortTextLimit(self.max_short_perplexity),
        )

    def search_records(self) -> int:
        """Search records of a task if no --limit says so."""
        takes_turns = method_class(self.method).records is not SearchMethod.records
        return TURNING_RECORDS if takes_turns else SEARCH_RECORDS

    def short_task(self) -> Task | None:
        """The short texts of the constraint, as a task; None without the constraint."""
        if self.max_short_perplexity is None:
            return None
        from ropewalk.tasks import make_task
        from ropewalk.tasks.base import TaskOptions

        own = {"window": SHORT_WINDOW}
        return make_task("perplexity", TaskOptions(1, data=self.short_text, limit=SHORT_WINDOWS, options=own))

    def plan(self, model: Any, seed: int, objective: Objective, knobs: Mapping[str, Any]) -> SearchPlan:
        """The search for a loaded model as `ropewalk.run` takes it."""
        from ropewalk.identity import base_scheme, model_identity
        from ropewalk.layers import decoder_layers
        from ropewalk.patch import rotary_layers
        from ropewalk.run import SearchPlan
        from ropewalk.search import make_method
        from ropewalk.search.space import SearchSpace

        kind = method_class(self.method)
        num_layers, rotary = len(decoder_layers(model)), rotary_layers(model)
        bounds = {"low": self.low, "high": self.high, "step": self.step, "mode": self.mode}
        bounds |= {"num_points": self.control_points, "skip_first": self.skip_first}
        given = {name: value for name, value in bounds.items() if value is not None}
        space = SearchSpace(num_layers, None if len(rotary) == num_layers else tuple(rotary), **{**kind.SPACE, **given})
        method = make_method(self.method, space, seed, **knobs)
        if self.start is not None:
            start = given_factors(self.start)
            start.check_model(model_identity(model), base_scheme(model))
            method.start_from(start)
        return SearchPlan(
            space,
            method,
            objective,
            self.finalists,
            racing=kind.RACING if self.racing is None else self.racing,
            at_once=_at_once(model),
            budget=self.budget,
            seconds=None if self.time is None else 60 * self.time,
        )


def _at_once(model: Any) -> int:
    """Candidates that are scored together: on a GPU several fill a batch better, among workers few share out better.

    It does not depend on how many workers there are: the same batches give the same scores on any number of them.
    """
    from ropewalk.elsewhere import holders_of
    from ropewalk.provenance import provenance

    if provenance(model)["device_type"] != "cuda":
        return 1
    return 16 if holders_of(model) is None else 4


def parse_weights(text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RopewalkError(f"--weights {text!r}: expected numbers separated by commas, such as 0.8,1,1.2") from None
