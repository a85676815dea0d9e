"""All that a person did in the studio, in one file that is written after every change: a reload or a restart keeps it.

DIR/session.json holds the curve, what undo and redo go to, the saved curves and what is looked at; DIR/results/ID.json
each evaluation with its scores, and DIR/NAME.factors.json each saved curve as factors.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.errors import DataError, RopewalkError, StudyError
from ropewalk.results import TaskResult
from ropewalk.studio.draft import Draft, Shape

SCHEMA = "ropewalk.studio/1"
FILE = "session.json"
RESULTS = "results"
MOST_STEPS = 200  # of undo
MOST_SAVED = 40
MOST_LETTERS = 40  # of a name
VANILLA = "vanilla"
# hidden: curves that are not drawn. reference: what gains are measured against. layer: whose decay is drawn.
LOOK: dict[str, Any] = {"hidden": [], "reference": VANILLA, "layer": None}


class Session:
    """The state of a studio. Every public method is safe to call from any thread, and has written when it returns.

    directory: where it is kept; what is there is continued. model: how the model was named. Raises `StudyError` for a
    session of another model, `DataError` for a file that is none.
    """

    def __init__(self, directory: Path, model: str) -> None:
        self.directory, self.model = directory, model
        self.version = 0
        self._lock = threading.RLock()
        self._results: dict[str, TaskResult] = {}
        self.current, self.undone, self.done = Draft.level(), list[Draft](), list[Draft]()
        self.saved: dict[str, Draft] = {}
        self.look = dict(LOOK)
        if (directory / FILE).exists():
            self._read(directory / FILE)

    def view(self) -> dict[str, Any]:
        """What the page shows of it."""
        with self._lock:
            return {
                "current": self.current.to_json(),
                "can_undo": bool(self.done),
                "can_redo": bool(self.undone),
                "saved": {name: draft.to_json() for name, draft in self.saved.items()},
                "look": self.look,
            }

    def look_at(self, given: Mapping[str, Any]) -> None:
        """Keep what the page shows of it all, as `LOOK`. Raises `DataError` for anything else."""
        with self._lock:
            look = _look(given)
            if look != self.look:
                self.look = look
                self._store()

    def change(self, draft: Draft) -> None:
        """Another curve; undo leads back."""
        with self._lock:
            if draft == self.current:
                return
            self.done = [*self.done, self.current][-MOST_STEPS:]
            self.current, self.undone = draft, []
            self._write()

    def undo(self) -> None:
        """The curve before; nothing where there is none."""
        with self._lock:
            if self.done:
                self.undone.append(self.current)
                self.current = self.done.pop()
                self._write()

    def redo(self) -> None:
        """The curve that `undo` left."""
        with self._lock:
            if self.undone:
                self.done.append(self.current)
                self.current = self.undone.pop()
                self._write()

    def save(self, name: Any) -> str:
        """Keep the current curve under a name; one of that name is replaced. Returns the name. Raises `DataError`."""
        with self._lock:
            kept = _name(name)
            if kept not in self.saved and len(self.saved) >= MOST_SAVED:
                raise DataError(f"{MOST_SAVED} curves are saved, the most there may be: delete one first")
            self.saved[kept] = self.current
            self._write()
            return kept

    def forget(self, name: Any) -> None:
        """Delete a saved curve; its evaluation is kept. Raises `DataError` for a name that is not there."""
        with self._lock:
            self.draft_of(name)
            del self.saved[name]
            self.factors_path(name).unlink(missing_ok=True)
            self._write()

    def draft_of(self, name: Any) -> Draft:
        """A saved curve. Raises `DataError` for a name that is not there."""
        with self._lock:
            if not isinstance(name, str) or name not in self.saved:
                raise DataError(f"no saved curve is called {str(name)[:MOST_LETTERS]!r}")
            return self.saved[name]

    def factors_path(self, name: str) -> Path:
        """Where the factors of a saved curve are."""
        return self.directory / f"{name}.factors.json"

    def keep(self, key: str, result: TaskResult) -> None:
        """A finished evaluation."""
        with self._lock:
            files.write_json(self.directory / RESULTS / f"{key}.json", result.to_dict())
            self._results[key] = result
            self.version += 1

    def result(self, key: str) -> TaskResult | None:
        """The evaluation of a key, None where there is none yet. Raises `DataError` for a file that was spoilt."""
        with self._lock:
            path = self.directory / RESULTS / f"{key}.json"
            if key not in self._results and path.exists():
                self._results[key] = TaskResult.from_dict(files.read_json(path))
            return self._results.get(key)

    def _write(self) -> None:
        self._store()
        self.version += 1

    def _store(self) -> None:
        files.write_json(
            self.directory / FILE,
            {
                "schema": SCHEMA,
                "model": self.model,
                "current": self.current.to_json(),
                "done": [draft.to_json() for draft in self.done],
                "undone": [draft.to_json() for draft in self.undone],
                "saved": {name: draft.to_json() for name, draft in self.saved.items()},
                "look": self.look,
            },
        )

    def _read(self, path: Path) -> None:
        document = files.read_json(path)
        if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
            raise DataError(f"{path}: is no session of the studio; use another --out")
        if document["model"] != self.model:
            raise StudyError(
                f"{path}: is a session on {document['model']!r}, this is {self.model!r}; use another --out"
            )
        try:
            self.current = Draft.from_json(document["current"])
            self.done, self.undone = (list(map(Draft.from_json, document[name])) for name in ("done", "undone"))
            self.look = _look(document.get("look", LOOK))
            self.saved = {_name(name): Draft.from_json(draft) for name, draft in document["saved"].items()}
        except (RopewalkError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: can't be read as a session of the studio ({error}); use another --out") from None


def result_key(values: tuple[float | None, ...] | None, examples: Mapping[str, Any]) -> str:
    """What an evaluation is known by: the factors (None: vanilla), and what they were scored on, model and type."""
    text = json.dumps([None if values is None else list(values), examples], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def check_shape(session: Session, shape: Shape) -> None:
    """Raise `DataError` for a session whose curves don't fit the model."""
    for draft in (session.current, *session.done, *session.undone, *session.saved.values()):
        try:
            draft.factors(shape)
        except RopewalkError as error:
            raise DataError(
                f"{session.directory}: its curves don't fit this model ({error}); use another --out"
            ) from None


def _look(given: Any) -> dict[str, Any]:
    """Raises `DataError` for what is not of the form of `LOOK`."""
    hidden, reference, layer = (given.get(name) if isinstance(given, Mapping) else None for name in LOOK)
    names = [*hidden, reference] if isinstance(hidden, list) and len(hidden) <= MOST_SAVED else [None]
    good = all(isinstance(name, str) and len(name) <= MOST_LETTERS for name in names)
    if not good or isinstance(layer, bool) or not isinstance(layer, int | None):
        raise DataError("expected what is looked at: names of hidden curves, the reference's name, a layer or null")
    return {"hidden": hidden, "reference": reference, "layer": layer}


def _name(given: Any) -> str:
    """A name that is a file's too. Raises `DataError`."""
    name = given.strip() if isinstance(given, str) else ""
    safe = all(letter.isalnum() or letter in " -_+" for letter in name)
    if not name or len(name) > MOST_LETTERS or not safe or name.lower() in (VANILLA, "this curve"):
        raise DataError(
            f"{str(given)[:60]!r} can't be the name of a curve: 1 to {MOST_LETTERS} letters, digits, spaces, - _ +, "
            "and not 'vanilla' or 'this curve'"
        )
    return name
