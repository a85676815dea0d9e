"""Adapters of peft on models with factors, in every order, and adapter folders as models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import ropewalk
from brute_force import brute_force_logits, by_brute_force
from ropewalk.adapters import has_adapter
from ropewalk.checkpoint import load_pretrained, load_tokenizer
from ropewalk.engine.scorer import Scorer
from ropewalk.errors import DataError, PrerequisiteError, RopewalkError, UnsupportedModelError
from ropewalk.export import export_target
from ropewalk.export.base import Subject
from ropewalk.export.checkpoint import write_checkpoint
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.layers import decoder_layers
from ropewalk.patch import factors_of
from scored_prompts import TinyTokenizer, assert_equal_scores, oracles, prompts_of_records
from tiny import logits, prompt, tiny_model

FACTORS = [1.5, 1.0, 0.7, 2.25]
CLOSE = {"atol": 3e-5, "rtol": 0}


def lora(**more: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"} | more)


def adapted(model: Any, config: Any = None) -> Any:
    """The model with an adapter whose weights are those of a seed and not without effect, in evaluation mode."""
    torch.manual_seed(6)
    found = get_peft_model(model, config or lora())
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in found.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return found.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter's folder."""
    folder = tmp_path_factory.mktemp("adapter")
    adapted(tiny_model()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vanilla() -> torch.Tensor:
    return logits(adapted(tiny_model()))


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    """Logits of the adapted model with factors, by brute force."""
    return brute_force_logits(adapted(tiny_model()), FACTORS)


# Every order --------------------------------------------------------------------------------------------------------


def factors_first(_: Path) -> Any:
    model = tiny_model()
    ropewalk.apply(model, FACTORS)
    return adapted(model)


def adapter_first(_: Path) -> Any:
    model = adapted(tiny_model())
    ropewalk.apply(model, FACTORS)
    return model


def on_the_model_inside(_: Path) -> Any:
    model = adapted(tiny_model())
    ropewalk.apply(model.get_base_model(), FACTORS)
    return model


def from_disk_on_a_patched_model(saved: Path) -> Any:
    model = tiny_model()
    ropewalk.apply(model, FACTORS)
    return PeftModel.from_pretrained(model, saved).eval()


def from_disk_by_transformers(saved: Path) -> Any:
    model = tiny_model()
    ropewalk.apply(model, FACTORS)
    model.load_adapter(str(saved))
    return model


def merged(saved: Path) -> Any:
    return factors_first(saved).merge_and_unload().eval()


ORDERS = [factors_first, adapter_first, on_the_model_inside, from_disk_on_a_patched_model, from_disk_by_transformers]


@pytest.mark.parametrize("make", [*ORDERS, merged])
def test_every_order_gives_the_same_model(
    make: Callable[[Path], Any], saved: Path, vanilla: torch.Tensor, expected: torch.Tensor
) -> None:
    model = make(saved)
    assert has_adapter(model) == (make is not merged)
    assert factors_of(model).values == tuple(FACTORS)
    assert model.config.rope_layer_factors == FACTORS
    torch.testing.assert_close(logits(model), expected, **CLOSE)
    assert not torch.allclose(expected, vanilla, atol=0.5)
    with ropewalk.patched(model, [1.1] * 4):
        assert not torch.allclose(logits(model), expected, atol=0.5)
    torch.testing.assert_close(logits(model), expected, **CLOSE)
    ropewalk.remove(model)
    torch.testing.assert_close(logits(model), vanilla, **CLOSE)
    assert not hasattr(model.config, "rope_layer_factors")


def test_without_the_adapter_the_factors_stay() -> None:
    model, plain = factors_first(Path()), tiny_model()
    ropewalk.apply(plain, FACTORS)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(plain))
    assert torch.equal(logits(model.unload()), logits(plain))


