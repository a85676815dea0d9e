"""Weights that are not all in one place: accelerate's device_map with a disk, and tensor parallel processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import ropewalk
from brute_force import brute_force_logits
from ropewalk.engine.scorer import Scorer
from ropewalk.factors import ScalingFactors
from ropewalk.identity import model_identity
from ropewalk.provenance import provenance
from scored_prompts import TinyTokenizer, assert_equal_scores, oracles, prompts_of_records
from tiny import logits, prompt, tiny_model

FACTORS = [1.5, 1.0, 0.7, 2.25]
ENDS = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
HALF = {f"model.layers.{index}": "cpu" if index < 2 else "disk" for index in range(4)}
MAPS: dict[str, Any] = {
    "auto": "auto",
    "half of the layers on the disk": ENDS | HALF,
    "the rotary module on the disk too": ENDS | HALF | {"model.rotary_emb": "disk", "model.norm": "disk"},
    "all but the output layer on the disk": {"model": "disk", "lm_head": "cpu"},
}


@pytest.fixture(scope="module")
def whole() -> PreTrainedModel:
    """The model in one piece: a test that patches it has to remove its factors again."""
    return tiny_model()


@pytest.fixture(scope="module")
def folder(whole: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    whole.save_pretrained(path)
    return path


def spread(folder: Path, name: str, offload: Path, buffers: bool = False) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        folder, device_map=MAPS[name], offload_folder=offload, offload_buffers=buffers
    )
    return model.eval()


@pytest.mark.parametrize("buffers", [False, True], ids=["", "buffers"])
@pytest.mark.parametrize("name", MAPS)
def test_a_device_map_changes_nothing(
    name: str, buffers: bool, whole: PreTrainedModel, folder: Path, tmp_path: Path
) -> None:
    model = spread(folder, name, tmp_path, buffers)
    assert ("disk" in str(getattr(model, "hf_device_map", ""))) == ("disk" in name)
    vanilla = logits(model)
    assert torch.equal(vanilla, logits(whole))
    assert model_identity(model)["fingerprint"] == model_identity(whole)["fingerprint"]
    ropewalk.apply(model, FACTORS)
    scaled = logits(model)
    torch.testing.assert_close(scaled, brute_force_logits(whole, FACTORS), atol=2e-5, rtol=0)
    assert not torch.allclose(scaled, vanilla, atol=0.1)
    with ropewalk.patched(whole, FACTORS):
        assert torch.equal(scaled, logits(whole))
        answers = [one.generate(prompt(), max_new_tokens=4, do_sample=False) for one in (model, whole)]
    assert torch.equal(*answers)
    ropewalk.remove(model)
    assert torch.equal(logits(model), vanilla)


@pytest.mark.parametrize("name", MAPS)
def test_scores_of_a_model_with_a_device_map(name: str, whole: PreTrainedModel, folder: Path, tmp_path: Path) -> None:
    """By `model.forward`, which fetches the weights, where the layers are not all in one place."""
    model = spread(folder, name, tmp_path)
    prompts, candidates = prompts_of_records(1), [None, ScalingFactors(FACTORS)]
    scorer = Scorer(model, TinyTokenizer(), prompts)
    found = scorer.score(candidates)
    if name == "auto":
        assert scorer.reason is None
    else:
        assert scorer.reason == "its layers are spread over several devices"
    for own, expected in zip(found, oracles(whole, prompts, candidates), strict=True):
        assert_equal_scores(own, expected, 1e-4)
    assert provenance(model)["device_type"] == "cpu"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_layers_on_two_gpus(whole: PreTrainedModel, folder: Path) -> None:
    places = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.norm": 1, "lm_head": 1}
    places |= {f"model.layers.{index}": index // 2 for index in range(4)}
    model = AutoModelForCausalLM.from_pretrained(folder, device_map=places).eval()
    ids = prompt().to("cuda:0")
    vanilla = logits(model, ids).cpu()
    torch.testing.assert_close(vanilla, logits(whole), atol=1e-4, rtol=0)
    assert model_identity(model)["fingerprint"] == model_identity(whole)["fingerprint"]
    ropewalk.apply(model, FACTORS)
    scaled = logits(model, ids).cpu()
    torch.testing.assert_close(scaled, brute_force_logits(whole, FACTORS), atol=1e-4, rtol=0)
    assert not torch.allclose(scaled, vanilla, atol=0.1)
    ropewalk.remove(model)
    assert torch.equal(logits(model, ids).cpu(), vanilla)
    prompts, candidates = prompts_of_records(1), [None, ScalingFactors(FACTORS)]
    scorer = Scorer(model, TinyTokenizer(), prompts)
    for own, expected in zip(scorer.score(candidates), oracles(whole, prompts, candidates), strict=True):
        assert_equal_scores(own, expected, 1e-3)
    assert scorer.reason == "its layers are spread over several devices"


@pytest.mark.slow
def test_two_tensor_parallel_processes(folder: Path, tmp_path: Path) -> None:
    """`tp_plan="auto"` under torchrun: the same logits, tokens, fingerprint and scores as in one process.

    On two GPUs where there are two, else on the CPU.
    """
    tolerance = 5e-5 if torch.cuda.device_count() < 2 else 1e-3
    out = tmp_path / "found.json"
    script = Path(__file__).with_name("tensor_parallel.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*command, str(folder), str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["weights"] == "DTensor"
    assert found["processes"] == 2
    assert found["kinds"] == ["rotary"] * 4
    assert found["vanilla"] < tolerance
    assert found["factors"] < tolerance
    assert found["effect"] > 1
    assert found["removed"] == 0
    assert found["same_fingerprint"]
    assert found["same_tokens"]
    assert found["reason"] is None
    assert found["scores"] < tolerance
