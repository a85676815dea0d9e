"""What an analysis has computed already: one JSON file for each thing, named by all that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.errors import DataError


class Kept:
    """JSON by what it depends on, in a folder; without one, for as long as this object lives.

    A file that is cut short or was made under another key counts as missing: it is computed again.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._memory: dict[str, Any] = {}

    def find(self, key: Mapping[str, Any]) -> Any:
        """What was kept under that key, or None."""
        name = _name(key)
        if self.folder is None:
            return self._memory.get(name)
        try:
            document = files.read_json(self.folder / f"{name}.json")
            return document["value"] if document["key"] == _plain(key) else None
        except (DataError, KeyError, TypeError):
            return None

    def keep(self, key: Mapping[str, Any], value: Any) -> None:
        """Keep what was computed, from now on also for other processes. Raises `DataError` if it can't be written."""
        if self.folder is None:
            self._memory[_name(key)] = value
        else:
            files.write_json(self.folder / f"{_name(key)}.json", {"key": _plain(key), "value": value})

    def get(self, key: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """What was kept under that key, or what `compute` gives, which is kept then."""
        found = self.find(key)
        if found is None:
            found = compute()
            self.keep(key, found)
        return found


def _plain(key: Mapping[str, Any]) -> Any:
    """The key as JSON gives it back."""
    return json.loads(json.dumps(dict(key), sort_keys=True, allow_nan=False))


def _name(key: Mapping[str, Any]) -> str:
    text = json.dumps(dict(key), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
