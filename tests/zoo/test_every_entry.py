"""Every entry of the zoo, as it lies in the repository: contributions are held to this suite."""

from __future__ import annotations

from pathlib import Path

import pytest

import ropewalk
from doc_blocks import ROOT
from ropewalk.zoo import ENTRIES, entry_names, unverified_remark
from ropewalk.zoo.check import problems
from ropewalk.zoo.entry import read_entry

NAMES = entry_names()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source archive has no link")
def test_contributors_find_the_folder_at_the_root() -> None:
    assert (ROOT / "factors").resolve() == ENTRIES.resolve()


def test_every_folder_is_an_entry() -> None:
    folders = {path.relative_to(ENTRIES).as_posix() for path in ENTRIES.glob("*/*")}
    assert folders == set(NAMES)
    assert [path for path in ENTRIES.iterdir() if not path.is_dir()] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_whole(name: str) -> None:
    """Layers, digests, held-out test with intervals, and a card that says what the JSON says."""
    assert problems(ENTRIES / name, name) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_names_no_place_of_a_machine(name: str) -> None:
    for file in (ENTRIES / name).iterdir():
        text = file.read_text()
        assert [place for place in ("/home/", "/root/", "/tmp/", "/work/", "/mnt/", "/Users/") if place in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_loaded_by_its_name(name: str, recwarn: pytest.WarningsRecorder) -> None:
    factors = ropewalk.load_factors(name)
    assert factors == read_entry(Path(ENTRIES / name), name).factors
    said = [str(warning.message) for warning in recwarn.list if "unverified" in str(warning.message)]
    assert said == ([remark] if (remark := unverified_remark(factors)) else [])


@pytest.mark.parametrize(("task", "points"), [("mdqa", [1.5, 1.75, 1.35, 1.2]), ("kv", [1.2, 1.35, 1.1, 1.0])])
def test_the_papers_curves_are_those_that_were_published(task: str, points: list[float]) -> None:
    """The curve by the Bernstein polynomials, at even parameters over the last 30 of 32 layers."""
    with pytest.warns(UserWarning, match=r"unverified, as published \(arXiv 2503.04355\)"):
        values = list(ropewalk.load_factors(f"vicuna-7b-v1.5/{task}"))
    expected = []
    for layer in range(30):
        t = layer / 29
        weights = [(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3]
        expected.append(sum(weight * y for weight, y in zip(weights, points, strict=True)))
    assert values == pytest.approx([1.0, 1.0, *expected], abs=1e-12)
