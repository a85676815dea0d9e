"""The candidates of a search, from its study, read without a lock: the search may be running.

The file is SQLite, so it is read as such, in a read-only transaction: Optuna would write to it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.constraints import Scores
from ropewalk.errors import StudyError
from ropewalk.objectives import Measure
from ropewalk.study import BUSY_SECONDS, SCHEMA, CandidateRecord, record_from_trial

Array = NDArray[np.float64]
BASELINE = -1  # the generation of the model as it is, which is scored before all others

TRIALS = """
SELECT studies.study_name, trials.state, trial_values.value, attributes.value_json
FROM trials
JOIN studies ON studies.study_id = trials.study_id
JOIN trial_user_attributes AS attributes ON attributes.trial_id = trials.trial_id AND attributes.key = 'record'
LEFT JOIN trial_values ON trial_values.trial_id = trials.trial_id
ORDER BY trials.trial_id
"""
SETTINGS = """
SELECT value_json FROM study_user_attributes AS attributes
JOIN studies ON studies.study_id = attributes.study_id
WHERE studies.study_name = 'search' AND attributes.key = 'settings'
"""


@dataclass(frozen=True)
class History:
    """All that a study holds, in the order in which it was added. settings: what the records depend on.

    search, validation: records of either split, vanilla's own first.
    """

    settings: Mapping[str, Any]
    search: tuple[CandidateRecord, ...]
    validation: tuple[CandidateRecord, ...]

    @property
    def names(self) -> list[str]:
        """Of the tasks, in their order."""
        parts, tasks = self.settings["objective"]["parts"], self.settings["tasks"]
        return [str(part["name"] or task["task"]) for part, task in zip(parts, tasks, strict=True)]

    def measure(self, task: int) -> Measure:
        """What the search looks at on a task."""
        measure: Measure = self.settings["objective"]["parts"][task]["measure"]
        return measure

    def positions(self, task: int) -> list[int]:
        """Gold positions of a task."""
        return list(self.settings["tasks"][task]["positions"])

    @property
    def vanilla(self) -> tuple[Scores, ...] | None:
        """What the model as it is scores on all search records, by task; None before it was scored."""
        return next((record.found for record in self.search if record.generation == BASELINE), None)

    @property
    def candidates(self) -> list[CandidateRecord]:
        """Of the search, without the baseline."""
        return [record for record in self.search if record.generation != BASELINE]

    @property
    def alike(self) -> bool:
        """Whether all candidates that were not stopped were scored on the same records: else luck orders them."""
        rows = {record.rows for record in self.candidates if record.found and not record.stopped}
        return len(rows) <= 1

    def gains(self, record: CandidateRecord, task: int) -> Array | None:
        """What a candidate measures above vanilla on the same records, mean over them, [positions].

        None where it has no scores of its own: it failed, or has those of an earlier candidate of equal factors.
        """
        vanilla = self.vanilla
        if vanilla is None or task >= len(record.rows) or len(record.found) <= task or not record.rows[task]:
            return None
        measure, found = self.measure(task), record.found[task]
        base = vanilla[task].rows(record.rows[task])
        if found.scores.shape != base.scores.shape or not (found.finite and base.finite):
            return None
        return np.asarray((found.measured(measure) - base.measured(measure)).mean(axis=0))


def read_history(path: Path) -> History:
    """The study of a run directory. Raises `StudyError` for a file that is none of ours, or of another version."""
    try:
        settings, rows = _read(path)
        document = json.loads(settings)
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise StudyError(f"{path}: can't be read as the study of a search ({error})") from None
    if document.get("schema") != SCHEMA:
        raise StudyError(
            f"{path}: its records are {document.get('schema')!r}, this version of ropewalk reads {SCHEMA!r}"
        )
    records: dict[str, list[CandidateRecord]] = {"search": [], "validation": []}
    try:
        for split, state, value, text in rows:
            attributes = {"record": json.loads(text)}
            trial = SimpleNamespace(user_attrs=attributes, value=value, state=SimpleNamespace(name=state))
            records[split].append(record_from_trial(trial))
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{path}: a record can't be read ({type(error).__name__}: {error})") from None
    return History(document, tuple(records["search"]), tuple(records["validation"]))


def _read(path: Path) -> tuple[str, list[tuple[str, str, float | None, str]]]:
    """Settings and trials as they are in the file.

    While a search runs there is a -wal file beside the study, and SQLite's own locks keep the two in step. Without one
    nobody writes: then the file is opened as one that doesn't change, for else SQLite would leave files in its folder.
    """
    busy = path.with_name(f"{path.name}-wal").exists()
    address = f"{path.absolute().as_uri()}?mode=ro{'' if busy else '&immutable=1'}"
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as connection:
        found = connection.execute(SETTINGS).fetchone()
        if found is None:
            raise StudyError(f"{path}: is a database, but no study of ropewalk")
        return found[0], connection.execute(TRIALS).fetchall()
