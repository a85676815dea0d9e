"""`ropewalk mend --workers ray`: the whole road, with the weights in another process alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ropewalk import ScalingFactors
from ropewalk.cli import run

pytestmark = pytest.mark.slow
SMALL = [
    "--keys", "4", "--limit", "4", "--validation-limit", "4", "--test-limit", "5", "--budget", "500",
    "--control-budget", "0", "--dtype", "float32", "--anyway", "--workers", "ray",
]  # fmt: skip


def test_the_whole_road(ray_token: Path, roomy_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["mend", str(roomy_path), *SMALL, "--out", str(out), "--json", str(out / "json")]) == 0
    assert "Worker 1 of 1: ready" in capsys.readouterr().err
    told = json.loads((out / "json").read_text())
    found = ScalingFactors.load(out / "search" / "factors.json")
    assert (out / "SUMMARY.md").exists()
    if told["checkpoint"] is None:
        assert told["verdict"] in ("vanilla", "worse")
        return
    weights = "model.safetensors"
    assert (out / "model" / weights).read_bytes() == (roomy_path / weights).read_bytes()
    assert json.loads((out / "model" / "config.json").read_text())["rope_layer_factors"] == list(found.values)