def test_an_adapter_is_no_other_model() -> None:
    """The fingerprint is that of norms and embeddings: factors found with an adapter are known to fit its base."""
    model, plain = adapted(tiny_model()), tiny_model()
    assert model_identity(model) == model_identity(plain)
    made = ScalingFactors(FACTORS, model=model_identity(model), base=base_scheme(model))
    ropewalk.apply(model, made)
    ropewalk.apply(plain, made)
    other = get_peft_model(tiny_model(seed=1), lora())
    with pytest.raises(RopewalkError, match="another fingerprint"):
        ropewalk.apply(other, made)


def test_an_adapter_that_trained_the_embedding_is_another_model() -> None:
    model = adapted(tiny_model(), lora(modules_to_save=["embed_tokens"]))
    assert model_identity(model)["fingerprint"] != model_identity(tiny_model())["fingerprint"]


def test_layers_that_peft_copies_are_taken_in_by_the_next_apply() -> None:
    """`layer_replication` makes a deeper model; the copies keep their original's factor until factors for all come."""
    config = lora(layer_replication=[[0, 3], [1, 4]])
    model = tiny_model()
    ropewalk.apply(model, FACTORS)
    deeper = adapted(model, config)
    assert len(decoder_layers(deeper)) == 6
    reference = adapted(tiny_model(), config)
    copied = [FACTORS[index] for index in (0, 1, 2, 1, 2, 3)]
    torch.testing.assert_close(logits(deeper), brute_force_logits(reference, copied), **CLOSE)
    own = [1.2, 1.5, 0.8, 1.0, 2.0, 0.9]
    ropewalk.apply(deeper, own)
    torch.testing.assert_close(logits(deeper), brute_force_logits(reference, own), **CLOSE)
    ropewalk.remove(deeper)
    assert torch.equal(logits(deeper), logits(reference))


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, target_modules="all-linear", use_dora=True, task_type="CAUSAL_LM"),
        IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[], task_type="CAUSAL_LM"),
        PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
        PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    ],
    ids=lambda config: str(config.peft_type.value),
)
def test_other_kinds_of_adapters(config: Any) -> None:
    model = adapted(tiny_model(), config)
    plain = run(model)
    with by_brute_force(model, FACTORS):
        expected = run(model)
    ropewalk.apply(model, FACTORS)
    torch.testing.assert_close(run(model), expected, **CLOSE)
    assert not torch.allclose(expected, plain, atol=0.1)
    ropewalk.remove(model)
    assert torch.equal(run(model), plain)


def run(model: Any) -> torch.Tensor:
    """Logits with the default cache: learned prefixes come as one."""
    with torch.no_grad():
        return model(input_ids=prompt()).logits


# Training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_a_training_step(checkpointing: bool) -> None:
    def gradients(model: Any) -> dict[str, torch.Tensor]:
        model.train()
        model(input_ids=prompt(), labels=prompt()).loss.backward()
        return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}

    model, plain = factors_first(Path()), adapted(tiny_model())
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    found = gradients(model)
    with by_brute_force(plain, FACTORS):
        expected = gradients(plain)
    assert found.keys() == expected.keys()
    assert all("lora_" in name for name in found)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)


def test_training_goes_on_from_a_saved_adapter(tmp_path: Path) -> None:
    model = factors_first(tmp_path)
    optimiser = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model(input_ids=prompt(), labels=prompt()).loss.backward()
    optimiser.step()
    model.save_pretrained(tmp_path / "trained")
    assert not any(
        "ropewalk" in key or "rotary" in key for key in load_file(tmp_path / "trained/adapter_model.safetensors")
    )
    assert "rope" not in (tmp_path / "trained/adapter_config.json").read_text()
    again = from_disk_on_a_patched_model(tmp_path / "trained")
    assert torch.equal(logits(again), logits(model.eval()))


# Scoring ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [adapter_first, from_disk_by_transformers])
def test_scores_of_an_adapted_model(make: Callable[[Path], Any], saved: Path) -> None:
    model = make(saved)
    prompts, candidates = prompts_of_records(1), [None, ScalingFactors(FACTORS)]
    scorer = Scorer(model, TinyTokenizer(), prompts)
    found = scorer.score(candidates)
    assert scorer.reason is None, "its layers are called as modules"
    assert factors_of(model).values == tuple(FACTORS)
    reference = adapted(tiny_model()).merge_and_unload().double()
    for own, expected in zip(found, oracles(reference, prompts, candidates), strict=True):
        assert_equal_scores(own, expected, 1e-4)


