"""Quantised base models: factors do what they do by brute force, and what can't be loaded here is named in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, QuantoConfig, TorchAoConfig

import ropewalk
from brute_force import brute_force_logits, by_brute_force
from quantised_checkpoints import KINDS, edit_config, write_quantised
from ropewalk.checkpoint import load_pretrained
from ropewalk.engine.scorer import Scorer
from ropewalk.errors import DataError, PrerequisiteError, UnsupportedModelError
from ropewalk.export.checkpoint import write_checkpoint
from ropewalk.factors import ScalingFactors
from ropewalk.identity import model_identity
from ropewalk.patch import factors_of, layer_reports
from ropewalk.prompts import RenderedPrompt
from scored_prompts import TinyTokenizer, prompts_of_records
from tiny import logits, prompt, tiny_model

FACTORS = [1.5, 1.0, 0.7, 2.25]
BITS8 = {"load_in_8bit": True}
BITS4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def torchao(name: str, **more: Any) -> TorchAoConfig:
    quantization = pytest.importorskip("torchao.quantization", exc_type=ImportError)
    return TorchAoConfig(getattr(quantization, name)(**more))


def quanto() -> QuantoConfig:
    pytest.importorskip("optimum.quanto", exc_type=ImportError)
    return QuantoConfig(weights="int8")


# By quantiser: its config, and what its Linear is. Those of torchao and quanto are no part of the development
# environment: torchao prints and takes its time with every import of transformers, quanto is no longer kept up.
QUANTISERS: dict[str, tuple[Callable[[], Any], str]] = {
    "bitsandbytes, 8 bit": (lambda: BitsAndBytesConfig(**BITS8), "Linear8bitLt"),
    "bitsandbytes, 4 bit": (lambda: BitsAndBytesConfig(**BITS4), "Linear4bit"),
    "torchao, int8": (lambda: torchao("Int8WeightOnlyConfig"), "Linear"),
    "torchao, int8 activations": (lambda: torchao("Int8DynamicActivationInt8WeightConfig"), "Linear"),
    "quanto, int8": (quanto, "QLinear"),
}


@pytest.fixture(scope="module")
def base() -> Any:
    """In bfloat16; bitsandbytes' 4-bit product wants sizes that are multiples of 64."""
    return tiny_model(intermediate_size=128).to(torch.bfloat16)


