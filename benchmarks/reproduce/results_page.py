"""Fill the tables of docs/results.md and README.md from the JSON in benchmarks/results.

    python benchmarks/reproduce/results_page.py

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; what is around it is written by hand. A test checks that
the pages are what this prints.
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
PAGES = {
    ROOT / "docs" / "results.md": ("quality", "claims", "search-efficiency"),
    ROOT / "README.md": ("headline",),
}
RESULTS = ROOT / "benchmarks" / "results"
EFFICIENCY = ("search-efficiency-smollm2-h200.jsonl", "search-efficiency-qwen-kv75-h200.jsonl")
HEADLINE = "quality-qwen2.5-coder-0.5b-instruct.json"
NOTHING = "Not measured yet."


def blocks() -> dict[str, str]:
    """Every table of the pages by its name."""
    quality = [files.read_json(path) for path in sorted(RESULTS.glob("quality-*.json"))]
    claimed = search_efficiency.read(sorted(RESULTS.glob("claims-*.jsonl")))
    return {
        "quality": quality_report.tables(quality) or NOTHING,
        "claims": claims.tables(claimed) or NOTHING,
        "search-efficiency": search_efficiency.tables(search_efficiency.read([RESULTS / name for name in EFFICIENCY])),
        "headline": quality_report.headline(files.read_json(RESULTS / HEADLINE)),
    }


def filled(path: Path, page: str) -> str:
    """The text of a page with its tables as they are now. Raises ValueError where one has no place on it."""
    tables = blocks()
    for name in PAGES[path]:
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        block = re.compile(re.escape(start) + ".*?" + re.escape(end), re.S)
        if len(block.findall(page)) != 1:
            raise ValueError(f"{path.name}: expected {start} and {end} once")
        page = block.sub(lambda _, own=f"{start}\n{tables[name]}\n{end}": own, page)
    return page


if __name__ == "__main__":
    for path in PAGES:
        files.write_text(path, filled(path, path.read_text(encoding="utf-8")))
