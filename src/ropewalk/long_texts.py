"""Long texts of a user's: a file, several, or a folder of them, each with a label and a digest of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ropewalk.errors import DataError
from ropewalk.records import HUB, read_text

PATTERNS = (("*.txt", "*.txt.gz"), ("*.md",))  # the second where a folder has none of the first: notes are no books


@dataclass(frozen=True)
class LongText:
    """One file: its label, its text and the digest of its content."""

    label: str
    text: str
    sha256: str


def text_sources(data: str) -> tuple[str, ...]:
    """The files that `--data` names, in its order; of a folder those of `PATTERNS`, by their names.

    Raises `DataError` for none.
    """
    path = Path(data)
    if path.is_dir():
        by_kind = [sorted(str(file) for one in patterns for file in path.glob(one)) for patterns in PATTERNS]
        found = next(filter(None, by_kind), None)
        if found is None:
            raise DataError(f"{data}: the folder holds no .txt or .txt.gz file, and no .md file")
        return tuple(found)
    parts = [part.strip() for part in data.split(",") if part.strip()]
    if path.is_file() or (data.startswith(HUB) and len(parts) == 1):
        return (data,)  # a comma may be part of a name
    if not parts:
        raise DataError(f"--data {data!r}: expected a text file, several with commas between, or a folder")
    return tuple(parts)


def long_texts(sources: Sequence[str]) -> list[LongText]:
    """The texts of the files, labelled by their names, or by their paths where a name is there twice.

    Raises `DataError` for a file that can't be read, and for a text that is there twice.
    """
    names = [Path(source).name for source in sources]
    texts: list[LongText] = []
    for source, name in zip(sources, names, strict=True):
        content = read_text(source)
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        twin = next((text.label for text in texts if text.sha256 == sha256), None)
        if twin is not None:
            raise DataError(f"{source}: the same text as {twin}; give it once")
        texts.append(LongText(name if names.count(name) == 1 else source, content, sha256))
    return texts
