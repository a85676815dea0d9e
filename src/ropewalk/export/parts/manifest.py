"""`ropewalk-export.json`: which files are an export's own, so that nothing else is ever taken for a part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.errors import DataError

MANIFEST, FACTORS = "ropewalk-export.json", "factors.json"
SCHEMA = "ropewalk.export/1"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an export; None where there is none. Raises `DataError` for one that can't be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = files.read_json(path)
    sizes = content.get("files") if isinstance(content, dict) else None
    if not isinstance(sizes, dict) or content.get("schema") != SCHEMA or not all(map(_is_inside, sizes)):
        raise DataError(f"{path}: is no manifest that this version of ropewalk reads ({SCHEMA}); export again")
    return dict(content)


def _is_inside(name: str) -> bool:
    """Whether a name leads to a file of the folder: no way out of it."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name