@pytest.fixture(scope="module")
def base_folder(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    base.save_pretrained(folder)
    return folder


@pytest.fixture(params=QUANTISERS)
def quantised(request: pytest.FixtureRequest, base_folder: Path) -> Any:
    make, linear = QUANTISERS[request.param]
    model = AutoModelForCausalLM.from_pretrained(base_folder, quantization_config=make(), dtype=torch.bfloat16).eval()
    assert type(model.model.layers[0].self_attn.q_proj).__name__ == linear
    assert type(model.model.layers[0].self_attn.q_proj.weight) is not torch.nn.Parameter or linear == "QLinear"
    return model


def test_factors_do_what_they_do_by_brute_force(quantised: Any, base: Any) -> None:
    vanilla, expected = logits(quantised), brute_force_logits(quantised, FACTORS)
    assert not torch.equal(vanilla, logits(base)), "it is quantised"
    assert [report.kind for report in layer_reports(quantised)] == ["rotary"] * 4
    assert model_identity(quantised)["fingerprint"] == model_identity(base)["fingerprint"]
    ropewalk.apply(quantised, [1.0] * 4)
    assert torch.equal(logits(quantised), vanilla)
    ropewalk.apply(quantised, FACTORS)
    torch.testing.assert_close(logits(quantised), expected, atol=0.1, rtol=0)
    assert float((expected - vanilla).abs().max()) > 1
    ropewalk.remove(quantised)
    assert torch.equal(logits(quantised), vanilla)


def log_likelihoods(model: Any, prompts: Sequence[RenderedPrompt], factors: Sequence[float] | None) -> list[float]:
    """Mean log-likelihoods of the answers, from the model's own logits, with factors by brute force."""
    found = []
    for one in prompts:
        ids = torch.tensor([one.ids])
        whole = (logits(model, ids) if factors is None else brute_force_logits(model, factors, ids))[0].float()
        steps = whole[one.first - 1 : -1].log_softmax(-1)
        found.append(float(steps.gather(-1, ids[0, one.first :, None]).mean()))
    return found


def test_the_engine_scores_it_by_its_own_loop(quantised: Any) -> None:
    prompts = prompts_of_records(1)
    scorer = Scorer(quantised, TinyTokenizer(), prompts)
    found = scorer.score([None, ScalingFactors(FACTORS)])
    assert scorer.reason is None
    for scores, factors in zip(found, (None, FACTORS), strict=True):
        own = [score.log_likelihood for score in scores]
        # Activations that are rounded to 8 bits carry other batch shapes further than bfloat16 alone does.
        assert own == pytest.approx(log_likelihoods(quantised, prompts, factors), abs=0.15)
    assert max(abs(a.log_likelihood - b.log_likelihood) for a, b in zip(*found, strict=True)) > 0.5


@pytest.mark.parametrize("quantised", [name for name in QUANTISERS if "activations" not in name], indirect=True)
def test_gradients_of_an_adapter_on_a_quantised_base(quantised: Any) -> None:
    """QLoRA: the base stays as it is, the adapter learns, with the factors in place."""
    model = get_peft_model(quantised, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))

    def gradients() -> torch.Tensor:
        model.zero_grad()
        model.train()
        model(input_ids=prompt(), labels=prompt()).loss.backward()
        return torch.cat([weight.grad.flatten().float() for weight in model.parameters() if weight.requires_grad])

    with by_brute_force(model, FACTORS):
        expected = gradients()
    vanilla = gradients()
    ropewalk.apply(model, FACTORS)
    found = gradients()
    assert (expected - vanilla).abs().max() > 0.2 * expected.abs().max()
    torch.testing.assert_close(found, expected, atol=0.02 * float(expected.abs().max()), rtol=0)


# Checkpoints --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide_path(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of a model that is drawn wide, in float32, of sizes that every quantiser takes."""
    folder = tmp_path_factory.mktemp("wide")
    tokenizer = AutoTokenizer.from_pretrained(tiny_path)
    tokenizer.save_pretrained(folder)
    tiny_model(vocab_size=len(tokenizer), intermediate_size=128).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_checkpoint_is_the_plain_one_of_the_same_weights(
    kind: str, dtype: str, wide_path: Path, tmp_path: Path
) -> None:
    """fp8 needs a GPU to be multiplied: transformers unpacks it on a CPU."""
    weights = write_quantised(kind, wide_path, tmp_path / "small")
    edit_config(tmp_path / "small", rope_layer_factors=FACTORS)
    model, _ = load_pretrained(tmp_path / "small", dtype=dtype)
    plain, _ = load_pretrained(wide_path, dtype=dtype)
    plain.load_state_dict(plain.state_dict() | weights)
    assert factors_of(model).values == tuple(FACTORS)
    expected, vanilla = brute_force_logits(plain, FACTORS), logits(plain)
    atol = 5e-5 if dtype == "float32" else 0.5
    torch.testing.assert_close(logits(model).to(plain.dtype), expected, atol=atol, rtol=0)
    assert float((expected - vanilla).abs().max()) > 3


