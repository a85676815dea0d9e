"""Ray as the tests of workers need it: a token that is not the user's, and what every test ends with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def ray_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray's token in a file of the tests; before Ray is started."""
    path = tmp_path_factory.mktemp("ray") / "token"
    path.write_text(TOKEN)
    before = dict(os.environ)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # workers import what tests give them
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    yield path
    os.environ.clear()
    os.environ.update(before)
