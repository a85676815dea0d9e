"""Atomic file writes: a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ropewalk.errors import DataError


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, with the promises of `write_bytes`."""
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: can't be written, the text is not valid Unicode ({error.reason})") from None
    write_bytes(path, content)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` through a temporary file in the same folder, flushed to disk before the rename.

    A folder that can't be written, a full disk and the like are a `DataError`; the old file is then as it was.
    """
    target = Path(path)
    try:
        _replace(target, content)
    except OSError as error:
        raise DataError(f"{target}: can't be written ({error.strerror}); nothing was changed") from error


def _replace(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes the file private; results are meant to be read by others
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write `data` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read one JSON file; a missing or malformed file is a `DataError` naming it."""
    target = Path(path)
    try:
        return json.loads(target.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{target}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{target}: is a folder, expected a JSON file") from None
    except OSError as error:
        raise DataError(f"{target}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{target}: not a text file ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{target}: not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a nesting of thousands of levels
        raise DataError(f"{target}: not JSON that can be read ({error})") from None
