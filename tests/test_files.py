"""Atomic writes under faults, and readable errors for files that can't be used."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ropewalk import files
from ropewalk.errors import DataError


def only_file(path: Path) -> str:
    """The text of `path`, after checking that nothing else lies beside it."""
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    return path.read_text(encoding="utf-8")


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "demo" / "a.txt"
    files.write_text(path, "old\n")
    files.write_text(str(path), "Bézier → 1.0\n")
    assert only_file(path) == "Bézier → 1.0\n"
    assert path.stat().st_mode & 0o777 == 0o644


def test_json_round_trip(tmp_path: Path) -> None:
    data = {"values": [0.1, 1 / 3, 5e-324, None], "name": "Bézier", "nested": {"empty": []}}
    files.write_json(tmp_path / "a.json", data)
    assert files.read_json(tmp_path / "a.json") == data
    assert "Bézier" in only_file(tmp_path / "a.json")


@pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": float("inf")}, {"a": object()}])
def test_what_is_not_json_writes_nothing(tmp_path: Path, bad: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        files.write_json(tmp_path / "a.json", bad)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def largest_file(limit: int) -> Iterator[None]:
    """Let the system refuse longer files, as a full disk would. SIGXFSZ is ignored by Python."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with largest_file(1000), pytest.raises(DataError, match=r"a\.txt: can't be written .*nothing was changed"):
        files.write_text(path, "new" * 1000)
    assert only_file(path) == "old"


@pytest.mark.parametrize("step", ["mkstemp", "fsync", "chmod", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_fault_at_any_step_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile if step == "mkstemp" else os, step, fail)
    with pytest.raises(DataError) as caught:
        files.write_text(path, "new")
    assert os.strerror(code) in str(caught.value)
    assert str(path) in str(caught.value)
    assert only_file(path) == "old"


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(path, "new")
    assert only_file(path) == "old"


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="can't be written"):
        files.write_text(tmp_path / "file" / "a.txt", "new")
    with pytest.raises(DataError, match="can't be written"):
        files.write_text(tmp_path / "folder", "new")
    with pytest.raises(DataError, match="not valid Unicode"):
        files.write_text(tmp_path / "a.txt", "half a pair: \ud800")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "in the way"


WRITE_FOR_EVER = """
import itertools, sys
from ropewalk.files import write_text
for letter in itertools.cycle("ab"):
    write_text(sys.argv[1], letter * 300_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for wait in (0.02, 0.05, 0.09):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(path)]) as writer:
            while not path.exists():
                assert writer.poll() is None
                time.sleep(0.005)
            time.sleep(wait)
            writer.send_signal(signal.SIGKILL)
        assert path.read_text() in {"a" * 300_000, "b" * 300_000}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,\n "b" 2}', "line 2, column 6"),
        (b"\xff\xfe", "not a text file"),
        (b"[" * 100_000, "not JSON that can be read"),
        (b"1" * 10_000, "not JSON that can be read"),
    ],
)
def test_malformed_json_names_the_file_and_the_place(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        files.read_json(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps(1))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, says in [("none", "no such file"), (".", "is a folder"), ("file/a", "can't be read"), ("loop", "read")]:
        with pytest.raises(DataError, match=says):
            files.read_json(tmp_path / path)
