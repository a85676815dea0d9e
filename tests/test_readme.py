"""What the README shows runs as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


def test_the_python_runs(demo_path: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert "The capital of France is" in run.stdout
    assert '"rope_layer_factors"' in (tmp_path / "smollm2-with-factors" / "config.json").read_text()


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("ropewalk ")])
def test_every_ropewalk_command_parses(command: str) -> None:
    _, *arguments = shlex.split(command)
    function, bound, unused = app.parse_args(arguments, exit_on_error=False, print_error=False)[:3]
    assert not unused
    assert callable(function)
    assert bound.arguments


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_every_make_target_exists(command: str) -> None:
    target = command.split()[1]
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"make {target} " in listed
