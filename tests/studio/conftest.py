"""A studio on the tiny model, served for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from studio_process import SMALL, Served, ready, served


@pytest.fixture(scope="module")
def studio(roomy_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("studio")
    with served("--model", roomy_path, *SMALL, "--dtype", "float32", "--out", folder / "session", cwd=folder) as page:
        ready(page)
        yield page
