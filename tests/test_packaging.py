"""The pins, the make targets and the CI script hold together."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}

# A make started by make would inherit its flags and its variables, PYTHON among them.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def installed_closure(name: str, extras: frozenset[str]) -> dict[str, str]:
    """Name and version of every installed distribution that `name[extras]` needs in this environment."""
    found: dict[str, str] = {}
    open_ends, seen = [(name, extras)], set()
    while open_ends:
        end = open_ends.pop()
        if end in seen:
            continue
        seen.add(end)
        try:
            package = distribution(end[0])
        except PackageNotFoundError:
            continue  # torch's GPU libraries, say, where the build for CPUs is installed
        found[canonicalize_name(end[0])] = package.version
        for requirement in map(Requirement, package.requires or []):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in {"", *end[1]}):
                open_ends.append((requirement.name, frozenset(requirement.extras)))
    return found


def test_every_installed_requirement_is_pinned_to_the_installed_version() -> None:
    closure = installed_closure("ropewalk", frozenset({"dev"}))
    assert closure.pop("ropewalk")
    assert {"torch", "transformers", "pytest", "mpmath"} <= closure.keys()
    wrong = {
        name: (version, PINS.get(name))
        for name, version in closure.items()
        if name not in PINS or Version(version).public != Version(PINS[name]).public
    }
    assert wrong == {}, "installed and pinned versions differ: mend constraints.txt"


def test_constraints_hold_exact_versions_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(PINS) > 50
    assert PINS["torch"] == "2.13.0"
    assert {"pip", "hatchling", "hatch-vcs", "editables"} <= PINS.keys()
    assert "ropewalk" not in PINS


def test_ci_calls_the_three_make_targets() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.findall(r"^make (\S+)$", script.read_text(), re.MULTILINE) == ["lint", "test", "test-slow"]


def run_make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def test_make_alone_lists_the_targets() -> None:
    shown = run_make(ROOT).stdout
    assert re.findall(r"^  make (\S+)", shown, re.MULTILINE) == [
        "help", "demo", "test", "test-slow", "test-vllm", "lint", "format", "docs", "clean",
    ]  # fmt: skip


@pytest.mark.parametrize("too_old", ["exit 1", "exit 127"])
def test_an_old_or_missing_python_gets_one_clear_line(tmp_path: Path, too_old: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "python-old").write_text(f"#!/bin/sh\n{too_old}\n")
    (tmp_path / "python-old").chmod(0o755)
    run = run_make(tmp_path, "PYTHON=./python-old", "test")
    assert run.returncode == 2
    assert "needs Python 3.11 or newer" in run.stderr
    assert not (tmp_path / ".venv").exists()
