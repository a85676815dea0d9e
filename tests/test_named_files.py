"""Texts in files that a line names: where they are looked for, what counts, what is said of one that is not there."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import DataError
from ropewalk.named_files import documents_digest, read_documents
from ropewalk.records import digest


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document, _ in read_documents(path)]


def test_a_name_is_relative_to_the_jsonl_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "books").mkdir(parents=True)
    (tmp_path / "data" / "books" / "one.txt.gz").write_bytes(gzip.compress(b"\nOne.\n"))
    (tmp_path / "two.md").write_text("Two.")
    line = {"text": {"file": "books/one.txt.gz"}, "all": [{"file": str(tmp_path / "two.md")}, "three"]}
    path = write(tmp_path / "data" / "a.jsonl", line)
    monkeypatch.chdir(tmp_path / "data" / "books")
    assert documents(path) == [{"text": "One.", "all": ["Two.", "three"]}]


def test_what_is_no_name_of_a_file_stays(tmp_path: Path) -> None:
    line = {"file": "a.txt", "source": {"file": "a.pdf", "page": 3}, "number": {"file": 1}, "none": None}
    path = write(tmp_path / "a.jsonl", line)
    assert documents(path) == [line]
    assert documents_digest(path) == digest(path)


def test_the_digest_follows_the_texts_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": {"file": "one.txt"}}, {"text": "plain"})
    (tmp_path / "one.txt").write_text("One.")
    before = documents_digest(path)
    assert before == documents_digest(path) != digest(path)
    (tmp_path / "one.txt").write_text("Another one.")
    assert documents_digest(path) != before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r'a.jsonl, line 2: field "text": .*one.txt: no such file'),
        (b" \n", r'a.jsonl, line 2: field "text": .*one.txt: the file is empty'),
        (b"%PDF-1.7\n\xe2\xe3", r'a.jsonl, line 2: field "text": .*one.txt: not UTF-8'),
    ],
    ids=["missing", "empty", "no text"],
)
def test_errors_name_line_field_and_file(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "plain"}, {"text": {"file": "one.txt"}})
    if content is not None:
        (tmp_path / "one.txt").write_bytes(content)
    with pytest.raises(DataError, match=said):
        documents(path)
