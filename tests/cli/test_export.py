"""`ropewalk export` as a new user types it: what was meant, what is missing, and what is there already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ropewalk import ScalingFactors, load_pretrained
from ropewalk.cli import run
from ropewalk.patch import factors_of

VALUES = (0.9, 1.05, 1.1, 0.95)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A run's directory, as far as export needs it."""
    (tmp_path / "run").mkdir()
    ScalingFactors(VALUES).save(tmp_path / "run" / "factors.json")
    return tmp_path / "run"


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a mistake."""
    capsys.readouterr()
    assert run(["export", *map(str, arguments)]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("ropewalk: ")
    return line


def test_a_runs_directory_will_do(given: Path, tiny_path: Path, tmp_path: Path) -> None:
    """Also that of mend, which keeps its run one level deeper."""
    home = tmp_path / "mended"
    (home / "search").mkdir(parents=True)
    (given / "factors.json").rename(home / "search" / "factors.json")
    assert run(["export", "--model", str(tiny_path), "--factors", str(home), "--out", str(tmp_path / "out")]) == 0
    assert factors_of(load_pretrained(tmp_path / "out", device="cpu")[0]).values == VALUES


def test_mistakes_are_one_line(
    given: Path, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["--model", tiny_path, "--factors", given, "--out", tmp_path / "out"]
    assert "did you mean 'checkpoint'" in mistake(capsys, *usual, "--to", "chekpoint")
    assert "--out is missing" in mistake(capsys, *usual[:4])
    assert "Did you mean --factors?" in mistake(capsys, *usual[:2], "--facters", given, *usual[4:])
    assert "no such file" in mistake(capsys, *usual[:2], "--factors", tmp_path / "no.json", *usual[4:])
    assert "holds no factors.json" in mistake(capsys, *usual[:2], "--factors", tmp_path, *usual[4:])
    assert "no factors: give --factors FILE" in mistake(capsys, *usual[:2], *usual[4:])
    assert "no such folder" in mistake(capsys, "--model", tmp_path / "no", *usual[2:])
    assert "expected a folder" in mistake(capsys, *usual[:5], tmp_path / "x.json", "--to", "factors")
    assert "is the model itself" not in mistake(capsys, *usual[:5], tiny_path)
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken_is_said_before_a_model_is_loaded(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model named is not there at all."""
    missing = ["--model", tmp_path / "no", "--factors", given]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    assert "is no export of ropewalk" in mistake(capsys, *missing, "--out", tmp_path / "mine")
    assert "is a file" in mistake(capsys, *missing, "--out", tmp_path / "mine" / "notes")


def test_factors_of_a_checkpoint_that_carries_some(
    given: Path, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may be left out; other ones go before them; with another origin written beside them, that is kept."""
    carried = tmp_path / "carried"
    found = {"seed": 7}
    ScalingFactors(VALUES, found=found).save(given / "factors.json")
    assert run(["export", "--model", str(tiny_path), "--factors", str(given), "--out", str(carried)]) == 0
    assert run(["export", "--model", str(carried), "--to", "factors", "--out", str(tmp_path / "one")]) == 0
    assert ScalingFactors.load(tmp_path / "one" / "factors.json").found == found
    (carried / "factors.json").unlink()
    assert run(["export", "--model", str(carried), "--to", "factors", "--out", str(tmp_path / "two")]) == 0
    assert ScalingFactors.load(tmp_path / "two" / "factors.json").values == VALUES
    ScalingFactors.uniform(1.2, 4).save(given / "factors.json")
    other = ["export", "--model", str(carried), "--factors", str(given), "--out", str(tmp_path / "three")]
    assert run(other) == 0
    assert factors_of(load_pretrained(tmp_path / "three", device="cpu")[0]).values == (1.2,) * 4
    assert run([*other[:-1], str(tmp_path / "four"), "--dry-run", "--json", "-"]) == 0
    capsys.readouterr()


def test_json_alone_on_standard_output(
    given: Path, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--model", str(tiny_path), "--factors", str(given), "--out", str(tmp_path / "out"), "--dry-run"]
    assert run([*words, "--json", "-", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["written"] is False
    assert json.loads(out)["weight_bytes"] == (tiny_path / "model.safetensors").stat().st_size
    assert err == ""
    assert not (tmp_path / "out").exists()


def test_factors_on_a_grid(given: Path, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--model", str(tiny_path), "--factors", str(given), "--out", str(tmp_path / "out")]
    assert run([*words, "--round", "0"]) == 2
    assert "--round is 0.0, expected a number above 0 such as 0.01" in capsys.readouterr().err
    assert run([*words, "--round", "0.4"]) == 0
    assert "Served by vLLM: 2 tables more, one a distinct factor" in " ".join(capsys.readouterr().out.split())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["rope_layer_factors"] == [0.8, 1.2, 1.2, 0.8]
    assert ScalingFactors.load(tmp_path / "out" / "factors.json").found["rounded"]["to"] == 0.4


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(given: Path, tiny_path: Path, tmp_path: Path) -> None:
    """At several instants: while it loads, while it checks, while it writes."""
    words = ["export", "--model", tiny_path, "--factors", given, "--to", "remote-code", "--out", tmp_path / "out"]
    command = [sys.executable, "-c", "from ropewalk.cli import main; main()", *map(str, words)]
    seen = set()
    for wait in ("Loading", "Checking", "Writing"):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "80"})
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(wait):
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
        seen.add(process.returncode)
        assert process.returncode in (0, 130, -signal.SIGINT), rest
        assert "Traceback" not in rest
        if process.returncode == 130:
            assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert 130 in seen
    assert run([str(word) for word in words]) == 0


@pytest.mark.slow
def test_the_demo_model_is_served_as_found(demo_path: Path, tmp_path: Path) -> None:
    """The real one with the factors of the examples: tokens of plain transformers with the file are ropewalk's."""
    root = Path(__file__).parents[2]
    factors, out = root / "examples" / "smollm2-kv10.json", tmp_path / "out"
    words = ["export", "--model", str(demo_path), "--factors", str(factors), "--to", "remote-code", "--out", str(out)]
    assert run(words) == 0
    model, tokenizer = load_pretrained(out, device="cpu", dtype="float32")
    prompt = tokenizer("The bridge over the river was built by", return_tensors="pt")
    expected = tokenizer.decode(model.generate(**prompt, max_new_tokens=16, do_sample=False)[0])
    code = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True, dtype="float32")
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
prompt = tokenizer("The bridge over the river was built by", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=16, do_sample=False)[0]))
assert "ropewalk" not in sys.modules
"""
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", code, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == expected.strip()
