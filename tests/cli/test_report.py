"""`ropewalk report` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.cli import run
from small_search import whole_search

RUN = """
import sys
from ropewalk.cli import run
code = run(sys.argv[1:])
print("LOADED", *[name for name in ("torch", "transformers", "optuna") if name in sys.modules])
sys.exit(code)
"""


def report(*arguments: object) -> int:
    return run(["report", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def searched(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search without its test, as one that is still at work."""
    out = tmp_path_factory.mktemp("runs") / "kv"
    whole_search(tiny_path, out)
    return out


def test_the_page_lies_in_the_run_by_default(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(searched) == 0
    page = searched / "report.html"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    said = " ".join(capsys.readouterr().out.split())
    assert "kv: Unfinished" in said
    assert f"Report: {page}" in said


def test_several_runs_in_one_page_with_figures_and_json(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures, numbers = tmp_path / "both.html", tmp_path / "figures", tmp_path / "numbers.json"
    assert report(searched, searched / ".", "--out", page, "--figures", figures, "--json", numbers) == 0
    assert page.exists()
    (one,) = json.loads(numbers.read_text())["runs"]  # named twice, shown once
    assert one["name"] == "kv"
    names = {path.name for path in figures.iterdir()}
    assert {"run1-factors.svg", "run1-factors.png", "run1-convergence-time.svg", "run1-heat-kv.png"} <= names


@pytest.mark.parametrize(("arguments", "says"), [([], "no run given"), (["/no/run"], "/no/run: no such folder")])
def test_a_mistake_gets_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert len(error.splitlines()) == 1


def test_a_page_that_cannot_be_written_is_said(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(searched, "--out", "/dev/null/report.html") == 2
    assert "can't be written" in capsys.readouterr().err


def test_no_torch_is_loaded(searched: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, "report", str(searched), "--out", str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *_, loaded = done.stdout.splitlines()
    assert loaded == "LOADED"
