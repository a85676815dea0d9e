"""Records whose texts stand in files of their own: {"file": "books/one.txt"} in the place of a text is that file's.

So a record of a hundred pages stays a line. The name is relative to the folder of the jsonl file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.errors import DataError
from ropewalk.records import digest, local_path, read_jsonl, read_text

KEY = "file"


def read_documents(source: str | Path) -> Iterator[tuple[dict[str, Any], str]]:
    """As `read_jsonl`, each named file in a field, or in a list in a field, replaced by its text without outer space.

    Raises `DataError` that names line, field and file.
    """
    texts: dict[Path, str] = {}  # a book is asked about more than once
    for document, where in read_jsonl(source):
        yield (
            {name: _filled(value, source, f'{where}: field "{name}"', texts) for name, value in document.items()},
            where,
        )


def documents_digest(source: str | Path) -> str:
    """SHA-256 of the file's content and of all texts that it names; of the file alone where it names none."""
    read = list(zip(read_jsonl(source), read_documents(source), strict=True))
    named = [filled for (document, _), (filled, _) in read if filled != document]
    if not named:
        return digest(source)
    return hashlib.sha256((digest(source) + json.dumps(named, sort_keys=True)).encode()).hexdigest()


def _filled(value: Any, source: str | Path, where: str, texts: dict[Path, str]) -> Any:
    if isinstance(value, list):
        return [_filled(item, source, where, texts) for item in value]
    if not isinstance(value, dict) or list(value) != [KEY] or not isinstance(value[KEY], str):
        return value
    path = local_path(source).parent / value[KEY]
    if path not in texts:
        try:
            texts[path] = read_text(path).strip()
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if not texts[path]:
            raise DataError(f"{where}: {path}: the file is empty")
    return texts[path]
