"""Fill the tables of docs/results.md from the JSON in benchmarks/results.

    python benchmarks/reproduce/results_page.py

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; what is around it is written by hand. A test checks that
the page is what this prints.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import claims
import quality_report

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the benchmarks share

import search_efficiency
from ropewalk import files

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "benchmarks" / "results"
EFFICIENCY = ("search-efficiency-smollm2-h200.jsonl", "search-efficiency-qwen-kv75-h200.jsonl")
NOTHING = "Not measured yet."


def blocks() -> dict[str, str]:
    """Every table of the page by its name."""
    quality = [files.read_json(path) for path in sorted(RESULTS.glob("quality-*.json"))]
    claimed = search_efficiency.read(sorted(RESULTS.glob("claims-*.jsonl")))
    return {
        "quality": quality_report.tables(quality) or NOTHING,
        "claims": claims.tables(claimed) or NOTHING,
        "search-efficiency": search_efficiency.tables(search_efficiency.read([RESULTS / name for name in EFFICIENCY])),
    }


def filled(page: str) -> str:
    """The page with its tables as they are now. Raises ValueError where one has no place on it."""
    for name, text in blocks().items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        block = re.compile(re.escape(start) + ".*?" + re.escape(end), re.S)
        if len(block.findall(page)) != 1:
            raise ValueError(f"{PAGE.name}: expected {start} and {end} once")
        page = block.sub(lambda _, own=f"{start}\n{text}\n{end}": own, page)
    return page


if __name__ == "__main__":
    files.write_text(PAGE, filled(PAGE.read_text(encoding="utf-8")))
