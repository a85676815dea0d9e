"""A run's studies as Optuna's dashboard shows them: read from the files as they grow, kept in memory, never written.

A trial is a candidate: its parameters are the factors of the layers, its attributes what it scored at each position.
"""

from __future__ import annotations

import copy
import math
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any, get_args
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.distributions import FloatDistribution
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from ropewalk.errors import StudyError
from ropewalk.search.space import Candidate, SearchSpace
from ropewalk.study import BUSY_SECONDS, RecordSplit

SIGNS = ("run.lock", "study.lock", ".mend.lock", "profile.json")  # a run whose search has not begun yet
METRIC_NAMES = "study:metric_names"  # what Study.set_metric_names sets, which warns that it is experimental
IDENTITY = -1  # generation of the model as it is


@dataclass
class Source:
    """A study on disk, and how much of it is in memory. id: of the study in memory, None as long as there is none."""

    study: optuna.Study
    name: str
    is_first: bool
    id: int | None = None
    seen: int = 0


class RunStorage(InMemoryStorage):
    """The studies of a run directory; every listing takes in what was added to the files since.

    Raises `StudyError` from the start if the directory is no run, or its file no study of ropewalk.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._run = run
        self._sources: dict[Path, list[Source]] = {}
        self._reading = threading.Lock()
        self.trouble = ""  # why the files could not be read the last time
        check_run(run)
        self._follow()

    def get_all_studies(self) -> list[Any]:
        """All studies, those included that came since."""
        self._try_follow()
        return super().get_all_studies()

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        """All candidates of a study, those included that came since."""
        self._try_follow()
        return super().get_all_trials(study_id, deepcopy, states)

    def _try_follow(self) -> None:
        """What is known stays on show where a file can't be read for a while, or is gone."""
        try:
            self._follow()
            self.trouble = ""
        except Exception as error:  # SQLite, SQLAlchemy and Optuna each have their own
            self.trouble = str(error).splitlines()[0]

    def _follow(self) -> None:
        with self._reading:
            for path in study_files(self._run):
                if path not in self._sources:
                    self._sources[path] = [self._add(path, split) for split in get_args(RecordSplit)]
            for source in (one for sources in self._sources.values() for one in sources):
                self._update(source)

    def _add(self, path: Path, split: str) -> Source:
        return Source(
            open_read_only(path, split), _name(self._run, path, split), not self._sources and split == "search"
        )

    def _update(self, source: Source) -> None:
        """Take in the new candidates; the file is append-only. A study without any is no sight, but for the search."""
        trials = source.study.get_trials(deepcopy=False)
        if source.id is None and (trials or source.is_first):
            source.id = self.create_new_study([StudyDirection.MAXIMIZE], source.name)
            self.set_study_system_attr(source.id, METRIC_NAMES, ["fitness"])
        if source.id is None:
            return
        settings = source.study.user_attrs.get("settings", {})
        known = self.get_study_user_attrs(source.id)
        for name, value in _flat(settings):
            if known.get(name) != value:
                self.set_study_user_attr(source.id, name, value)
        for trial in trials[source.seen :]:
            self.create_new_trial(source.id, as_shown(trial, settings))
            source.seen += 1


def check_run(run: Path) -> None:
    """Raise `StudyError` for a directory that is no run and will become none."""
    if not run.exists():
        raise StudyError(f"{run}: no such directory; expected the --out of a search, mend or demo")
    if not study_files(run) and not any((run / name).exists() for name in SIGNS):
        raise StudyError(f"{run}: no run of ropewalk (no study.db in it); expected the --out of a search, mend or demo")


def study_files(run: Path) -> list[Path]:
    """The study of the search and those of its controls, as far as they are there. run: of search, demo or mend."""
    root = run if (run / "study.db").exists() else run / "search"
    first = root / "study.db"
    return [first, *sorted(root.glob("controls/*/study.db"))] if first.exists() else []


