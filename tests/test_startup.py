"""Start-up stays light: no torch and no transformers before a model is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "scipy", "optuna", "altair", "accelerate", "gguf")
REPORT = f"""
import atexit, sys
atexit.register(lambda: print("LOADED", *[name for name in {HEAVY!r} if name in sys.modules]))
"""


def loaded_by(code: str, *arguments: str) -> tuple[list[str], str]:
    """Which heavy packages a fresh interpreter has loaded when it ends, and what it printed."""
    command = [sys.executable, "-c", REPORT + code, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    output, _, heavy = run.stdout.rpartition("LOADED")
    return heavy.split(), output


def test_the_report_would_show_a_heavy_import() -> None:
    assert loaded_by("import scipy")[0] == ["scipy"]


@pytest.mark.parametrize(
    "code",
    [
        "import ropewalk",
        "import ropewalk; ropewalk.__version__; dir(ropewalk)",
        "from ropewalk import ScalingFactors; ScalingFactors.from_bezier([(0, 1), (1, 1.2)], 24).to_dict()",
        "from ropewalk import FactorsError, RopewalkError, UnsupportedModelError",
    ],
)
def test_light_imports_load_nothing_heavy(code: str) -> None:
    assert loaded_by(code)[0] == []


ENTRY_POINT = """
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="ropewalk")
command.load()()
"""


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"]])
def test_help_loads_no_torch(arguments: list[str]) -> None:
    heavy, output = loaded_by(ENTRY_POINT, *arguments)
    assert not {"torch", "transformers"} & set(heavy)
    assert "search" in output
