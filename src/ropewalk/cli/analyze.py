"""`ropewalk analyze NAME`: the open questions as commands, one a file of `ropewalk.analysis`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, fields, make_dataclass
from itertools import accumulate
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

from cyclopts import App, Group, Parameter

from ropewalk.analysis import analysis_class, analysis_names
from ropewalk.analysis.base import Analysis, Subject
from ropewalk.cli.examples import epilogue
from ropewalk.cli.given_factors import given_factors
from ropewalk.cli.mix import TaskMix
from ropewalk.cli.options import MODEL, RUN, ModelOptions, Output, SplitName, TaskChoice, described, whole
from ropewalk.errors import DataError

Command = Callable[..., dict[str, Any]]
FactorFiles = Annotated[
    tuple[Path, ...],
    described(
        "factors.json, a folder that has one, or a name of the zoo. Default: the checkpoint's own.",
        group=MODEL,
        metavar="FILE",
        negative="",
        show_default=False,
    ),
]
ResultFile = Annotated[Path, described("Figures that --json wrote, or folders of them.", group=RUN)]
OutDir = Annotated[
    Path | None,
    described(
        "Where analysis.json, report.html and the figures go; the same command goes on there. "
        "Default: runs/analyze-NAME.",
        group=RUN,
        metavar="DIR",
    ),
]

analyze = App(name="analyze", help_epilogue=epilogue("analyze"))


def own_options(kind: type[Analysis]) -> Any:
    """The analysis' options as flags."""
    hints = get_type_hints(kind.OPTIONS)
    entries: list[tuple[str, Any, Any]] = []
    for entry in fields(kind.OPTIONS):
        plain: Any = next(one for one in (*get_args(hints[entry.name]), hints[entry.name]) if one is not NoneType)
        parameter = Parameter(help=entry.metadata["description"], converter=whole if plain is int else None)
        entries.append((entry.name, Annotated[hints[entry.name], parameter], field(default=entry.default)))
    made = make_dataclass("Own", entries, frozen=True, namespace={"__module__": __name__})
    return Parameter(name="*", group=Group("Analysis", sort_key=2))(made)


def command_of(kind: type[Analysis]) -> Command:
    """The command of one analysis: what it takes follows from its form and its options."""
    command = {"task": _with_task, "tasks": _with_tasks, "files": _with_files}[kind.form](kind)
    command.__annotations__["own"] = own_options(kind) | None
    command.__name__, command.__doc__ = kind.name, kind.question
    return command


def _with_task(kind: type[Analysis]) -> Command:
    def command(
        *,
        model: ModelOptions,
        task: TaskChoice | None = None,
        factors: FactorFiles = (),
        own: Any = None,
        split: SplitName = "test",
        out: OutDir = None,
        output: Output | None = None,
    ) -> dict[str, Any]:
        choice = task or TaskChoice()
        return _analyse(kind, own, out, lambda: subject_of(kind, model, {choice.task: choice}, factors, split))

    return command


def _with_tasks(kind: type[Analysis]) -> Command:
    def command(
        *,
        model: ModelOptions,
        task: TaskMix | None = None,
        factors: FactorFiles = (),
        own: Any = None,
        split: SplitName = "test",
        out: OutDir = None,
        output: Output | None = None,
    ) -> dict[str, Any]:
        mix = task or TaskMix()
        mixed = mix.tasks()
        told = len(set(mix.task)) == len(mixed)  # what was typed says more of a task than its name
        choices = dict(
            zip(mix.task if told else [one.name for one in mixed], [one.choice for one in mixed], strict=True)
        )
        return _analyse(kind, own, out, lambda: subject_of(kind, model, choices, factors, split))

    return command


def _with_files(kind: type[Analysis]) -> Command:
    def command(
        *results: ResultFile, own: Any = None, out: OutDir = None, output: Output | None = None
    ) -> dict[str, Any]:
        return _analyse(kind, own, out, lambda: Subject(files=results))

    return command


def _analyse(kind: type[Analysis], own: Any, out: Path | None, subject: Callable[[], Subject]) -> dict[str, Any]:
    """Ask the question, show the answer. subject: called once the options are known to be right."""
    from dataclasses import replace

    from ropewalk.analysis.base import check_folder, perform
    from ropewalk.cli import console
    from ropewalk.cli.invocation import command

    analysis = kind(**({} if own is None else {entry.name: getattr(own, entry.name) for entry in fields(own)}))
    target = out or Path("runs") / f"analyze-{kind.name}"
    check_folder(target, analysis)  # before a model is loaded
    try:
        with console.StageProgress() as progress:
            on = replace(subject(), on_event=console.follow(progress))
            document = perform(analysis, on, target, command=command())
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; what was scored is kept in {target}, the same command goes on") from None
    for panel in analysis.panels(document["records"])[:1]:
        console.output().print(_table(panel, console.output().width), "")
    for sentence in (document["sentence"], *document["remarks"]):
        console.say(sentence)
    console.say(f"All figures and tables: {target}/report.html, analysis.json, figures")
    return document


def subject_of(
    kind: type[Analysis], model: ModelOptions, choices: dict[str, TaskChoice], factors: Sequence[Path], split: Any
) -> Subject:
    """The loaded model without its factors, and the tasks. The factors: those given, else those that it carried."""
    from ropewalk.patch import factors_of, remove

    given = {str(path): given_factors(path) for path in factors}
    made = {name: choice.make() for name, choice in choices.items()}
    loaded, tokenizer = model.load()
    carried = factors_of(loaded)
    remove(loaded)
    evaluators = {
        name: model.evaluator(
            loaded,
            tokenizer,
            task,
            split,
            search_by=None if model.generate else "likelihood",
            own_loop=kind.own_loop,
        )
        for name, task in made.items()
    }
    for name, evaluator in evaluators.items():
        if len(evaluator.records) < 2:
            raise DataError(f"an analysis of 1 record of {name} has no interval: give at least 2 (--limit)")
    if carried is not None and not given:
        given = {"of the checkpoint": carried}
    return Subject(loaded, tokenizer, evaluators, given, any_model=model.any_model)


def _table(panel: Any, room: int) -> Any:
    """The numbers of a figure: as many columns as there is room for, all of them are on the page."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=panel.title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
    columns = list(zip(panel.columns, *([str(cell) for cell in row] for row in panel.rows), strict=True))
    ends = list(accumulate(max(map(len, column)) + 2 for column in columns))
    shown = columns[: max(1, sum(end <= room + 2 for end in ends))]
    for number, (name, *_) in enumerate(shown):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in zip(*(cells for _, *cells in shown), strict=True):
        table.add_row(*map(Text, row))
    return table


for place, name in enumerate(analysis_names()):
    kind = analysis_class(name)
    line = f"Example:\n  {kind.example}\n"
    analyze.command(command_of(kind), name=name, help=kind.question, help_epilogue=line, sort_key=place)