def open_read_only(path: Path, split: str) -> optuna.Study:
    """A study that can't be written: SQLite refuses. Raises `StudyError` if the file holds no such study.

    The connection is one that may write all the same, where the folder can be written: a reader that is the last one
    to go has to take the write-ahead file with it, or what stands in that alone would be lost to who copies study.db.
    """
    is_ours = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    mode = "mode=rw" if is_ours else "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"

    def connect() -> sqlite3.Connection:
        address = f"file:{quote(str(path.absolute()))}?{mode}"
        connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)
        connection.execute("PRAGMA query_only=ON")
        return connection

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = RDBStorage(
            "sqlite://",
            engine_kwargs={"creator": connect, "poolclass": sqlalchemy.QueuePool},
            skip_table_creation=True,
        )
        return optuna.load_study(study_name=split, storage=storage)
    except Exception as error:
        raise StudyError(f"{path}: can't be read as a study of ropewalk ({_first_line(error)})") from error


def as_shown(trial: FrozenTrial, settings: Mapping[str, Any]) -> FrozenTrial:
    """A stored candidate as the dashboard shows it; one of another version's record as it is."""
    record = trial.user_attrs.get("record")
    if not isinstance(record, Mapping) or "space" not in settings.get("method", {}):
        return trial
    factors, distribution = _factors(record, settings["method"]["space"])
    shown = copy.copy(trial)
    shown.distributions = dict.fromkeys(factors, distribution)
    shown.params = factors
    shown.user_attrs = dict(_attributes(record, settings))
    if shown.datetime_complete is not None:
        shown.datetime_start = shown.datetime_complete - timedelta(seconds=record.get("seconds", 0.0))
    return shown


def _factors(record: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[dict[str, float], FloatDistribution]:
    """The factors of the layers with rotary position, and the range that they come from."""
    fields = {**space, "rotary_layers": space["rotary_layers"] and tuple(space["rotary_layers"])}
    values = SearchSpace(**fields).factors(Candidate.from_json(record["candidate"])).values
    digits = len(str(len(values) - 1))
    named = {
        f"layer {layer:0{digits}}": round(float(value), 6) for layer, value in enumerate(values) if value is not None
    }
    return named, FloatDistribution(min(1.0, space["low"]), max(1.0, space["high"]))


def _attributes(record: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a candidate is, scored and cost, each by a name of its own: the dashboard can plot those that are numbers.

    Of the records that it was scored on.
    """
    yield "generation", record["generation"]
    yield "slot", record["slot"]
    if record["generation"] == IDENTITY:
        yield "vanilla", "the model as it is"
    tasks = list(zip(settings["objective"]["parts"], settings["tasks"], strict=True))
    places = [(f"{part['name']}: " if len(tasks) > 1 else "", task["positions"]) for part, task in tasks]
    for key, words in (("scores", "score"), ("log_likelihoods", "log-likelihood")):
        for (name, positions), rows in zip(places, record.get(key, ()), strict=False):
            for position, column in zip(positions, zip(*rows, strict=True), strict=True):
                value = fmean(map(float, column))  # what is not finite is stored as a word
                yield f"{name}{words} @{position}", value if math.isfinite(value) else str(value)
    yield "records", sum(len(rows) for rows in record.get("rows", ()))
    yield "prompts", record.get("prompts", 0)
    yield "seconds", round(record.get("seconds", 0.0), 2)
    if record.get("parents"):
        yield "parents", ", ".join(f"{generation}:{slot}" for generation, slot in record["parents"])
    for name, penalty in record.get("penalties", {}).items():
        yield f"penalty: {name}", penalty
    if record.get("error"):
        yield "error", record["error"]


def _name(run: Path, path: Path, split: str) -> str:
    """The run's name and what was searched on, such as "kv: search" or "kv: control uniform"."""
    control = path.parent.name if path.parent.parent.name == "controls" else ""
    what = f"control {control}" if control else "search"
    return f"{run.resolve().name}: {what}" + ("" if split == "search" else f", {split}")


def _flat(document: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON document with dotted names."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _flat(value, f"{name}.{key}".lstrip("."))
    elif isinstance(document, list) and document and all(isinstance(one, Mapping) for one in document):
        for number, one in enumerate(document):
            yield from _flat(one, f"{name}.{number}")
    elif document is not None:
        yield name, document if isinstance(document, str | int | float) else str(document)


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:  # the innermost names the reason
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]
