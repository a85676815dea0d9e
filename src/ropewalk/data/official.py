"""The official files of "Lost in the Middle" (arXiv 2307.03172), from the network or a folder, with pinned digests.

A digest is git's own of a file's content, read off the authors' repository at `COMMIT`; a file whose content has
another one never gets the official name.
"""

from __future__ import annotations

import difflib
import hashlib
import http.client
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ropewalk import files
from ropewalk.errors import DataError, PrerequisiteError

Outcome = Literal["fetched", "copied", "already there"]
OnBytes = Callable[[int, int | None], None]

REPOSITORY = "https://github.com/nelson-liu/lost-in-the-middle"
COMMIT = "29b8a6d042ce29abccee3db1a73171a107d7e6af"
BASE = f"https://raw.githubusercontent.com/nelson-liu/lost-in-the-middle/{COMMIT}"
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18  # bytes
ENDING = ".jsonl.gz"

# Folder of the repository -> file, less its ending -> git's digest of the content.
_FOLDERS = {
    "kv_retrieval_data": {
        "kv-retrieval-75_keys": "6d125bd4c448d2697c26948b9be66c3bfe33a392",
        "kv-retrieval-140_keys": "45d0bcd57a6d3f5219894ebc625f21e30e42df8a",
        "kv-retrieval-300_keys": "c25c0d5a1c1fcc029996477aed1c68aecaa2a002",
    },
    "qa_data/10_total_documents": {
        "nq-open-10_total_documents_gold_at_0": "eff71009ef7056aae77733d6ee8cf4614f63756e",
        "nq-open-10_total_documents_gold_at_4": "bc6f62ddde818de432101f442e1bad2d6ff7eb28",
        "nq-open-10_total_documents_gold_at_9": "155bc34b092cf409338892670a78469b5b49c8fa",
    },
    "qa_data/20_total_documents": {
        "nq-open-20_total_documents_gold_at_0": "19d062a7c970798aa44f47b708d449ee736c046a",
        "nq-open-20_total_documents_gold_at_4": "dfc3390cf412688c89cbdf3fe94d9ea91a2a6531",
        "nq-open-20_total_documents_gold_at_9": "3da78e8cd44e269eb6c30a1d72d8ed00ac88df45",
        "nq-open-20_total_documents_gold_at_14": "a44fb5b01239d9efe844db2ccd2b00266ec4df51",
        "nq-open-20_total_documents_gold_at_19": "d5dbd5d6ef8a2e1718d11577bbbce836eb3e883b",
    },
    "qa_data/30_total_documents": {
        "nq-open-30_total_documents_gold_at_0": "a99c95443cf161e1b2f5310bcb47256de1dbd403",
        "nq-open-30_total_documents_gold_at_4": "9ec47860d4a72de6567d0afcbb9a2c3abd812871",
        "nq-open-30_total_documents_gold_at_9": "9599f9270e8af3b9d21e2253bc773bddf59993c1",
        "nq-open-30_total_documents_gold_at_14": "17358fd79fe06a5dcea76d3787676993ae97ab91",
        "nq-open-30_total_documents_gold_at_19": "fbea0d0ef2c4e6b83c5dd58673e9ec016f613925",
        "nq-open-30_total_documents_gold_at_24": "50ee4e42f3c445267c8c2379896d64107fe3c14b",
        "nq-open-30_total_documents_gold_at_29": "80ecfede52e9f45868d432e21506ab9c06e08e23",
    },
    "qa_data": {
        "nq-open-oracle": "9e0e498f7feaca12e5ff1f40526ed7f7a6d9b7d9",
    },
}


@dataclass(frozen=True)
class OfficialFile:
    """A file of the repository. path: in the repository. digest: git's, of the content."""

    path: str
    digest: str

    @property
    def name(self) -> str:
        """The file's name, which it keeps here."""
        return PurePosixPath(self.path).name


FILES = tuple(
    OfficialFile(f"{folder}/{name}{ENDING}", digest)
    for folder, content in _FOLDERS.items()
    for name, digest in content.items()
)


def choose(wanted: Sequence[str]) -> list[OfficialFile]:
    """The official files of these names, all if none is given; the ending .jsonl.gz may be left out.

    Raises `DataError` with the nearest name.
    """
    known = {file.name: file for file in FILES}
    chosen = []
    for given in wanted:
        name = given.removesuffix(ENDING) + ENDING
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(f"no official file {given!r}; {hint}`ropewalk data official --list` names them all")
        chosen.append(known[name])
    return chosen or list(FILES)


def blob_digest(content: bytes) -> str:
    """The digest that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def fetch(
    file: OfficialFile, out: Path, base: str = BASE, timeout: float = TIMEOUT, on_bytes: OnBytes | None = None
) -> Outcome:
    """Bring one file into the folder `out` from the network; a file of that name with other content is replaced.

    base: address of the repository's root. timeout: seconds without a byte. on_bytes: told how many have come, of how
    many if that is known.

    Raises `PrerequisiteError` if it can't be fetched, `DataError` if what came is another file.
    """
    if _is_official(out / file.name, file):
        return "already there"
    address = f"{base}/{urllib.parse.quote(file.path)}"
    content = _download(address, timeout, on_bytes)
    if blob_digest(content) != file.digest:
        raise DataError(
            f"{address}: what came ({len(content)} bytes, git digest {blob_digest(content)}) is not the official file, "
            f"whose digest is {file.digest}; nothing was written, try again"
        )
    files.write_bytes(out / file.name, content)
    return "fetched"


def take(file: OfficialFile, out: Path, folder: Path) -> Outcome:
    """Copy one file into the folder `out` from anywhere below `folder`; one of other content is replaced.

    Raises `DataError` if there is none of that name, or none with the official content.
    """
    if _is_official(out / file.name, file):
        return "already there"
    found = _below(folder, file)
    for path in found:
        content = _read(path)
        if blob_digest(content) == file.digest:
            files.write_bytes(out / file.name, content)
            return "copied"
    if found:
        raise DataError(f"{', '.join(map(str, found))}: not the official file, whose git digest is {file.digest}")
    raise DataError(f"{folder}: no {file.name} in it or below; the repository {REPOSITORY} has it at {file.path}")


def found_in(folder: Path) -> list[OfficialFile]:
    """The official files of which `folder` or a folder below has the name. Raises `DataError` if there is none."""
    found = [file for file in FILES if _below(folder, file)]
    if not found:
        raise DataError(f"{folder}: no official file in it or below; `ropewalk data official --list` names them all")
    return found


def _below(folder: Path, file: OfficialFile) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(path for path in folder.rglob(file.name) if path.is_file())


def _is_official(path: Path, file: OfficialFile) -> bool:
    return path.is_file() and blob_digest(_read(path)) == file.digest


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None


def _download(address: str, timeout: float, on_bytes: OnBytes | None) -> bytes:
    content = bytearray()
    try:
        with urllib.request.urlopen(address, timeout=timeout) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            while chunk := response.read(CHUNK):
                content += chunk
                if on_bytes:
                    on_bytes(len(content), total)
    except (OSError, http.client.HTTPException) as error:  # urllib's own errors and timeouts are OSErrors
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise PrerequisiteError(
            f"{address}: can't be fetched ({reason}); without a network, get the repository "
            f"{REPOSITORY} elsewhere and take the files from it: ropewalk data official --from FOLDER --out DIR"
        ) from None
    return bytes(content)
