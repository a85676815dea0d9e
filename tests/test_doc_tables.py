"""The pages show what the results in the repository say, and every kind of result can be shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ropewalk import files
from ropewalk.cli import run

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def doc_tables() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import doc_tables

        yield doc_tables
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_pages_are_what_the_results_say(doc_tables: Any) -> None:
    """Else: python benchmarks/doc_tables.py"""
    for page in doc_tables.PAGES:
        text = page.read_text()
        assert "<!-- result: " in text
        assert text.count("<!-- result: ") == len(doc_tables.BLOCK.findall(text))
        assert doc_tables.renewed(text) == text


def test_a_block_is_written_and_stays(doc_tables: Any, tmp_path: Path) -> None:
    page = "before\n<!-- result: a.json -->\nold\n<!-- /result -->\nafter\n"
    missing = doc_tables.renewed(page, tmp_path)
    assert missing.startswith("before\n<!-- result: a.json -->\n\n*Not measured yet.*\n")
    assert missing.endswith("\n<!-- /result -->\nafter\n")
    assert doc_tables.renewed(missing, tmp_path) == missing
    provenance = {
        "command": "ropewalk analyze layers",
        "device": "here",
        "versions": {"torch": "1", "transformers": "2"},
    }
    files.write_json(tmp_path / "a.json", {"sentence": "So.", "remarks": ["But."], "provenance": provenance})
    assert "\n\n> So.\n\n- But.\n\n" in doc_tables.renewed(missing, tmp_path)


def test_an_extrapolation(doc_tables: Any) -> None:
    """Every arm of every length has a row, with its figures."""
    shown = doc_tables.shown(BENCHMARKS / "results" / "extrapolate-smollm2-cpu.json")
    assert "; far tokens of 3 windows. " in " ".join(shown.split())
    assert "| 6,144 | `nothing` | 25.3 [20.64 to 32.93] |" in shown
    assert "| 6,144 | `linear+triangle` | 44.34 [39.15 to 53.43] | -0.561 [-0.703 to -0.484], p = 1 | – | – |" in shown


def test_methods_side_by_side(doc_tables: Any, tiny_path: Path, tmp_path: Path) -> None:
    asked = ["--keys", "3", "--positions", "2", "--limit", "3", "--against", "uniform:1.1,ms-poe", "--quiet"]
    assert run(["eval", "--model", str(tiny_path), *asked, "--json", str(tmp_path / "against.json")]) == 0
    document = files.read_json(tmp_path / "against.json")
    rows = [line.split(" | ") for line in doc_tables.shown(tmp_path / "against.json").splitlines() if "| `" in line]
    assert [row[0] for row in rows] == ["| `vanilla`", "| `uniform:1.1`", "| `ms-poe`"]
    gain = document["gain"]["ms-poe"]["average_log_likelihood"]
    assert rows[2][2] == " ".join(f"{100 * value:.0f}" for value in document["ms-poe"]["accuracy"])
    assert rows[2][4].startswith(f"{gain['difference']:+.3f} [{gain['low']:+.3f} to {gain['high']:+.3f}], p = ")
