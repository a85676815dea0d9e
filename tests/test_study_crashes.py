"""A study killed and starved of disk space: the records are whole or absent, never half."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ropewalk.study import open_study
from study_process import FILL, PRELUDE, SETTINGS, check_first_records, expected, kill_while_adding, run_python


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: SQLite gets the same kind of error from its write."""
    full = run_python(FILL.format(size=300_000), tmp_path)
    added = len(full.stdout.splitlines())
    assert full.returncode == 1
    assert "study.db: can't be written" in full.stderr.splitlines()[-1]
    assert "make room" in full.stderr.splitlines()[-1]
    assert 0 < added < 1000
    assert check_first_records(tmp_path, added) == added
    with open_study(tmp_path, SETTINGS) as study:  # there is room again
        study.add(expected(added))
    assert check_first_records(tmp_path, added) == added + 1


def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    full = run_python(FILL.format(size=10_000), tmp_path)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("ropewalk.errors.StudyError")
    assert not (tmp_path / "study.db").exists()
    with open_study(tmp_path, SETTINGS) as study:
        study.add(expected(0))
    assert check_first_records(tmp_path, 1) == 1


def test_a_disk_that_is_full_when_a_search_continues(tmp_path: Path) -> None:
    """It shows as the study is opened, before any candidate is scored."""
    with open_study(tmp_path, SETTINGS) as study:
        for slot in range(30):
            study.add(expected(slot))
    code = "limit(1000)\nwith open_study(folder, SETTINGS): print('opened')"
    full = run_python(code, tmp_path)
    assert full.stdout == ""
    assert "study.db: can't be" in full.stderr.splitlines()[-1]
    assert check_first_records(tmp_path, 30) == 30


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.33])
def test_records_survive_a_kill(tmp_path: Path, seconds: float) -> None:
    added = kill_while_adding(tmp_path, seconds)
    assert added <= check_first_records(tmp_path, added) <= added + 1


@pytest.mark.slow
def test_records_survive_many_kills_in_a_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(17)
    kept = 0
    for _ in range(20):
        added = kill_while_adding(tmp_path, float(rng.uniform(0, 0.3)))
        now = check_first_records(tmp_path, added)
        assert now > kept
        kept = now


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_a_kill_while_the_study_is_made(tmp_path: Path, seconds: float) -> None:
    """It is a whole study or none: the next run opens it either way."""
    code = "import optuna, sqlalchemy, filelock; optuna.storages.RDBStorage; print(flush=True)\n" + (
        "with open_study(folder, SETTINGS): pass"
    )
    with subprocess.Popen([sys.executable, "-c", PRELUDE + code, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()
    with open_study(tmp_path, SETTINGS) as study:
        assert study.records() == {}
        study.add(expected(0))
    assert check_first_records(tmp_path, 1) == 1
    assert not (tmp_path / "study.db.new").exists()


def test_files_left_by_a_deleted_study_do_no_harm(tmp_path: Path) -> None:
    """SQLite would play an old write-ahead log back into a new database."""
    kill_while_adding(tmp_path, 0.1)
    assert (tmp_path / "study.db-wal").stat().st_size > 0
    (tmp_path / "study.db").unlink()
    with open_study(tmp_path, SETTINGS) as study:
        assert study.records() == {}
