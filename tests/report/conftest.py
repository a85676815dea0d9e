"""Real runs on a tiny random model, made by the command line in seconds. Copy one to change it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

RECORDS = ("--validation-limit", "2", "--test-limit", "4")
GENETIC = (
    "--method", "bezier-ga", "--population", "5", "--parents", "3", "--mutations", "2", "--crossovers", "2",
    "--generations", "3",
)  # fmt: skip
KV = ("--keys", "3", "--positions", "3")
RUNS = {
    "bezier": (*KV, "--limit", "2", *RECORDS, *GENETIC, "--control-budget", "300"),
    "default": (*KV, "--limit", "6", *RECORDS, "--generations", "3", "--population", "8", "--control-budget", "0"),
    "mix": (
        "--task", "kv:keys=2,share=2", "--task", "needle:lengths=50,60", "--positions", "2", "--limit", "2", *RECORDS,
        *GENETIC, "--control-budget", "0", "--max-position-loss", "0.5",
    ),
    "identity": (
        "--keys", "2", "--positions", "2", "--limit", "2", *RECORDS, "--low", "1", "--high", "1", "--generations", "1",
        "--control-budget", "0",
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def run_folders(roomy_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run directory for each of `RUNS`, and an unfinished one."""
    from ropewalk.cli import run

    base = tmp_path_factory.mktemp("report runs")
    for name, options in RUNS.items():
        assert run(["search", "--model", str(roomy_path), *options, "--out", str(base / name)]) == 0
    unfinished = base / "unfinished"
    unfinished.mkdir()
    for name in ("study.db", "factors.json", "study.lock"):
        shutil.copy(base / "bezier" / name, unfinished / name)
    return {name: base / name for name in (*RUNS, "unfinished")}
