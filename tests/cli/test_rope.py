"""`--rope` as a user types it: every verb takes it, longer prompts pass, and results say which scheme they are of."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ropewalk import ScalingFactors, load_pretrained
from ropewalk.cli import run
from ropewalk.engine.rope_schemes import longest_input
from ropewalk.identity import base_scheme
from ropewalk.patch import factors_of
from ropewalk.report.commands import commands
from ropewalk.report.runs import read_run
from tiny import logits, prompt

KV = ["--keys", "2", "--positions", "2"]
SEARCH = [
    *KV, "--limit", "4", "--validation-limit", "2", "--test-limit", "3", "--method", "bezier-ga", "--population", "4",
    "--parents", "2", "--mutations", "1", "--crossovers", "1", "--generations", "2", "--control-budget", "0",
]  # fmt: skip
VALUES = (0.9, 1.05, 1.1, 0.95)


def ropewalk(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a mistake."""
    capsys.readouterr()
    assert ropewalk(*arguments) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("ropewalk: ")
    return line


@pytest.fixture
def factors(tmp_path: Path) -> Path:
    """Factors of any scheme."""
    ScalingFactors(VALUES).save(tmp_path / "factors.json")
    return tmp_path / "factors.json"


@pytest.fixture(scope="module")
def searched(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small search under linear:2."""
    out = tmp_path_factory.mktemp("runs") / "kv"
    assert ropewalk("search", "--model", tiny_path, "--rope", "linear:2", *SEARCH, "--out", out) == 0
    return out


# Every verb --------------------------------------------------------------------------------------------------------


def test_a_prompt_beyond_the_trained_length_passes_with_the_scheme_alone(
    tiny_path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """6 keys are some 600 tokens here, and the model is trained to 512."""
    asked = ["profile", "--model", tiny_path, "--keys", "6", "--positions", "2", "--limit", "2"]
    assert "longer than the model's 512 tokens" in mistake(capsys, *asked)
    for rope in ("linear:2", "dynamic:2", "yarn:4"):
        assert ropewalk(*asked, "--rope", rope, "--json", tmp_path / "figures.json") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert f"Base rope scheme {rope} in place of default; trained to 512 tokens, takes" in said
        assert read(tmp_path / "figures.json")["vanilla"]["records"] == 2
    assert "longer than the model's 512 tokens" in mistake(capsys, *asked, "--rope", "default")


def test_doctor_eval_and_show_take_it(tiny_path: Path, factors: Path, tmp_path: Path) -> None:
    rope = ["--model", tiny_path, "--rope", "yarn:2", *KV]
    assert ropewalk("doctor", *rope, "--json", tmp_path / "doctor.json") == 0
    assert read(tmp_path / "doctor.json")["base"]["rope_type"] == "yarn"
    assert ropewalk("eval", *rope, "--limit", "3", "--factors", factors, "--json", tmp_path / "eval.json") == 0
    assert ropewalk("eval", *rope[:2], *KV, "--limit", "3", "--factors", factors, "--json", tmp_path / "plain") == 0
    scaled, plain = (read(tmp_path / name)["vanilla"]["nll"] for name in ("eval.json", "plain"))
    assert scaled != plain
    assert ropewalk("show", *rope) == 0


def test_the_engine_scores_as_the_model_itself_under_every_scheme(tiny_path: Path, tmp_path: Path) -> None:
    """`search --dry-run` checks the layer loop against the model and says which of them scores."""
    for rope in ("linear:2", "dynamic:2", "yarn:4"):
        assert ropewalk("doctor", "--model", tiny_path, "--rope", rope, *KV, "--json", tmp_path / "doctor.json") == 0
        assert "layer loop" in read(tmp_path / "doctor.json")["engine"]


def test_mend_takes_it(tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [*KV, "--validation-limit", "2", "--test-limit", "3", "--budget", "400", "--control-budget", "0"]
    out = tmp_path / "mended"
    assert ropewalk("mend", tiny_path, "--rope", "linear:2", *small, "--out", out, "--dry-run") == 0
    assert "Base rope scheme linear:2" in capsys.readouterr().out


def test_lm_eval_asks_for_longer_inputs_under_it(
    tiny_path: Path, factors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="needs ropewalk[lm-eval]")
    from harness_tasks import write_tasks

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (task,) = write_tasks(tmp_path, "choice")
    asked = ["lm-eval", "--model", tiny_path, "--factors", factors, "--tasks", task, "--dry-run", "--device", "cpu"]
    for rope, longest in ((["--rope", "dynamic:2"], 1024), ([], 512)):
        assert ropewalk(*asked, *rope, "--json", tmp_path / "figures.json") == 0
        assert read(tmp_path / "figures.json")["settings"]["max_length"] == longest


@pytest.mark.parametrize("verb", ["profile", "search", "eval", "mend", "doctor", "show", "export"])
def test_a_mistake_is_one_line(
    verb: str, tiny_path: Path, tmp_path: Path, factors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [tiny_path] if verb == "mend" else ["--model", tiny_path]
    task = [] if verb == "export" else KV
    more = {"eval": ["--factors", factors], "search": ["--out", tmp_path / "run"], "mend": ["--out", tmp_path / "run"]}
    export = ["--factors", factors, "--out", tmp_path / "out"]
    given = [verb, *model, *task, *(export if verb == "export" else more.get(verb, []))]
    assert "did you mean linear?" in mistake(capsys, *given, "--rope", "linaer:2")


# What results say --------------------------------------------------------------------------------------------------


def test_a_search_records_its_scheme_and_is_not_continued_under_another(
    searched: Path, tiny_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(searched / "result.json")["provenance"]["base"]["rope_type"] == "linear"
    assert ScalingFactors.load(searched / "factors.json").base["factor"] == 2.0
    same = ["search", "--model", tiny_path, *SEARCH, "--out", searched]
    assert ropewalk(*same, "--rope", "linear:2") == 0
    for other in ([], ["--rope", "linear:4"], ["--rope", "yarn:2"]):
        capsys.readouterr()
        assert ropewalk(*same, *other) == 2
        error = capsys.readouterr().err
        assert "other settings" in error or "Give the same settings" in error
        assert "base" in error


def test_factors_of_one_scheme_are_refused_under_another(
    searched: Path, tiny_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["eval", "--model", tiny_path, *KV, "--limit", "2", "--factors", searched / "factors.json"]
    assert ropewalk(*asked, "--rope", "linear:2") == 0
    assert "load the model with --rope linear:2" in mistake(capsys, *asked)
    assert "load the model with --rope linear:2" in mistake(capsys, *asked, "--rope", "dynamic:2")
    assert ropewalk(*asked, "--any-model") == 0


def test_the_commands_of_a_report_name_the_scheme(searched: Path, tiny_path: Path, tmp_path: Path) -> None:
    """The search found nothing, so the factors are given to it here, and the command as a shell would have had it."""
    out = Path(shutil.copytree(searched, tmp_path / "kv"))
    result = read(out / "result.json")
    words = ["ropewalk", "search", "--model", tiny_path.as_posix(), "--rope", "linear:2", *SEARCH]
    result["provenance"]["command"] = shlex.join(words)
    (out / "result.json").write_text(json.dumps(result))
    run_with = replace(read_run(out, "kv"), factors=ScalingFactors(VALUES))
    found = {command.title: command.text for command in commands(run_with)}
    assert "--rope linear:2" in found["Test the factors again"]
    assert "--rope linear:2" in found["Write a checkpoint that carries the factors"]
    assert "rope='linear:2')" in found["Use the factors"]


# Exports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rope", ["linear:2", "dynamic:2", "yarn:2"])
def test_an_export_carries_the_scheme(rope: str, tiny_path: Path, factors: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["export", "--model", tiny_path, "--factors", factors, "--rope", rope, "--out", out]
    assert ropewalk(*asked) == 0
    assert ropewalk(*asked) == 0  # the same one is left as it is
    model, _ = load_pretrained(tiny_path, device="cpu", dtype="float32", rope=rope)
    exported, _ = load_pretrained(out, device="cpu", dtype="float32")
    assert base_scheme(exported) == base_scheme(model) == ScalingFactors.load(out / "factors.json").base
    assert longest_input(exported) == 1024
    assert factors_of(exported).values == VALUES
    plain = AutoModelForCausalLM.from_pretrained(out, dtype="float32").eval()
    assert torch.equal(logits(plain, prompt(1, 600)), logits(model, prompt(1, 600)))


def test_an_old_config_loses_its_former_scheme(
    tiny_path: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers would read rope_scaling before rope_parameters."""
    old = Path(shutil.copytree(tiny_path, tmp_path / "old"))
    config = read(old / "config.json")
    del config["rope_parameters"]
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    (old / "config.json").write_text(json.dumps(config | {"rope_theta": 5e4, "rope_scaling": scaling}))
    asked = ["export", "--model", old, "--factors", factors, "--out", tmp_path / "out", "--rope", "linear:3"]
    assert ropewalk(*asked) == 0
    assert "linear:3 in place of yarn (factor 4); trained to 256 tokens, takes 768" in " ".join(
        capsys.readouterr().out.split()
    )
    exported, _ = load_pretrained(tmp_path / "out", device="cpu", dtype="float32")
    assert base_scheme(exported) == {"rope_type": "linear", "factor": 3.0, "rope_theta": 5e4}


def test_code_for_plain_transformers_runs_under_the_scheme(tiny_path: Path, factors: Path, tmp_path: Path) -> None:
    """The export itself runs its modelling file on the model and compares the logits."""
    asked = ["export", "--model", tiny_path, "--factors", factors, "--to", "remote-code", "--out", tmp_path / "out"]
    assert ropewalk(*asked, "--rope", "yarn:2") == 0
    assert base_scheme(load_pretrained(tmp_path / "out", device="cpu")[0])["rope_type"] == "yarn"


def test_factors_alone_name_the_scheme(tiny_path: Path, factors: Path, tmp_path: Path) -> None:
    asked = ["export", "--model", tiny_path, "--factors", factors, "--to", "factors", "--out", tmp_path / "out"]
    assert ropewalk(*asked, "--rope", "linear:2") == 0
    assert ScalingFactors.load(tmp_path / "out" / "factors.json").base["rope_type"] == "linear"
