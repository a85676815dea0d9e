"""Figures in the docs are what the scripts print from the results in the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_demo_table_is_the_scripts() -> None:
    script, results = ROOT / "benchmarks" / "demo_setting.py", ROOT / "benchmarks" / "results" / "demo_setting.jsonl"
    command = [sys.executable, str(script), "table", str(results)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.count("\n") > 10
    assert printed in (ROOT / "docs" / "demo.md").read_text()
