"""The fingerprint: equal for one checkpoint however it is loaded, different for other weights."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import ropewalk
from ropewalk.identity import base_scheme, model_identity
from tiny import prompt, tiny_model


def fingerprint(model) -> str:
    return model_identity(model)["fingerprint"]


def test_fields() -> None:
    identity = model_identity(tiny_model("qwen2"))
    assert identity["name"] == identity["model_type"] == "qwen2"
    assert identity["num_layers"] == 4
    assert identity["fingerprint"].startswith("sha256:")
    assert json.loads(json.dumps(identity)) == identity


def test_the_name_is_the_last_part_of_the_path(tmp_path) -> None:
    tiny_model().save_pretrained(tmp_path / "my-model")
    assert model_identity(AutoModelForCausalLM.from_pretrained(tmp_path / "my-model"))["name"] == "my-model"


@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loaded", [torch.float32, torch.bfloat16])
def test_independent_of_the_dtype_it_is_loaded_in(tmp_path, saved: torch.dtype, loaded: torch.dtype) -> None:
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0 + 0.1 * torch.rand(parameter.shape))
    model = model.to(saved)
    model.save_pretrained(tmp_path)
    assert fingerprint(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=loaded)) == fingerprint(model)


def test_unmoved_by_patching() -> None:
    model = tiny_model()
    before = model_identity(model)
    ropewalk.apply(model, [1.5, 0.7, 1.0, 1.2])
    assert model_identity(model) == before
    ropewalk.remove(model)
    assert model_identity(model) == before


def test_other_weights_are_another_model() -> None:
    model = tiny_model(seed=0)
    prints = {fingerprint(model), fingerprint(tiny_model(seed=1)), fingerprint(tiny_model("qwen2"))}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(input_ids=prompt(), labels=prompt()).loss.backward()
    optimiser.step()
    assert len(prints | {fingerprint(model)}) == 4


def test_one_norm_weight_is_enough() -> None:
    model = tiny_model()
    before = fingerprint(model)
    with torch.no_grad():
        model.model.layers[3].post_attention_layernorm.weight[5] += 0.01
    assert fingerprint(model) != before


def test_base_scheme_is_the_rope_parameters_as_json() -> None:
    assert base_scheme(tiny_model()) == {"rope_type": "default", "rope_theta": 10000.0}
    nested = base_scheme(tiny_model("gemma3_text", head_dim=16))
    assert set(nested) == {"sliding_attention", "full_attention"}
    assert json.loads(json.dumps(nested)) == nested


def test_base_scheme_survives_saving(tmp_path) -> None:
    parameters = {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "original_max_position_embeddings": 64}
    model = tiny_model(rope_parameters=parameters)
    model.save_pretrained(tmp_path)
    assert base_scheme(AutoModelForCausalLM.from_pretrained(tmp_path)) == base_scheme(model)


def test_weights_that_can_not_be_had_are_left_out() -> None:
    model = tiny_model()
    whole = fingerprint(model)
    model.model.layers[0].to("meta")
    assert fingerprint(model) != whole
