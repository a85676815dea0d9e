"""Steps that are made once: what a step found lies in a file beside what was asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.errors import DataError

Json = dict[str, Any]


def kept(path: Path, asked: Mapping[str, Any], make: Callable[[], Json]) -> Json:
    """What `path` holds, or what `make` finds, which is written there at once.

    asked: all that the finding depends on, as JSON. Raises `DataError` if the file was made for something else.
    """
    if path.exists():
        document = files.read_json(path)
        if document["asked"] != dict(asked):
            different = [name for name in asked if document["asked"].get(name) != asked[name]]
            raise DataError(
                f"{path}: made with another {', '.join(different) or 'setting'}; give another --out, or delete the file"
            )
        return document["found"]
    found = make()
    files.write_json(path, {"asked": dict(asked), "found": found})
    return found