def test_an_adapted_output_layer_is_left_to_the_models_forward() -> None:
    config = lora(target_modules=["q_proj", "lm_head"])
    prompts, candidates = prompts_of_records(1), [None, ScalingFactors(FACTORS)]
    scorer = Scorer(adapted(tiny_model(), config), TinyTokenizer(), prompts)
    found = scorer.score(candidates)
    assert "its output layer is a Linear, not a plain Linear" in scorer.reason
    reference = adapted(tiny_model(), config).merge_and_unload().double()
    for own, expected in zip(found, oracles(reference, prompts, candidates), strict=True):
        assert_equal_scores(own, expected, 1e-4)


def test_prompts_of_a_model_with_learned_prompts_are_not_scored() -> None:
    model = adapted(tiny_model(), PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"))
    with pytest.raises(UnsupportedModelError, match="its adapter is a PromptTuningConfig, which acts on the prompt"):
        Scorer(model, TinyTokenizer(), prompts_of_records(1))


# Adapter folders as models ------------------------------------------------------------------------------------------


@pytest.fixture
def adapter_folder(tiny_path: Path, tmp_path: Path) -> Path:
    """An adapter of the tiny checkpoint, which a test may spoil. The base is named by its path."""
    model = adapted(AutoModelForCausalLM.from_pretrained(tiny_path, dtype=torch.float32))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def edit(folder: Path, **entries: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_folder_with_an_adapter_is_its_base_model_with_it(adapter_folder: Path, tiny_path: Path) -> None:
    model, tokenizer = load_pretrained(adapter_folder, dtype="float32")
    plain = adapted(AutoModelForCausalLM.from_pretrained(tiny_path, dtype=torch.float32))
    assert torch.equal(logits(model), logits(plain))
    assert type(model).__name__ == "LlamaForCausalLM"
    assert has_adapter(model)
    assert not model.training
    assert tokenizer("hi").tokens() == load_tokenizer(adapter_folder)("hi").tokens() == ["hi"]
    assert not any(weight.requires_grad for name, weight in model.named_parameters() if "lora" in name)
    ropewalk.apply(model, FACTORS)
    torch.testing.assert_close(logits(model), brute_force_logits(plain, FACTORS), **CLOSE)


def test_the_bases_factors_are_applied(adapter_folder: Path, tiny_path: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_path, tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rope_layer_factors": FACTORS}))
    edit(adapter_folder, base_model_name_or_path="../base")
    model, _ = load_pretrained(adapter_folder, dtype="float32")
    assert factors_of(model).values == tuple(FACTORS)
    plain = adapted(AutoModelForCausalLM.from_pretrained(tiny_path, dtype=torch.float32))
    torch.testing.assert_close(logits(model), brute_force_logits(plain, FACTORS), **CLOSE)
    without, _ = load_pretrained(adapter_folder, dtype="float32", apply_factors=False)
    assert torch.equal(logits(without), logits(plain))


@pytest.mark.parametrize("name", ["checkpoint", "remote-code"])
def test_an_export_would_lose_the_adapter(name: str, adapter_folder: Path, tmp_path: Path) -> None:
    model, _ = load_pretrained(adapter_folder, dtype="float32")
    with pytest.raises(RopewalkError, match="merge the adapter with peft"):
        export_target(name).plan(Subject(model, ScalingFactors(FACTORS)), tmp_path / "out")


def test_what_the_refusal_says_can_be_done(adapter_folder: Path, tmp_path: Path) -> None:
    merged = AutoPeftModelForCausalLM.from_pretrained(adapter_folder, dtype=torch.float32).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    load_tokenizer(adapter_folder).save_pretrained(tmp_path / "merged")
    model, _ = load_pretrained(tmp_path / "merged", dtype="float32")
    expected = brute_force_logits(load_pretrained(adapter_folder, dtype="float32")[0], FACTORS)
    write_checkpoint(model, ScalingFactors(FACTORS), tmp_path / "out")
    torch.testing.assert_close(logits(load_pretrained(tmp_path / "out", dtype="float32")[0]), expected, **CLOSE)


def test_the_adapters_own_tokenizer_is_taken(adapter_folder: Path) -> None:
    _, tokenizer = load_pretrained(adapter_folder)
    tokenizer.chat_template = "{{ 'own' }}"
    tokenizer.save_pretrained(adapter_folder)
    assert load_pretrained(adapter_folder)[1].chat_template == "{{ 'own' }}"
    assert load_tokenizer(adapter_folder).chat_template == "{{ 'own' }}"
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(adapter_folder)
    with pytest.raises(DataError, match=r"its tokenizer has \d+ tokens, its base model .* merge them"):
        load_pretrained(adapter_folder)


def test_an_adapter_in_the_hubs_cache(adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hub id, as a download leaves it; the hub itself is not asked in tests."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--adapter"
    shutil.copytree(adapter_folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    model, _ = load_pretrained("org/adapter", dtype="float32")
    assert torch.equal(logits(model), logits(load_pretrained(adapter_folder, dtype="float32")[0]))


def without_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def pickled(folder: Path) -> None:
    without_weights(folder)
    torch.save({}, folder / "adapter_model.bin")


def without_a_layer(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(path).items() if "layers.3" not in name}, path)


def with_a_layer_more(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    save_file(weights | {name.replace("layers.3", "layers.4"): value.clone() for name, value in weights.items()}, path)


def of_another_width(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: weight[:, :-1].contiguous() for name, weight in load_file(path).items()}, path)


def prefix_tuning(folder: Path) -> None:
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    config = PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    adapted(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (without_weights, DataError, "holds no adapter_model.safetensors"),
        (pickled, DataError, r"pickled \(adapter_model.bin\)"),
        (lambda f: (f / "adapter_config.json").write_text("{"), DataError, "not JSON"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), DataError, "names no peft_type"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 50), DataError, "cut short or damaged"),
        (lambda f: edit(f, peft_type="ZORK"), UnsupportedModelError, "ZORK"),
        (lambda f: edit(f, target_modules=["zork"]), UnsupportedModelError, r"\(LORA\) can't be put .*zork"),
        (lambda f: edit(f, base_model_name_or_path=None), DataError, "names no base model"),
        (
            lambda f: edit(f, base_model_name_or_path="./gone"),
            DataError,
            r"base model can't be loaded: \./gone: no such",
        ),
        (
            lambda f: edit(f, base_model_name_or_path="org/base"),
            PrerequisiteError,
            "base model can't be loaded: org/base: .* can't be reached",
        ),
        (without_a_layer, DataError, r"6 weights .*missing in it: not the adapter of"),
        (with_a_layer_more, DataError, r"6 weights .*not used: not the adapter of"),
        (of_another_width, DataError, "its weights have other shapes than those of the adapter of"),
        (prefix_tuning, UnsupportedModelError, r"\(PREFIX_TUNING\) can't be put into"),
    ],
)
def test_a_spoilt_adapter_is_one_line(
    adapter_folder: Path,
    spoil: Callable[[Path], Any],
    error: type[RopewalkError],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(adapter_folder)
    with pytest.raises(error, match=message) as caught:
        load_pretrained(adapter_folder, dtype="float32")
    assert str(caught.value).startswith(str(adapter_folder))
    assert "\n" not in str(caught.value)
    assert "LOAD REPORT" not in caplog.text


def test_a_whole_model_and_an_adapter_in_one_folder(adapter_folder: Path, tiny_path: Path) -> None:
    shutil.copytree(tiny_path, adapter_folder, dirs_exist_ok=True)
    with pytest.raises(DataError, match="holds a whole model and an adapter"):
        load_pretrained(adapter_folder)


def test_peft_is_asked_for_where_it_is_not_installed(adapter_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ropewalk.adapters.find_spec", lambda _name: None)
    with pytest.raises(PrerequisiteError, match=r"needs peft: pip install 'ropewalk\[adapters\]'"):
        load_pretrained(adapter_folder)
