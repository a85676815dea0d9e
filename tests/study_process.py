"""Processes that add records to a study, to be killed or starved of disk space, and what must be left of their work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ropewalk.search.space import SearchSpace
from ropewalk.study import CandidateRecord, open_study

SPACE = SearchSpace(6)
SETTINGS = {"method": {"seed": 0, "population": 8}, "search": {"task": "kv", "positions": [0, 4, 9]}}

PRELUDE = f"""
import resource, sys
from pathlib import Path
import numpy as np
from ropewalk.search.space import SearchSpace
from ropewalk.study import CandidateRecord, open_study
folder, SETTINGS, SPACE = Path(sys.argv[1]), {SETTINGS!r}, SearchSpace(6)

def make(slot):
    likelihoods = -np.random.default_rng(slot).random((20, 5))
    return CandidateRecord(0, slot, SPACE.level(1 + slot / 1000), slot / 3, (likelihoods > -0.5) * 1.0, likelihoods)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

"""
FILL = """
limit({size})
with open_study(folder, SETTINGS) as study:
    for slot in range(len(study.records()), 1000):
        study.add(make(slot))
        print(slot, flush=True)
"""


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PRELUDE + code, folder], capture_output=True, text=True, timeout=60)


def expected(slot: int) -> CandidateRecord:
    likelihoods = -np.random.default_rng(slot).random((20, 5))
    return CandidateRecord(0, slot, SPACE.level(1 + slot / 1000), slot / 3, (likelihoods > -0.5) * 1.0, likelihoods)


def check_first_records(folder: Path, at_least: int) -> int:
    """All that was reported as added is there, to the bit; returns how many are."""
    with open_study(folder, SETTINGS) as study:
        records = study.records()
    assert len(records) >= at_least
    for slot in range(len(records)):
        assert same(records[0, slot], expected(slot))
    return len(records)


def same(one: CandidateRecord, other: CandidateRecord) -> bool:
    """Equal to the bit, NaN equal to NaN."""
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        if isinstance(getattr(one, name), np.ndarray | float)
        else getattr(one, name) == getattr(other, name)
        for name in CandidateRecord.__dataclass_fields__
    )


def kill_while_adding(folder: Path, seconds: float) -> int:
    """Kill a process that adds records, so long after it began; returns how many it had reported by then."""
    code = PRELUDE + FILL.format(size=-1)
    with subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    whole = [line for line in lines if line.endswith("\n")]
    return int(whole[-1]) + 1
