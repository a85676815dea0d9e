"""The durable record of a search: Optuna's store on SQLite, one trial a candidate, append-only.

A candidate is written whole, in one transaction, when it is scored: a kill at any instant loses at most the candidate
being evaluated. Generation g of a search is a function of the records before it, so running the same command again
continues where the records end. One driver at a time, by a file lock.

The file is made beside its place and moved there when it is complete, so `study.db` is a whole study or does not exist.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ropewalk.constraints import Scores
from ropewalk.errors import StudyError
from ropewalk.locks import held
from ropewalk.race import Rows
from ropewalk.search.space import Candidate

SCHEMA = "ropewalk.study/3"  # 1 kept verdicts in place of scores, 2 one task and all records of a candidate
MISSING = "(not set)"
REASON_LENGTH = 120  # an SQLite error may quote a whole field
BUSY_SECONDS = 30  # a dashboard that reads may hold the file for a moment

RecordSplit = Literal["search", "validation"]  # the examples that a record's candidate was scored on


@dataclass(frozen=True)
class CandidateRecord:
    """One evaluated candidate; fitness is NaN if it failed.

    found: what it scored on each task, over the records `rows` of it (by their place among the search records), then on
    the short texts; gold positions are not stored, whoever reads a record knows its tasks.
    parents: (generation, slot) of whom it was made of. stopped: it was clearly behind in a race, and saw only these
    records. penalties: what constraints cost it. prompts, seconds: spent on it. error: why it failed, the traceback if
    it raised. A candidate that was scored before, on the same records at another place of the search, has that one's
    fitness and no scores of its own.
    """

    generation: int
    slot: int
    candidate: Candidate
    fitness: float
    found: tuple[Scores, ...] = ()
    rows: Rows = ()
    parents: tuple[tuple[int, int], ...] = ()
    stopped: bool = False
    penalties: Mapping[str, float] = field(default_factory=dict)
    prompts: int = 0
    seconds: float = 0.0
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the candidate could not be scored."""
        return math.isnan(self.fitness)


class Study:
    """The records of one run directory. Make it with `open_study`, which holds the lock."""

    def __init__(self, stores: dict[str, Any], path: Path) -> None:
        self._stores, self._path = stores, path
        self.directory = path.parent

    def records(self, split: RecordSplit = "search") -> dict[tuple[int, int], CandidateRecord]:
        """All records by (generation, slot), in the order in which they were added."""
        with _as_study_error(self._path, "can't be read", "move it away, or use another --out"):
            records = [record_from_trial(trial) for trial in self._stores[split].get_trials(deepcopy=False)]
        return {(record.generation, record.slot): record for record in records}

    def add(self, record: CandidateRecord, split: RecordSplit = "search") -> None:
        """Append one record; raises `StudyError` if the store can't be written (disk full, read-only)."""
        trial = _to_trial(record)
        advice = "what was added before is safe; make room, and the same command continues"
        with _as_study_error(self._path, "can't be written", advice):
            self._stores[split].add_trial(trial)


@contextmanager
def open_study(directory: Path, settings: dict[str, Any]) -> Iterator[Study]:
    """Create the study of a run directory, or continue it if it was made with the same settings.

    A study without records has nothing to continue and takes new settings. Raises `StudyError` if the settings differ
    (the message is the difference), if another process drives the study, if the folder can't be written, or if the file
    is no study of ours.
    """
    path = directory / "study.db"
    with held(directory, "study.lock"):
        document = json.loads(json.dumps({"schema": SCHEMA, **settings}))
        with _as_study_error(path, "can't be opened as a study", "move it away, or use another --out"):
            if path.exists():
                _check_ours(path)
            else:
                _create(path, document)
        with _storage(path) as storage:
            yield _open(path, storage, document)


