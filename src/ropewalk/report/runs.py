"""A run directory as the report reads it: the figures, the factors of every arm, the scores, the search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.errors import DataError, RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.report.history import History, read_history
from ropewalk.results import TaskResult

Json = Mapping[str, Any]
SEARCH = "search"  # where `ropewalk mend` keeps its run
COMMAND = "command.json"  # is there from the start
CONTROLS = {"uniform_best": "uniform", "line_best": "line"}  # arm of the test: its folder in `controls`
NEEDED = ("tasks", "sentence", "search", "provenance", "constraints")  # of result.json
BLOCK = ("task", "positions", "vanilla", "factors", "gain", "factors_over", "warnings")  # of each task in it


@dataclass(frozen=True)
class Run:
    """One run. directory: where its files are. home: the directory that was named, of `mend` the one above it.

    name: unlike that of any other run of the page. result: result.json; None while the run is unfinished. scores: by
    task and arm. factors: those found, or the best so far; controls: those of the other arms as far as the run kept
    them. history: the search, None where study.db is gone. profile: of `mend`. started:
    command.json.
    """

    name: str
    directory: Path
    home: Path
    result: Json | None
    scores: Mapping[str, Mapping[str, TaskResult]] | None
    factors: ScalingFactors | None
    controls: Mapping[str, ScalingFactors]
    history: History | None
    profile: Json | None
    started: Json | None = None

    @property
    def command(self) -> str | None:
        """The command that made the run, or is at it; None where Python code searched."""
        source = self.started or {} if self.result is None else self.result["provenance"]
        return source.get("command")

    @property
    def missing(self) -> list[str]:
        """Files that a finished run has and this one has not."""
        have = {
            "result.json": self.result,
            "scores.json": self.scores,
            "factors.json": self.factors,
            "study.db": self.history,
        }
        return [name for name, content in have.items() if content is None]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        if self.result is not None:
            return list(self.result["tasks"])
        return [] if self.history is None else self.history.names

    @property
    def model(self) -> Json:
        """Identity of the model."""
        if self.result is not None:
            return dict(self.result["provenance"]["model"])
        return dict(self.history.settings["model"]) if self.history else {}

    @property
    def method(self) -> Json:
        """Settings of the search method."""
        if self.result is not None:
            return dict(self.result["search"]["method"])
        return dict(self.history.settings["method"]) if self.history else {}

    def arms(self, task: str) -> list[str]:
        """Arms of a task's test, in the order of the file: vanilla first, the factors last."""
        if self.result is None:
            return []
        block = self.result["tasks"][task]
        return ["vanilla", *block["gain"]]


def read_runs(directories: list[Path]) -> list[Run]:
    """Every run, each under a name of its own. Raises `RopewalkError` for a directory that holds no run."""
    homes = list(dict.fromkeys(directory.resolve() for directory in directories))
    return [read_run(home, name) for home, name in zip(homes, _names(homes), strict=True)]


def read_run(home: Path, name: str) -> Run:
    """The run in a directory, or in the one that `ropewalk mend` keeps in it."""
    directory = _directory(home)
    result = _result(directory / "result.json")
    study = directory / "study.db"
    factors = _factors(directory / "factors.json")
    return Run(
        name=name,
        directory=directory,
        home=home,
        result=result,
        scores=None if result is None else _scores(directory / "scores.json", list(result["tasks"])),
        factors=factors,
        controls=dict(_controls(directory, factors)),
        history=read_history(study) if study.exists() else None,
        profile=_object(home / "profile.json") if directory != home else None,
        started=_object(directory / COMMAND),
    )


def _directory(home: Path) -> Path:
    """Where the run's files are. Raises `DataError` that says what was expected."""
    if not home.exists():
        raise DataError(f"{home}: no such folder, expected the run directory of a search (its --out)")
    if not home.is_dir():
        raise DataError(f"{home}: is a file, expected the run directory of a search (its --out)")
    for directory in (home, home / SEARCH):
        if (directory / "study.db").exists() or (directory / "result.json").exists():
            return directory
    if (home / "profile.json").exists():
        raise DataError(f"{home}: holds the profile of a mend that did not search, so there is no run to report")
    raise DataError(f"{home}: holds no run, expected study.db or result.json, which search, demo and mend leave there")


def _names(homes: list[Path]) -> list[str]:
    """The last part of each path, with as many of the parts before it as tell them apart."""
    for count in range(1, max(len(home.parts) for home in homes) + 1):
        names = ["/".join(home.parts[-count:]) for home in homes]
        if len(set(names)) == len(names):
            return names
    return [str(home) for home in homes]


def _result(path: Path) -> Json | None:
    """The figures; None where the run is unfinished. Raises `DataError` for a file of another kind."""
    if not path.exists():
        return None
    document = files.read_json(path)
    lacking = [name for name in NEEDED if not isinstance(document, dict) or name not in document]
    if lacking:
        raise DataError(f"{path}: has no {', '.join(lacking)}, expected the figures that `ropewalk search` writes")
    for task, block in document["tasks"].items():
        gone = [name for name in BLOCK if name not in block]
        if gone:
            raise DataError(f"{path}: the task {task!r} has no {', '.join(gone)}; it was made by another version")
    return dict(document)


def _scores(path: Path, tasks: list[str]) -> Mapping[str, Mapping[str, TaskResult]] | None:
    """Every example by task and arm; None where the file is gone."""
    if not path.exists():
        return None
    document = files.read_json(path)
    by_task = document if len(tasks) > 1 else {tasks[0]: document}
    if not isinstance(document, dict) or list(by_task) != tasks:
        raise DataError(f"{path}: expected the scores of {', '.join(tasks)}")
    try:
        return {
            task: {arm: TaskResult.from_dict(result) for arm, result in arms.items()} for task, arms in by_task.items()
        }
    except RopewalkError as error:
        raise DataError(f"{path}: {error}") from None


def _factors(path: Path) -> ScalingFactors | None:
    return ScalingFactors.load(path) if path.exists() else None


def _controls(directory: Path, factors: ScalingFactors | None) -> Iterator[tuple[str, ScalingFactors]]:
    """The factors of the controls, that of the same mean among them."""
    if factors is not None and not factors.is_identity:
        yield "uniform", factors.matched_uniform()
    for arm, folder in CONTROLS.items():
        found = _factors(directory / "controls" / folder / "factors.json")
        if found is not None and not found.is_identity:
            yield arm, ScalingFactors(found.values)  # without its curve: a control is a flat line, or a straight one


def _object(path: Path) -> Json | None:
    document = files.read_json(path) if path.exists() else None
    return document if isinstance(document, dict) else None
