"""An entry of the zoo out of the files that a quality run leaves: all tests of the factors, or none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doc_blocks import ROOT
from ropewalk import ScalingFactors, files, load_pretrained, model_identity
from ropewalk.builtin_text import BUILTIN
from ropewalk.evaluate import evaluate
from ropewalk.identity import base_scheme
from ropewalk.provenance import provenance
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from ropewalk.zoo.check import problems
from ropewalk.zoo.entry import read_entry

SCRIPT = ROOT / "benchmarks" / "reproduce" / "zoo_entry.py"
TESTS = {
    "kv-3": ("kv", TaskOptions(3, keys=3, limit=3)),
    "kv-4": ("kv", TaskOptions(2, keys=4, limit=3)),
    "short-perplexity": ("perplexity", TaskOptions(1, data=BUILTIN, limit=3, options={"window": 64})),
}


@pytest.fixture
def quality(roomy_path: Path, tmp_path: Path) -> Path:
    """The folder of a search as quality.py leaves it, and its tests beside it."""
    model, tokenizer = load_pretrained(roomy_path)
    factors = ScalingFactors([0.9, 1.2, 1.1, 0.95]).with_provenance(
        model=model_identity(model),
        base=base_scheme(model),
        found={"search": "kv", "by": "quality.py, kv", **provenance(model)},
    )
    factors.save(tmp_path / "tiny" / "kv" / "factors.json")
    for name, (task, options) in TESTS.items():
        made = make_task(task, options)
        for arm, given in (("vanilla", None), ("kv", factors)):
            (result,) = evaluate(model, tokenizer, made, [given])
            asked: dict[str, Any] = {"task": made.settings(), "factors": given and list(given)}
            asked["model"] = model_identity(model)["fingerprint"]
            found = {"result": result.to_dict(), "engine": "own"}
            files.write_json(tmp_path / "tiny" / "tests" / name / f"{arm}.json", {"asked": asked, "found": found})
    files.write_json(tmp_path / "tiny" / "model.json", {"source": "4-bit package"})
    return tmp_path / "tiny" / "kv"


def zoo_entry(quality: Path) -> subprocess.CompletedProcess[str]:
    words = [str(quality), "tiny/kv", "--by", "Ann", "--hub-id", "me/tiny", "--out", str(quality.parent / "factors")]
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=300)


def test_all_tests_are_in_the_entry(quality: Path) -> None:
    ended = zoo_entry(quality)
    assert ended.returncode == 0, ended.stderr
    folder = quality.parent / "factors" / "tiny" / "kv"
    assert problems(folder, "tiny/kv") == []
    assert [row["task"] for row in read_entry(folder, "tiny/kv").gains()] == ["kv-3", "kv-4"]
    card = (folder / "README.md").read_text()
    assert "In short texts: perplexity" in card
    assert "tested on other weights than those of the hub: 4-bit package." in card
    assert "--factors tiny/kv --any-model" in card


def test_tests_of_other_factors_are_refused(quality: Path) -> None:
    file = quality.parent / "tests" / "kv-4" / "kv.json"
    document = json.loads(file.read_text())
    document["asked"]["factors"][0] = 1.3
    file.write_text(json.dumps(document))
    ended = zoo_entry(quality)
    assert ended.returncode == 2
    assert "a test is of other factors" in ended.stderr
    assert not (quality.parent / "factors").exists()
