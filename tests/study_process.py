"""Processes that add records to a study, to be killed or starved of disk space, and what must be left of their work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.constraints import Scores
from ropewalk.search.space import SearchSpace
from ropewalk.study import CandidateRecord, open_study

SPACE = SearchSpace(6)
SETTINGS: dict[str, Any] = {"method": {"seed": 0, "population": 8}, "search": {"task": "kv", "positions": [0, 4, 9]}}
SETTINGS["tasks"] = [{"keys": 3, "seed": 0}, {"keys": 3, "seed": 0}]

PRELUDE = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from ropewalk.study import open_study
from study_process import SETTINGS, expected
folder = Path(sys.argv[1])

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

"""
FILL = """
limit({size})
with open_study(folder, SETTINGS) as study:
    for slot in range(len(study.records()), 1000):
        study.add(expected(slot))
        print(slot, flush=True)
"""


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PRELUDE + code, folder], capture_output=True, text=True, timeout=60)


def expected(slot: int) -> CandidateRecord:
    """A record to add; tests compare what is stored with it."""
    likelihoods = -np.random.default_rng(slot).random((20, 5))
    found = Scores((likelihoods > -0.5) * 1.0, likelihoods)
    return CandidateRecord(0, slot, SPACE.level(1 + slot / 1000), slot / 3, (found,), (tuple(range(20)),))


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

    def numbers(record: CandidateRecord) -> list[bytes]:
        arrays = [array for found in record.found for array in (found.scores, found.log_likelihoods)]
        return [array.astype(np.float64).tobytes() for array in (*arrays, np.array(record.fitness))]

    rest = [replace(record, found=(), fitness=0.0) for record in (one, other)]
    return numbers(one) == numbers(other) and rest[0] == rest[1]


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
