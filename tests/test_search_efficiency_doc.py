"""The tables of docs/results.md are what the benchmark prints from the runs in the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ("search-efficiency-smollm2-h200.jsonl", "search-efficiency-qwen-kv75-h200.jsonl")


def test_the_tables_are_the_scripts() -> None:
    files = [str(ROOT / "benchmarks" / "results" / name) for name in RESULTS]
    command = [sys.executable, str(ROOT / "benchmarks" / "search_efficiency.py"), "table", *files]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (shown,) = re.findall(
        r"<!-- search-efficiency -->\n(.*?)<!-- /search-efficiency -->",
        (ROOT / "docs" / "results.md").read_text(),
        re.S,
    )
    assert printed.count("\n") > 30
    assert shown.strip() == printed.strip()
