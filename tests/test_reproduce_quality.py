"""benchmarks/reproduce/quality.py: its rule, its files, and a whole small run that is continued and reported."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from types import ModuleType

import pytest

from reproduce_scripts import FOLDER, reproduce_script
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    return reproduce_script("quality")


def test_the_choice_is_the_largest_gain_that_keeps_both_ends(quality: ModuleType) -> None:
    vanilla, loses_first, keeps, loses_last = [0.8, 0.2, 0.7], [0.7, 1.0, 1.0], [0.8, 0.4, 0.7], [0.9, 0.9, 0.6]
    assert quality.chosen([[vanilla, loses_first, keeps, loses_last]], ["kv"]) == 2
    assert quality.chosen([[vanilla, loses_first, loses_last]], ["kv"]) == 1  # none keeps both: the largest gain
    assert quality.chosen([[vanilla, loses_first, keeps]], ["mdqa"]) == 1
    assert quality.chosen([[vanilla, [0.8, 0.1, 0.7]]], ["kv"]) == 0
    worse, better = [0.5, 0.5, 0.5], [0.9, 0.9, 0.9]
    assert quality.chosen([[vanilla, keeps, vanilla], [worse, worse, better]], ["kv", "mdqa"]) == 2  # a mix


def test_a_step_is_made_once_and_never_for_another_question(tmp_path: Path) -> None:
    kept = reproduce_script("steps").kept
    path = tmp_path / "step.json"
    assert kept(path, {"seed": 0}, lambda: {"found": 1}) == {"found": 1}
    assert kept(path, {"seed": 0}, lambda: {"found": 2}) == {"found": 1}
    with pytest.raises(DataError, match="another seed"):
        kept(path, {"seed": 1}, lambda: {"found": 2})


ASKED = {"searches": ["kv", "oracle"], "tests": ["kv-75", "needle"], "controls": ["kv"], "rivals": ["paper"]}


def test_a_run_that_was_cut_short_is_reported_with_what_is_missing(quality: ModuleType, tmp_path: Path) -> None:
    provenance = {"dtype": "bfloat16", "device": "a GPU", "versions": {"torch": "2"}}
    facts = {"name": "tiny", "keys": 75, "chat": True, "source": "as given", "provenance": provenance, "asked": ASKED}
    (tmp_path / "kv" / "choice").mkdir(parents=True)
    (tmp_path / "kv" / "choice" / "uniform.json").write_text("{}")
    (tmp_path / "model.json").write_text(json.dumps(facts))
    report = quality.quality_report(tmp_path)
    assert report["missing"] == {
        "searches": ["kv", "kv line", "oracle", "kv paper"],
        "tests": {
            "kv-75": ["vanilla", "kv", "kv uniform", "kv line", "kv paper"],
            "needle": ["vanilla", "kv"],
            "throwaway": ["vanilla", "oracle"],
        },
    }
    shown = quality.tables([report])
    assert "searches kv, kv line, oracle, kv paper; vanilla, kv, kv uniform, kv line, kv paper on kv-75;" in shown
    goals = reproduce_script("quality_report").goals(report)
    assert {row["measured"] for row in goals} == {"not measured yet"}


def test_what_was_asked_for_once_stays_asked_for() -> None:
    asked = reproduce_script("quality_settings").Asked(("kv",), ("short-choice", "kv-75"), (), ())
    assert asked.and_before(ASKED) == ASKED | {"tests": ["kv-75", "needle", "short-choice"]}
    assert asked.and_before({})["tests"] == ["short-choice", "kv-75"]


def script(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "quality.py"), *words]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # a tiny model's threads only wait for each other
    return subprocess.run(command, capture_output=True, text=True, check=False, env=one_thread)


def official(folder: Path) -> Path:
    """A kv file in the official format, of 8 pairs."""
    names = [str(uuid.UUID(int=number << 64, version=4)) for number in range(64)]
    records = [dict(zip(("key", "value"), names[16 * start : 16 * start + 2], strict=True)) | {
        "ordered_kv_records": [names[16 * start + 2 * pair : 16 * start + 2 * pair + 2] for pair in range(8)]
    } for start in range(4)]  # fmt: skip
    with gzip.open(folder / "kv-retrieval-140_keys.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)
    return folder


@pytest.mark.slow
def test_a_whole_run_is_continued_and_reported(roomy_path: Path, tmp_path: Path) -> None:
    data = official(tmp_path)
    run = ["run", "--model", str(roomy_path), "--name", "tiny", "--data", str(data), "--out", str(tmp_path / "out"),
           "--device", "cpu", "--keys", "5", "--records", "2", "--validation", "2", "--controls", "--rivals",
           "--tests", "kv-5:3", "kv-9:3", "short-choice:2", "--searches"]  # fmt: skip
    ended = script(*run, "kv:330:1")
    assert ended.returncode == 0, ended.stderr
    assert "without the test kv-9" in ended.stderr  # the file has 8 pairs
    folder = tmp_path / "out" / "tiny"
    for study in folder.rglob("study.db*"):
        study.unlink()  # what was fetched of another machine may lack it
    made = {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*.json")
        if path.name not in ("model.json", "factors.json")
    }
    assert {path.name for path in (folder / "tests" / "kv-5").iterdir()} == {"vanilla.json", "kv.json"}
    assert len(ScalingFactors.load(folder / "kv" / "factors.json").values) == 4

    again = folder / "kv" / "plain-0" / "found.json"
    again.unlink()
    del made[again]
    assert script(*run, "kv:330:1").returncode == 0
    assert again.exists()
    assert made == {path: path.stat().st_mtime_ns for path in made}
    refused = script(*run, "kv:400:1")
    assert (refused.returncode, "another budget" in refused.stderr) == (2, True)

    report = tmp_path / "report.json"
    assert script("report", "--out", str(tmp_path / "out"), "--name", "tiny", "--json", str(report)).returncode == 0
    document = json.loads(report.read_text())
    gain = document["tests"]["kv-5"]["gain"]["kv"]["average"]
    assert set(gain) >= {"difference", "low", "high", "p", "p_holm"}
    assert [run["evaluations"] for run in document["searches"]["kv"]["runs"].values()] == [330] * 2
    shown = script("table", str(report)).stdout
    assert "| kv | kept-0 | 330 |" in shown
    assert "*short-choice*" in shown
    assert document["missing"] == {"searches": [], "tests": {"kv-9": ["vanilla", "kv"]}}
    assert "not measured yet: vanilla, kv on kv-9." in shown
