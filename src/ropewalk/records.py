"""Files of records: jsonl, also gzipped, from a path or from a hub data set, with errors that name file and line."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ropewalk.builtin_text import BUILTIN, builtin_text
from ropewalk.errors import DataError, PrerequisiteError

HUB = "hf://datasets/"


def read_jsonl(source: str | Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each JSON object of a jsonl(.gz) file with the words that say where it stands ("FILE, line N").

    Empty lines are passed over. Raises `DataError` that names file, line and column.
    """
    for number, line in enumerate(read_bytes(source).split(b"\n"), start=1):
        if line.strip():
            where = f"{source}, line {number}"
            yield _parse(line, where), where


def read_text(source: str | Path) -> str:
    """The text of a UTF-8 file, also gzipped. Raises `DataError`."""
    try:
        return read_bytes(source).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8 ({error.reason} at byte {error.start})") from None


def read_bytes(source: str | Path) -> bytes:
    """The content of a file, unpacked where its name ends in .gz, or of the built-in text.

    Raises `DataError` if it can't be read.
    """
    if source == BUILTIN:
        return builtin_text().encode()
    path = local_path(source)
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except FileNotFoundError:
        raise DataError(f"{source}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source}: can't be read ({error})") from None


def digest(source: str | Path) -> str:
    """SHA-256 of the unpacked content: a file counts by what it says, not by its name."""
    return hashlib.sha256(read_bytes(source)).hexdigest()


def local_path(source: str | Path) -> Path:
    """The path of a file here; hf://datasets/OWNER/NAME/FILE is fetched into the hub's cache first."""
    if not str(source).startswith(HUB):
        return Path(source)
    parts = str(source).removeprefix(HUB).split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise DataError(f"{source}: expected {HUB}OWNER/NAME/FILE")
    return _fetched("/".join(parts[:2]), parts[2])


def text_field(document: dict[str, Any], name: str, where: str) -> str:
    """The non-empty string in field `name`, else a `DataError` with line and field."""
    content = document.get(name)
    if not isinstance(content, str) or not content.strip():
        raise DataError(f'{where}: field "{name}" is {content!r}, expected a non-empty string')
    return content


def texts_field(document: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    """The non-empty list of non-empty strings in field `name`, else a `DataError` with line and field."""
    content = document.get(name)
    good = isinstance(content, list) and content and all(isinstance(text, str) and text.strip() for text in content)
    if not good:
        raise DataError(f'{where}: field "{name}" is {content!r}, expected a list of non-empty strings')
    return tuple(content)  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _fetched(repository: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset"))
    except Exception as error:  # the hub's own errors, the network's and the disk's
        raise PrerequisiteError(
            f"{HUB}{repository}/{name}: can't be fetched ({type(error).__name__}: {error}); "
            "check the name and the network, or give a file here"
        ) from None


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(line.decode("utf-8"))
        if b"\\ud" in line.lower():  # half of a surrogate pair is JSON, but no text that can be hashed or tokenised
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: not valid Unicode ({error.reason})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(document, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(document).__name__}")
    return document
