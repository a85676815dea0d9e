"""The public names of the package."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path

import pytest

import ropewalk
import ropewalk.factors


@pytest.mark.parametrize("name", [name for name in ropewalk.__all__ if name != "__version__"])
def test_each_public_name_is_there_and_comes_from_its_module(name: str) -> None:
    home = importlib.import_module(f"ropewalk.{ropewalk._HOME[name]}")
    assert getattr(ropewalk, name) is getattr(home, name)


def test_all_is_what_dir_shows_and_the_type_checker_sees() -> None:
    assert dir(ropewalk) == sorted(ropewalk.__all__)
    source = Path(ropewalk.__file__).read_text()
    imported = {line.split()[-1] for line in source.splitlines() if line.startswith("    from ropewalk.")}
    assert imported == set(ropewalk.__all__) - {"__version__"}


def test_submodules_come_on_first_use() -> None:
    assert ropewalk.factors.ScalingFactors is ropewalk.ScalingFactors
    assert ropewalk.bezier.curve_factors([(0, 1), (1, 1)], 2).tolist() == [1.0, 1.0]


def test_version_is_the_installed_one() -> None:
    assert ropewalk.__version__ == importlib.metadata.version("ropewalk")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ropewalk' has no attribute 'aply'"):
        ropewalk.aply  # noqa: B018
    with pytest.raises(ImportError, match="aply"):
        from ropewalk import aply  # noqa: F401
    assert not hasattr(ropewalk, "_private")
