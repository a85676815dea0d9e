"""The modelling file of an export: what it refuses, what can't have one, and what is in it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import export, load, logits, read, with_tokenizer, without_ropewalk
from families import BY_NAME

from ropewalk import ScalingFactors, UnsupportedModelError, load_pretrained
from ropewalk.export import export_target
from ropewalk.export.base import Subject
from ropewalk.export.parts import proof
from ropewalk.export.parts.modeling import modeling_code
from ropewalk.patch import factors_of, rotary_layers
from tiny import tiny_model

# What it refuses ---------------------------------------------------------------------------------------------------


SPOILT = [
    ("llama", [1.0, 1.1], "2 entries, expected a list of 4"),
    ("llama", None, "None, expected a list of 4"),
    ("llama", "all", "'all', expected a list of 4"),
    ("llama", [1.0, float("nan"), 1.0, 1.0], "layer 1 is nan, expected a finite number > 0"),
    ("llama", [1.0, 1.0, None, 1.0], "layer 2 is None, expected a finite number > 0"),
    ("llama", [1.0, 1.0, 1.0, -1], "layer 3 is -1, expected a finite number > 0"),
    ("llama", [True, 1.0, 1.0, 1.0], "layer 0 is True, expected a finite number > 0"),
    ("smollm3", [1.0, 1.0, 1.0, 1.0], "layer 3 is 1.0, but has no rotary position: give null"),
]


def test_spoilt_factors_are_refused_when_it_is_loaded(folders: dict[str, Path], tmp_path: Path) -> None:
    for number, (name, values, _) in enumerate(SPOILT):
        spoilt = tmp_path / str(number)
        spoilt.mkdir()
        for path in folders[name].iterdir():
            (spoilt / path.name).symlink_to(path)
        config = read(folders[name] / "config.json") | {"rope_layer_factors": values}
        (spoilt / "config.json").unlink()
        (spoilt / "config.json").write_text(json.dumps(config))
    code = """
from transformers import AutoModel, AutoModelForCausalLM
for folder in sys.argv[1:]:
    for auto in (AutoModel, AutoModelForCausalLM):
        try:
            auto.from_pretrained(folder, trust_remote_code=True)
        except ValueError as error:
            print(error)
        else:
            print("was loaded")
"""
    done = without_ropewalk(
        code, *(tmp_path / str(number) for number in range(len(SPOILT))), cache=tmp_path / "modules"
    )
    expected = [says for _, _, says in SPOILT for _ in range(2)]
    assert len(done.stdout.splitlines()) == len(expected)
    for line, says in zip(done.stdout.splitlines(), expected, strict=True):
        assert line.startswith("rope_layer_factors in config.json: ")
        assert says in line


@pytest.mark.parametrize(
    ("model_type", "config", "says"),
    [
        (
            "recurrent_gemma",
            {"block_types": ["recurrent", "attention"], "lru_width": 64},
            "rotary modules of their own",
        ),
        ("llama4_text", {"num_local_experts": 2, "intermediate_size_mlp": 96}, "AutoModel gives Llama4TextModel for a"),
    ],
)
def test_what_a_file_can_not_carry_is_refused_by_name(
    model_type: str, config: dict[str, Any], says: str, tiny_path: Path, tmp_path: Path
) -> None:
    built = tiny_model(model_type, **({"vocab_size": 300, "head_dim": 16} | config))
    model = load(with_tokenizer(built, tmp_path / "source", tiny_path))[0]
    rotary = rotary_layers(model)
    factors = ScalingFactors.uniform(1.1, model.config.num_hidden_layers, rotary_layers=rotary)
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        export("remote-code", model, factors, tmp_path / "out")
    assert "use --to checkpoint" in str(caught.value)
    assert not (tmp_path / "out").exists()
    export("checkpoint", model, factors, tmp_path / "out")
    assert factors_of(load(tmp_path / "out")[0]).values == factors.values


def test_a_file_that_does_nothing_is_not_written(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof sees it: once without any effect, once with another layer's factor."""
    model = load(tiny_path)[0]
    before = logits(model)
    code = modeling_code(model)
    for spoilt in (
        code.replace("return PerLayer([tables if row < 0", "return PerLayer([tables if True"),
        code.replace("return value[self.layer]", "return value[self.layer - 1]"),
        code.replace("divided.flatten(-3, -2).float()", "divided.flatten(-3, -2).bfloat16()"),
    ):
        assert spoilt != code
        with pytest.raises(UnsupportedModelError, match="gives other logits than ropewalk"):
            proof.prove(spoilt, model, ScalingFactors([0.9, 1.0, 1.1, 1.05]))
        assert torch.equal(logits(model), before)
        assert "rope_layer_factors" not in vars(model.config)
    monkeypatch.setattr("ropewalk.export.remote_code.modeling_code", lambda _: spoilt)
    with pytest.raises(UnsupportedModelError):
        export_target("remote-code").plan(Subject(model, ScalingFactors([0.9, 1.0, 1.1, 1.05])), tmp_path / "out")


# The file ----------------------------------------------------------------------------------------------------------


def test_the_file_is_small_and_imports_nothing_else(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        text = (folder / "modeling_ropewalk.py").read_text()
        assert len(text.splitlines()) < 200
        tree = ast.parse(text)
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported == {"inspect", "math", "torch", "transformers", "accelerate.utils"}
    check = [sys.executable, "-m", "ruff", "check", "--select", "E,F,I,B", "--ignore", "B905", "--line-length", "120"]
    done = subprocess.run([*check, str(folders["llama"] / "modeling_ropewalk.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_source_that_brings_code_for_a_known_model_gives_way(tiny_path: Path, tmp_path: Path) -> None:
    """As Phi-3 does: transformers has the class itself, and the file is met under the name that led to the old code."""
    source = with_tokenizer(tiny_model("llama", vocab_size=300), tmp_path / "source", tiny_path)
    brought = {"AutoConfig": "configuration_own.C", "AutoModelForCausalLM": "modeling_own.M", "AutoTokenizer": "t.T"}
    config = read(source / "config.json") | {"auto_map": brought}
    (source / "config.json").write_text(json.dumps(config))
    model = load_pretrained(source, device="cpu", dtype="float32")[0]
    export("remote-code", model, BY_NAME["llama"].factors, tmp_path / "out")
    assert read(tmp_path / "out" / "config.json")["auto_map"] == {
        "AutoTokenizer": "t.T",
        "AutoModel": "modeling_ropewalk.LlamaModel",
        "AutoModelForCausalLM": "modeling_ropewalk.LlamaForCausalLM",
    }
    export("checkpoint", model, BY_NAME["llama"].factors, tmp_path / "plain")
    assert read(tmp_path / "plain" / "config.json")["auto_map"] == brought


def test_code_of_a_checkpoint_that_transformers_has_no_class_for_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    model = load(tiny_path)[0]
    model.__class__ = type("OwnForCausalLM", (type(model),), {"__module__": "transformers_modules.own.modeling_own"})
    with pytest.raises(UnsupportedModelError, match="OwnForCausalLM is no class of transformers itself"):
        export("remote-code", model, BY_NAME["llama"].factors, tmp_path / "out")
