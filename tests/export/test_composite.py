"""Checkpoints whose config.json is of several models: the factors reach the text model, or the form is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import export, load, logits, read, with_tokenizer, without_ropewalk
from transformers import AutoConfig, AutoModelForCausalLM

from ropewalk import ScalingFactors, UnsupportedModelError, load_pretrained
from ropewalk.identity import base_scheme
from ropewalk.patch import factors_of, patched, rotary_layers
from tiny import SHAPE

TEXT = SHAPE | {"vocab_size": 300, "head_dim": 16}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def built(model_type: str, folder: Path, tiny_path: Path, **config: Any) -> Any:
    """A small composite model's folder, loaded as ropewalk does."""
    composite = AutoConfig.for_model(model_type, **config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(composite).eval()
    with_tokenizer(model, folder, tiny_path)
    written = composite.to_dict() | {"architectures": ["TheWholeOne"]}
    (folder / "config.json").write_text(json.dumps(written, default=str))
    return load(folder)[0]


def test_a_text_model_out_of_a_composite_checkpoint(tiny_path: Path, tmp_path: Path) -> None:
    """transformers gives it the inner config: there the factors have to be, too, or they are lost without a word."""
    model = built("qwen3_5", tmp_path / "source", tiny_path, text_config=TEXT | DELTA)
    factors = ScalingFactors([None, 1.3, None, 1.2])
    export("checkpoint", model, factors, tmp_path / "out")
    again = load(tmp_path / "out")[0]
    assert factors_of(again).values == factors.values
    with patched(model, factors):
        assert torch.equal(logits(again), logits(model))
    config = read(tmp_path / "out" / "config.json")
    assert config["rope_layer_factors"] == config["text_config"]["rope_layer_factors"] == list(factors.values)
    assert config["architectures"] == ["TheWholeOne"]
    with pytest.raises(UnsupportedModelError, match="is the text model of a qwen3_5 checkpoint"):
        export("remote-code", model, factors, tmp_path / "remote")


def test_a_model_that_sees(tiny_path: Path, tmp_path: Path) -> None:
    """The decoder lies one level deeper, and other auto classes give the same class."""
    vision = VISION | {"image_size": 28, "patch_size": 14}
    tokens = {"mm_tokens_per_image": 4, "image_token_index": 299, "boi_token_index": 298, "eoi_token_index": 297}
    source, out = tmp_path / "source", tmp_path / "out"
    model = built("gemma3", source, tiny_path, text_config=TEXT | SLIDING, vision_config=vision, **tokens)
    factors = ScalingFactors([1.3, 0.9, 1.0, 1.2])
    export("remote-code", model, factors, out)
    code = """
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
    model = auto.from_pretrained(sys.argv[1], trust_remote_code=True, dtype="float32")
    with torch.no_grad():
        torch.save(model(torch.arange(4, 40)[None]).logits, sys.argv[2] + auto.__name__)
"""
    without_ropewalk(code, out, tmp_path / "found", cache=tmp_path / "modules")
    with patched(model, factors):
        expected = logits(model)
    for name in ("AutoModelForCausalLM", "AutoModelForImageTextToText"):
        assert torch.equal(torch.load(f"{tmp_path / 'found'}{name}"), expected)
    assert read(out / "config.json")["architectures"] == ["TheWholeOne"]


@pytest.mark.parametrize("rope", ["linear:2", "yarn:2", "dynamic:2"])
def test_another_base_scheme_is_written_where_the_text_model_reads_it(
    rope: str, tiny_path: Path, tmp_path: Path
) -> None:
    """Gemma 3's too, which has a scheme for each type of layer."""
    vision = VISION | {"image_size": 28, "patch_size": 14}
    composites = {"qwen3_5": {"text_config": TEXT | DELTA}, "gemma3": {"text_config": TEXT | SLIDING}}
    composites["gemma3"]["vision_config"] = vision
    for kind, config in composites.items():
        built(kind, tmp_path / kind, tiny_path, **config)
        model = load_pretrained(tmp_path / kind, device="cpu", dtype="float32", rope=rope)[0]
        factors = ScalingFactors([1.2 if layer in rotary_layers(model) else None for layer in range(4)])
        export("checkpoint", model, factors, tmp_path / f"{kind}-out")
        again = load(tmp_path / f"{kind}-out")[0]
        assert base_scheme(again) == base_scheme(model)
        with patched(model, factors):
            assert torch.equal(logits(again), logits(model))
