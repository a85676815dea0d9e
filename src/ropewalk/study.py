"""The durable record of a search: Optuna's store on SQLite, one trial a candidate, append-only.

A candidate is written whole, in one transaction, when it is scored: a kill at any instant loses at most the candidate
being evaluated. Generation g of a search is a function of the records before it, so running the same command again
continues where the records end. One driver at a time, by a file lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.errors import StudyError
from ropewalk.search.space import Candidate

SCHEMA = "ropewalk.study/1"
_NAME = "ropewalk"


@dataclass(frozen=True)
class CandidateRecord:
    """One evaluated candidate. verdicts and log_likelihoods are [records, positions]; fitness is NaN if it failed."""

    generation: int
    slot: int
    candidate: Candidate
    fitness: float
    verdicts: NDArray[np.bool_] | None = None
    log_likelihoods: NDArray[np.float64] | None = None
    error: str | None = None


class Study:
    """The records of one run directory. Make it with `open_study`, which holds the lock."""

    def __init__(self, store: Any, directory: Path) -> None:
        self._store = store
        self.directory = directory

    def records(self) -> dict[tuple[int, int], CandidateRecord]:
        """All records by (generation, slot)."""
        from optuna.trial import TrialState

        found = {}
        for trial in self._store.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)):
            record = _from_attributes(trial.user_attrs, trial.value)
            found[record.generation, record.slot] = record
        return found

    def add(self, record: CandidateRecord) -> None:
        """Append one record; raises `StudyError` if the store can't be written (disk full, read-only)."""
        import optuna
        from optuna.distributions import FloatDistribution

        params: dict[str, Any] = {}
        distributions: dict[str, Any] = {}
        for index, (x, y) in enumerate(record.candidate.control_points):
            for name, value in ((f"x{index}", x), (f"y{index}", y)):
                params[name] = value
                distributions[name] = FloatDistribution(min(0.0, value), max(1.0, np.ceil(value)))
        failed = np.isnan(record.fitness)
        trial = optuna.create_trial(
            state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
            value=None if failed else record.fitness,
            params=params,
            distributions=distributions,
            user_attrs=_to_attributes(record),
        )
        try:
            self._store.add_trial(trial)
        except Exception as error:
            raise StudyError(f"{self.directory}: the study can't be written ({error})") from error


@contextmanager
def open_study(directory: Path, settings: dict[str, Any]) -> Iterator[Study]:
    """Create the study of a run directory, or continue it if it was made with the same settings.

    Raises `StudyError` if the settings differ (the message is the difference), if another process drives the study, if
    the folder can't be written, or if the file is no study of ours.
    """
    import filelock

    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(directory / "study.lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise StudyError(
            f"{directory}: another process is running this search; wait for it, or use another --out"
        ) from None
    except OSError as error:
        raise StudyError(f"{directory}: can't be written ({error.strerror or error}); use another --out") from None
    try:
        yield _open(directory, settings)
    finally:
        lock.release()


def _open(directory: Path, settings: dict[str, Any]) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = directory / "study.db"
    try:
        store = optuna.create_study(study_name=_NAME, storage=_storage(path), direction="maximize", load_if_exists=True)
        stored = store.user_attrs.get("settings")
        if stored is None:
            if store.get_trials(deepcopy=False):
                raise StudyError(f"{path}: holds trials but no settings of ropewalk; use another --out")
            store.set_user_attr("settings", json.dumps({"schema": SCHEMA, **settings}))
            return Study(store, directory)
    except StudyError:
        raise
    except Exception as error:  # SQLAlchemy, Alembic and Optuna each have their own for a broken file
        reason = str(error).splitlines()[0]
        raise StudyError(
            f"{path}: is no study that can be opened ({reason}); move it away or use another --out"
        ) from error
    difference = _difference(json.loads(stored), json.loads(json.dumps({"schema": SCHEMA, **settings})))
    if difference:
        lines = "\n".join(f"  {name}: {old!r} -> {new!r}" for name, old, new in difference)
        raise StudyError(
            f"{directory}: holds a search with other settings:\n{lines}\n"
            "Give the same settings to continue it, or another --out to start a new one"
        )
    return Study(store, directory)


def _storage(path: Path) -> Any:
    """SQLite in write-ahead mode: a kill can't corrupt it, and a dashboard may read while the search writes."""
    import optuna
    import sqlalchemy

    storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 30}})

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()  # the constructor's own connections were made before the listener
    return storage


def _difference(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves that differ between two JSON documents, as (dotted name, old, new)."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *[key for key in new if key not in old]]
        return [row for key in keys for row in _difference(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [(name, old, new)]


def _to_attributes(record: CandidateRecord) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "generation": record.generation,
        "slot": record.slot,
        "candidate": json.dumps(record.candidate.to_json()),
    }
    if record.error is not None:
        attributes["error"] = record.error
    if record.verdicts is not None and record.log_likelihoods is not None:
        attributes["verdicts"] = json.dumps(record.verdicts.astype(int).tolist())
        attributes["log_likelihoods"] = json.dumps(record.log_likelihoods.tolist())
    return attributes


def _from_attributes(attributes: dict[str, Any], value: float | None) -> CandidateRecord:
    verdicts, likelihoods = attributes.get("verdicts"), attributes.get("log_likelihoods")
    return CandidateRecord(
        generation=attributes["generation"],
        slot=attributes["slot"],
        candidate=Candidate.from_json(json.loads(attributes["candidate"])),
        fitness=float("nan") if value is None else value,
        verdicts=None if verdicts is None else np.array(json.loads(verdicts), dtype=np.bool_),
        log_likelihoods=None if likelihoods is None else np.array(json.loads(likelihoods), dtype=np.float64),
        error=attributes.get("error"),
    )
