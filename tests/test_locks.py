"""The lock of a directory: one holder at a time, and a message for everything that keeps it from being held."""

from __future__ import annotations

from pathlib import Path

import pytest

from ropewalk.errors import StudyError
from ropewalk.locks import held


def test_the_directory_is_made_and_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with held(tmp_path / "new" / "run", "a.lock"):
            assert (tmp_path / "new" / "run").is_dir()


def test_a_second_holder_is_told_what_the_first_one_does(tmp_path: Path) -> None:
    expected = "another process is mending here; wait for it"
    with held(tmp_path, "a.lock"), pytest.raises(StudyError, match=expected), held(tmp_path, "a.lock", "mending here"):
        pass


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(StudyError, match="is a file, expected a folder"), held(tmp_path / "run", "a.lock"):
        pass


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), held(tmp_path, "a.lock"):
        raise ValueError("inside")
    with held(tmp_path, "a.lock"):
        pass