def _create(path: Path, document: dict[str, Any]) -> None:
    """Make an empty study; the file appears at `path` when it is complete."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    making = path.with_name(f"{path.name}.new")
    for left in (making, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        left.unlink(missing_ok=True)  # of a driver that was killed here, or of a study.db that somebody deleted
    with _storage(making, create=True) as storage:
        for name in get_args(RecordSplit):
            store = optuna.create_study(study_name=name, storage=storage, direction="maximize")
            store.set_user_attr("settings", document)
    os.replace(making, path)


def _check_ours(path: Path) -> None:
    """Raise `StudyError` for a database that is not ours, before Optuna would add its tables to it."""
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        names = (
            {name for (name,) in connection.execute("SELECT study_name FROM studies")} if "studies" in tables else {}
        )
    if not set(get_args(RecordSplit)) <= set(names):
        raise StudyError(f"{path}: is a database, but no study of ropewalk; move it away, or use another --out")


def _open(path: Path, storage: Any, document: dict[str, Any]) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _as_study_error(path, "can't be opened as a study", "move it away, or use another --out"):
        stores = {name: optuna.load_study(study_name=name, storage=storage) for name in get_args(RecordSplit)}
        stored = stores["search"].user_attrs.get("settings", {})
        empty = not any(store.get_trials(deepcopy=False) for store in stores.values())
        if empty and stored != document:
            for store in stores.values():
                store.set_user_attr("settings", document)
            stored = document
    if stored.get("schema", SCHEMA) != SCHEMA:
        raise StudyError(
            f"{path.parent}: holds a search of another version of ropewalk (its records are {stored['schema']}, this "
            f"version has {SCHEMA}) and can't be continued by this one; use another --out"
        )
    difference = _difference(stored, document)
    if difference:
        lines = "\n".join(f"  {name}: {old!r} -> {new!r}" for name, old, new in difference)
        raise StudyError(
            f"{path.parent}: holds a search with other settings:\n{lines}\n"
            "Give the same settings to continue it, or another --out to start a new one"
        )
    with _as_study_error(path, "can't be written", "make room, or use another --out"):
        stores["search"].set_user_attr("opened", time.time())  # a full disk shows before anything is scored
    return Study(stores, path)


@contextmanager
def _storage(path: Path, *, create: bool = False) -> Iterator[Any]:
    """Optuna's storage on an SQLite file; all connections are closed at the end.

    Write-ahead mode: a kill can't corrupt it, and a dashboard may read while the search writes. The last connection to
    close takes the `-wal` file with it. A file in the making has no reader: there a plain journal leaves one file.
    """
    import optuna
    import sqlalchemy

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
        if not create:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    # The path goes to SQLite itself: as a URL, "?", "#", "%" and braces in it would have a meaning.
    with _as_study_error(path, "can't be opened as a study", "move it away, or use another --out"):
        storage = optuna.storages.RDBStorage(
            "sqlite://",
            engine_kwargs={"creator": connect, "poolclass": sqlalchemy.QueuePool},
            skip_table_creation=not create,
        )
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def _as_study_error(path: Path, what: str, advice: str) -> Iterator[None]:
    """One line for a broken file or a full disk, for which SQLite, SQLAlchemy and Optuna each have their own errors."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the innermost names the reason, the outer ones the statement
            cause = cause.__cause__
        reason = (str(cause).splitlines() or [""])[0][:REASON_LENGTH] or type(cause).__name__
        raise StudyError(f"{path}: {what} ({reason}); {advice}") from error


def _difference(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves that differ between two JSON documents, as (dotted name, old, new)."""
    if _is_table(old) and _is_table(new) and len(old) == len(new):  # of tasks, say: which one of them differs
        old, new = (dict(zip(map(str, range(len(rows))), rows, strict=True)) for rows in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *[key for key in new if key not in old]]
        return [
            row
            for key in keys
            for row in _difference(old.get(key, MISSING), new.get(key, MISSING), f"{name}.{key}".lstrip("."))
        ]
    return [] if old == new else [(name, old, new)]


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _to_trial(record: CandidateRecord) -> Any:
    """The record as an Optuna trial, all of it in one attribute: one row of the store each would take thrice as long.

    The control points of a curve are its parameters too, for Optuna's dashboard to draw.
    """
    import optuna
    from optuna.distributions import FloatDistribution

    params: dict[str, float] = {}
    distributions: dict[str, Any] = {}
    curve = () if record.candidate.offsets else record.candidate.control_points
    for index, point in enumerate(curve):
        for name, value in zip((f"x{index}", f"y{index}"), point, strict=True):
            params[name] = value
            distributions[name] = FloatDistribution(0.0, max(1.0, math.ceil(value)))
    state = optuna.trial.TrialState
    return optuna.create_trial(
        state=state.FAIL if record.failed else state.PRUNED if record.stopped else state.COMPLETE,
        value=None if record.failed else record.fitness,
        params=params,
        distributions=distributions,
        user_attrs={"record": _to_json(record)},
    )


def _to_json(record: CandidateRecord) -> dict[str, Any]:
    """All of a record but its fitness; what is empty is left out."""
    attributes: dict[str, Any] = {
        "generation": record.generation,
        "slot": record.slot,
        "candidate": record.candidate.to_json(),
        "prompts": record.prompts,
        "seconds": record.seconds,
        "rows": [list(rows) for rows in record.rows],
        "parents": [list(parent) for parent in record.parents],
        "scores": [_numbers_to_json(found.scores) for found in record.found],
        "log_likelihoods": [_numbers_to_json(found.log_likelihoods) for found in record.found],
        "by_position": _numbers_to_json(found.scores.mean(axis=0) for found in record.found),
        "penalties": dict(record.penalties),
        "error": record.error,
    }
    return {name: value for name, value in attributes.items() if value not in ([], {}, None)}


def record_from_trial(trial: Any) -> CandidateRecord:
    """The record that a trial holds; needs its user_attrs, value and state.name."""
    attributes = trial.user_attrs["record"]
    arrays = zip(attributes.get("scores", []), attributes.get("log_likelihoods", []), strict=True)
    found = [[np.array(values, dtype=np.float64) for values in pair] for pair in arrays]
    return CandidateRecord(
        generation=attributes["generation"],
        slot=attributes["slot"],
        candidate=Candidate.from_json(attributes["candidate"]),
        fitness=math.nan if trial.value is None else trial.value,
        found=tuple(Scores(scores, log_likelihoods) for scores, log_likelihoods in found),
        rows=tuple(tuple(rows) for rows in attributes.get("rows", [])),
        parents=tuple((generation, slot) for generation, slot in attributes.get("parents", [])),
        stopped=trial.state.name == "PRUNED",
        penalties=attributes.get("penalties", {}),
        prompts=attributes["prompts"],
        seconds=attributes["seconds"],
        error=attributes.get("error"),
    )


def _numbers_to_json(values: Iterable[NDArray[np.float64]]) -> list[list[float | str]]:
    """NaN and infinity are not JSON: they are written as the words "nan", "inf" and "-inf", which float() reads."""
    return [[value if math.isfinite(value) else str(value) for value in row.tolist()] for row in values]
