"""Tables on the terminal and the JSON report of a benchmark: what was measured, on what, and by which command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ropewalk import files

PACKAGES = ("ropewalk", "torch", "transformers", "triton", "numpy")


def shown(values: Mapping[str, float], digits: int = 3) -> str:
    """A `spread` as "median (low to high)"."""
    return "{median:.{d}g} ({low:.{d}g} to {high:.{d}g})".format(**values, d=digits)


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys under their headings, numbers to the right."""
    print(f"\n{title}")
    if not rows:
        return
    cells = [list(rows[0]), *([_cell(row[name]) for name in rows[0]] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        print(
            "  ".join(
                text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
            )
        )


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return shown(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def warn_of_fallback(name: str, reason: str | None) -> None:
    """Say it where it can't be missed: without its own layer loop the engine is not what is to be measured."""
    if reason is not None:
        print(f"\n!!! {name} ran through model.forward: {reason}")


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(benchmark: str, seed: int, device: torch.device, content: Mapping[str, Any], out: Path | None) -> None:
    """Write the JSON report, atomically, if a file is given: what was measured, on what, and by which command."""
    if out is None:
        return
    head = {
        "benchmark": benchmark,
        "command": command(),
        "seed": seed,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": _commit(),
        "hardware": hardware(device),
    }
    files.write_json(out, head | dict(content))
    progress(f"written to {out}")


def command() -> str:
    """The command line; folders of this machine are cut to their last name."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    folder, script = Path(__file__).resolve().parent, Path(sys.argv[0]).resolve()
    inside = script.relative_to(folder) if script.is_relative_to(folder) else script.name
    return shlex.join(["python", f"benchmarks/{inside}", *words])


def hardware(device: torch.device) -> dict[str, Any]:
    """Device, memory, driver and cores."""
    found: dict[str, Any] = {
        "device_type": device.type,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this checkout, if it is one."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
