"""The options of workers: what can't be meant is one line, before a model or Ray is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.cli import run
from ropewalk.cli.options import ModelOptions
from ropewalk.cli.worker_options import WorkerOptions


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--num-workers", "2"], "--num-workers is for workers: give --workers ray as well"),
        (["--ray-dashboard"], "--ray-dashboard is for workers: give --workers ray as well"),
        (["--workers", "ray", "--num-workers", "0"], "--num-workers is 0, expected at least 1"),
        (["--workers", "ray", "--gpus-per-worker", "-1"], "--gpus-per-worker is -1, expected at least 0"),
        (["--workers", "ray", "--worker-timeout", "0"], "--worker-timeout is 0.0 seconds"),
        (["--workers", "ray", "--device", "cuda:1"], "workers get their devices from Ray"),
        (["--workers", "ray", "--device", "cpu", "--gpus-per-worker", "1"], "give one of them"),
        (["--workers", "ray", "--ray-address", "a:1", "--ray-dashboard"], "has its own"),
        (["--workers", "ray", "--ray-address", "nowhere"], "expected HOST:PORT"),
        (["--workers", "ray", "--ray-address", "127.0.0.1:1"], "no cluster answers there"),
    ],
)
def test_what_cant_be_meant(
    given: list[str], words: str, roomy_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "--model", str(roomy_path), "--keys", "3", "--out", str(tmp_path / "run"), *given]
    assert run(command) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_the_default_is_this_process(roomy_path: Path) -> None:
    options = WorkerOptions()
    options.check(ModelOptions(str(roomy_path)))
    with options.loaded(ModelOptions(str(roomy_path), device="cpu")) as (model, _):
        assert not any(weight.is_meta for weight in model.parameters())


def test_a_search_in_this_process_loads_no_ray(roomy_path: Path, tmp_path: Path) -> None:
    search = ["search", "--model", str(roomy_path), "--keys", "2", "--positions", "2", "--limit", "2",
              "--dry-run", "--out", str(tmp_path)]  # fmt: skip
    code = (
        "import sys; from ropewalk.cli import run; status = run(sys.argv[1:]); "
        "sys.exit(status or 10 * any(name.split('.')[0] == 'ray' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *search], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