@pytest.fixture(scope="module", params=["bitsandbytes 8bit", "bitsandbytes 4bit", *KINDS])
def checkpoint(request: pytest.FixtureRequest, wide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that somebody else has quantised."""
    folder = tmp_path_factory.mktemp("quantised") / "model"
    if request.param in KINDS:
        write_quantised(request.param, wide_path, folder)
        return folder
    made = BitsAndBytesConfig(**BITS8) if "8" in request.param else BitsAndBytesConfig(**BITS4)
    model = AutoModelForCausalLM.from_pretrained(wide_path, quantization_config=made, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(wide_path).save_pretrained(folder)
    return folder


def test_export_keeps_a_checkpoint_quantised(checkpoint: Path, tmp_path: Path) -> None:
    """The weights are those of the source, also where they were unpacked to be used."""
    model, _ = load_pretrained(checkpoint)
    expected = brute_force_logits(model, FACTORS)
    write_checkpoint(model, ScalingFactors(FACTORS), tmp_path / "out")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (checkpoint / name).read_bytes()
    again, _ = load_pretrained(tmp_path / "out")
    assert factors_of(again).values == tuple(FACTORS)
    torch.testing.assert_close(logits(again), expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_a_dtype_may_be_asked_for(checkpoint: Path, dtype: str) -> None:
    """What is quantised stays as it was saved; what was unpacked gets it."""
    model, _ = load_pretrained(checkpoint, dtype=dtype)
    vanilla = logits(model)
    ropewalk.apply(model, FACTORS)
    assert float((logits(model) - vanilla).abs().max()) > 3
    if all(weight.dtype.is_floating_point and weight.dtype.itemsize > 1 for weight in model.parameters()):
        assert len({weight.dtype for weight in model.parameters()}) == 1
        assert dtype in (str(model.dtype).removeprefix("torch."), "auto")


# Refused by name ----------------------------------------------------------------------------------------------------

# By quantiser: the rest of its config, what the line says, and the package with which it might load after all.
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "awq": ({"bits": 4, "group_size": 32, "zero_point": True}, "gptqmodel", "gptqmodel"),
    "gptq": ({"bits": 4, "group_size": 32}, "optimum|gptqmodel|GPU", "gptqmodel"),
    "aqlm": ({}, "aqlm", "aqlm"),
    "auto-round": ({"bits": 4}, "auto-round", "auto_round"),
    "eetq": ({"weights": "int8"}, "kernels|GPU", "kernels"),
    "fbgemm_fp8": ({}, "GPU", ""),
    "higgs": ({}, "GPU", ""),
    "hqq": ({"quant_config": {}, "skip_modules": ["lm_head"]}, "HQQ", "hqq"),
    "nvfp4": ({}, "not supported yet", ""),
    "quark": ({}, "[Qq]uark", "quark"),
    "spqr": ({}, "GPU", ""),
    "torchao": ({"quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}}}, "torchao", ""),
    "vptq": ({}, "VPTQ", "vptq"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="what is refused for the want of a GPU")
@pytest.mark.parametrize("method", REFUSED)
def test_what_can_not_be_loaded_here_is_named(method: str, tiny_path: Path, tmp_path: Path) -> None:
    entries, reason, package = REFUSED[method]
    if package and find_spec(package):
        pytest.skip(f"{package} is installed")
    folder = Path(shutil.copytree(tiny_path, tmp_path / "model"))
    edit_config(folder, quantization_config=entries | {"quant_method": method})
    with pytest.raises(PrerequisiteError, match=reason) as caught:
        load_pretrained(folder)
    assert str(caught.value).startswith(
        f"{folder}: its weights are quantised ({method}), and that can't be loaded here"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", [{"quant_method": "modelopt", "quant_algo": "FP8"}, {"bits": 4}])
def test_an_unknown_quantiser_is_refused(entry: dict[str, Any], tiny_path: Path, tmp_path: Path) -> None:
    """transformers would load its numbers as they are, with a warning."""
    folder = Path(shutil.copytree(tiny_path, tmp_path / "model"))
    edit_config(folder, quantization_config=entry)
    method = entry.get("quant_method", "no quant_method")
    with pytest.raises(UnsupportedModelError, match=f"quantised by {method}, which this transformers does not read"):
        load_pretrained(folder)


def test_a_config_that_is_not_the_weights(tiny_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_path, tmp_path / "model"))
    edit_config(folder, quantization_config=KINDS["compressed-tensors, float8"][1])
    with pytest.raises(DataError, match=r"28 weights \(.*weight_scale.* missing in its safetensors"):
        load_pretrained(folder)
