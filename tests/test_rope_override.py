"""Another base scheme: what it parses, the frequencies it gives, and that layer factors multiply it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import ropewalk
from brute_force import brute_force_logits
from ropewalk.checkpoint import load_pretrained
from ropewalk.engine.rope_schemes import longest_input
from ropewalk.errors import FactorsError, RopewalkError, UnsupportedModelError
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.patch import factors_of
from ropewalk.rope_override import RopeOverride, override_rope
from tiny import SHAPE, logits, prompt

FACTORS = [1.0, 1.5, 0.7, 2.0]
TRAINED, THETA, DIM = 512, 50_000.0, 16  # of the tiny checkpoint
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS = ("linear:2", "dynamic:2", "yarn:4", "default")


@pytest.fixture
def tiny(tiny_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may change."""
    return Path(shutil.copytree(tiny_path, tmp_path / "tiny"))


def edit_config(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def load(folder: Path, rope: str | RopeOverride | None = None, **options: Any) -> Any:
    return load_pretrained(folder, dtype="float32", device="cpu", rope=rope, **options)[0]


def built(model_type: str, rope: str, **config: Any) -> Any:
    """A tiny model of that type with the scheme."""
    made = AutoConfig.for_model(model_type, **(SHAPE | config))
    override_rope(made, RopeOverride.parse(rope))
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(made).eval()


def frequencies(model: Any) -> np.ndarray:
    return model.get_decoder().rotary_emb.inv_freq.double().numpy()


def plain(theta: float = THETA, dim: int = DIM) -> np.ndarray:
    """float64 [dim / 2]: θ^(−2i/dim)."""
    return theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)


# What it parses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linear:2", RopeOverride("linear", 2.0)),
        ("dynamic:1.2345678901", RopeOverride("dynamic", 1.2345678901)),
        ("yarn:4,original=8192", RopeOverride("yarn", 4.0, 8192)),
        ("default", RopeOverride("default")),
        ("default,original=2048", RopeOverride("default", 1.0, 2048)),
    ],
)
def test_a_scheme_parses_and_reads_as_it_was_written(text: str, expected: RopeOverride) -> None:
    assert RopeOverride.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("linaer:2", "did you mean linear?"),
        ("ntk:2", "did you mean dynamic?"),
        ("PI:2", "did you mean linear?"),
        ("", "no scheme ''; Expected linear:2"),
        ("linear", "needs a factor, such as linear:2"),
        ("linear:", "needs a factor"),
        ("linear:two", "the factor is 'two', expected a number"),
        ("linear:0", "expected 1 or more"),
        ("dynamic:-2", "expected 1 or more"),
        ("yarn:0.5", "factors below 1 are for layers"),
        ("yarn:nan", "expected 1 or more"),
        ("yarn:inf", "expected 1 or more"),
        ("default:2", "has no factor"),
        ("longrope:4", "its two lists"),
        ("llama3:8", "its four numbers"),
        ("yarn:4,beta=2", "'beta=2' is no option of it; the only one is original=TOKENS"),
        ("yarn:4,original=8k", "expected a whole number of tokens"),
        ("yarn:4,original=0", "expected a whole number of tokens"),
        ("yarn:4,original=8,original=9", "given twice"),
    ],
)
def test_a_mistake_is_one_line(text: str, says: str) -> None:
    with pytest.raises(RopewalkError) as caught:
        RopeOverride.parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scheme_made_by_hand_is_checked_too(tiny_path: Path) -> None:
    assert longest_input(load(tiny_path, RopeOverride("linear", 2.0))) == 2 * TRAINED
    with pytest.raises(RopewalkError, match="expected 1 or more"):
        load(tiny_path, RopeOverride("linear", 0.5))


# The frequencies ---------------------------------------------------------------------------------------------------


def test_linear_divides_the_positions(tiny_path: Path) -> None:
    np.testing.assert_allclose(frequencies(load(tiny_path, "linear:2")), plain() / 2, rtol=1e-6)


def test_dynamic_raises_the_base_with_the_length_beyond_the_trained_one(tiny_path: Path) -> None:
    model = load(tiny_path, "dynamic:2")
    rotary = model.get_decoder().rotary_emb
    for length in (TRAINED, 700, 2 * TRAINED, TRAINED // 2):
        rotary(torch.zeros(1), position_ids=torch.tensor([[length - 1]]))
        theta = THETA * (2 * max(length, TRAINED) / TRAINED - 1) ** (DIM / (DIM - 2))
        np.testing.assert_allclose(frequencies(model), plain(theta), rtol=1e-6)


def test_yarn_is_the_papers_ramp_and_transformers_own(tiny_path: Path) -> None:
    model = load(tiny_path, "yarn:4")
    dims = [DIM * math.log(TRAINED / (turns * 2 * math.pi)) / (2 * math.log(THETA)) for turns in (32, 1)]
    low, high = max(math.floor(dims[0]), 0), min(math.ceil(dims[1]), DIM - 1)
    slow = np.clip((np.arange(DIM // 2) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(frequencies(model), plain() / 4 * slow + plain() * (1 - slow), rtol=1e-6)
    own, attention = ROPE_INIT_FUNCTIONS["yarn"](model.config)
    np.testing.assert_array_equal(frequencies(model), own.double().numpy())
    assert model.get_decoder().rotary_emb.attention_scaling == attention == 0.1 * math.log(4) + 1


def test_yarn_takes_the_length_it_is_told(tiny_path: Path) -> None:
    model = load(tiny_path, "yarn:4,original=128")
    assert model.config.rope_parameters["original_max_position_embeddings"] == 128
    assert longest_input(model) == 512
    assert not np.allclose(frequencies(model), frequencies(load(tiny_path, "yarn:4")))


@pytest.mark.parametrize("rope", KINDS)
def test_base_and_rotated_part_stay_the_models_own(rope: str) -> None:
    model = built("gpt_neox", rope, rope_parameters={"rope_type": "default", "rope_theta": 777.0}, rotary_pct=0.5)
    scheme = base_scheme(model)
    assert scheme["rope_theta"] == 777.0
    assert scheme["partial_rotary_factor"] == 0.5
    assert len(frequencies(model)) == 16 * 0.5 / 2
    if rope == "linear:2":
        np.testing.assert_allclose(frequencies(model), plain(777.0, 8) / 2, rtol=1e-6)


@pytest.mark.parametrize("rope", ["dynamic:2", "yarn:4"])
def test_a_head_size_of_none_is_worked_out(rope: str) -> None:
    assert len(frequencies(built("mixtral", rope))) == 8


# Models that have a scheme already -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rope", "longest"), [("linear:2", 1024), ("dynamic:2", 1024), ("yarn:4", 2048), ("default", 512)]
)
def test_the_longest_input_is_the_trained_length_times_the_factor(tiny_path: Path, rope: str, longest: int) -> None:
    assert longest_input(load(tiny_path, rope)) == longest


def test_what_is_replaced_is_said() -> None:
    config = AutoConfig.for_model("llama", **SHAPE, rope_parameters=dict(LLAMA3))
    said = override_rope(config, RopeOverride.parse("yarn:4"))
    assert said == "yarn:4 in place of llama3 (factor 32); trained to 64 tokens, takes 256"
    assert config.rope_parameters == {
        "rope_type": "yarn",
        "rope_theta": 5e5,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    }


def test_default_takes_a_scheme_off() -> None:
    model = built("llama", "default", rope_parameters=dict(LLAMA3))
    assert base_scheme(model) == {"rope_type": "default", "rope_theta": 5e5}
    assert longest_input(model) == 64
    np.testing.assert_allclose(frequencies(model), plain(5e5), rtol=1e-6)


def test_a_yarn_model_keeps_the_bounds_it_was_trained_with() -> None:
    given = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "beta_fast": 8.0, "attention_factor": 1.0}
    model = built("llama", "yarn:4", rope_parameters=given | {"original_max_position_embeddings": 64})
    assert base_scheme(model)["beta_fast"] == 8.0
    assert "attention_factor" not in base_scheme(model)


def test_a_linear_model_does_not_say_its_trained_length() -> None:
    def config() -> Any:
        return AutoConfig.for_model(
            "llama", **SHAPE, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
        )

    with pytest.raises(RopewalkError, match=r"linear \(factor 4\).*dynamic:2,original=TOKENS"):
        override_rope(config(), RopeOverride.parse("dynamic:2"))
    told = config()
    override_rope(told, RopeOverride.parse("dynamic:2,original=64"))
    assert told.max_position_embeddings == 64


def test_a_scheme_a_layer_type_is_replaced_where_attention_is_full() -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    model = built("gemma3_text", "dynamic:3", layer_types=kinds, head_dim=16)
    scheme = base_scheme(model)
    assert scheme["full_attention"]["rope_type"] == "dynamic"
    assert scheme["sliding_attention"]["rope_type"] == "default"
    assert longest_input(model) == 3 * 256
    with_factors = AutoModelForCausalLM.from_config(model.config).eval()
    ropewalk.apply(with_factors, FACTORS)
    assert logits(with_factors).isfinite().all()


@pytest.mark.parametrize(
    ("model_type", "says"),
    [("gptj", "has no rope_parameters"), ("gemma4_text", "proportional"), ("ministral3", "llama_4_scaling_beta")],
)
def test_models_whose_scheme_is_their_own_are_refused(model_type: str, says: str) -> None:
    with pytest.raises(UnsupportedModelError, match=says):
        override_rope(AutoConfig.for_model(model_type), RopeOverride.parse("linear:2"))


def test_layer_types_of_unknown_kind_are_refused() -> None:
    config = AutoConfig.for_model("llama", **SHAPE)
    config.rope_parameters = {"main": {"rope_type": "default"}, "compress": {"rope_type": "default"}}
    with pytest.raises(UnsupportedModelError, match=r"\['main', 'compress'\]"):
        override_rope(config, RopeOverride.parse("linear:2"))


# The model ---------------------------------------------------------------------------------------------------------

BY_HAND: dict[str, dict[str, Any]] = {
    "linear:2": {"rope_type": "linear", "factor": 2.0},
    "dynamic:2": {"rope_type": "dynamic", "factor": 2.0},
    "yarn:4": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED},
    "default": {"rope_type": "default"},
}


@pytest.mark.parametrize("rope", KINDS)
def test_logits_are_those_of_a_config_written_by_hand(tiny: Path, rope: str) -> None:
    """Beyond the trained length too."""
    overridden = load(tiny, rope)
    edit_config(tiny, rope_parameters=BY_HAND[rope] | {"rope_theta": THETA})
    by_hand = AutoModelForCausalLM.from_pretrained(tiny, dtype="float32").eval()
    for ids in (prompt(), prompt(1, TRAINED + 100)):
        assert torch.equal(logits(overridden, ids), logits(by_hand, ids))


@pytest.mark.parametrize("rope", ["linear:2", "yarn:4"])
def test_layer_factors_multiply_the_scheme(tiny_path: Path, rope: str) -> None:
    expected = brute_force_logits(load(tiny_path, rope), FACTORS)
    model = load(tiny_path, rope)
    ropewalk.apply(model, FACTORS)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(model), brute_force_logits(load(tiny_path), FACTORS), rtol=1e-3, atol=1e-3)


def test_layer_factors_multiply_the_base_that_dynamic_takes_from_the_true_length(tiny: Path) -> None:
    """By hand: a plain model with that base, its inverse frequencies divided layer by layer."""
    ids = prompt(1, TRAINED + 100)
    model = load(tiny, "dynamic:2")
    ropewalk.apply(model, FACTORS)
    given = logits(model, ids)
    theta = THETA * (2 * (TRAINED + 100) / TRAINED - 1) ** (DIM / (DIM - 2))
    edit_config(tiny, rope_parameters={"rope_type": "default", "rope_theta": theta})
    expected = brute_force_logits(load(tiny), FACTORS, ids)
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-3)


def test_factors_of_another_scheme_are_refused_and_the_message_says_which_rope(tiny_path: Path) -> None:
    linear, vanilla = load(tiny_path, "linear:2"), load(tiny_path)
    of_linear, of_vanilla = (
        ScalingFactors(FACTORS, model=model_identity(model), base=base_scheme(model)) for model in (linear, vanilla)
    )
    with pytest.raises(FactorsError, match=r"load the model with --rope linear:2 \(in Python rope=\"linear:2\"\)"):
        ropewalk.apply(vanilla, of_linear)
    with pytest.raises(FactorsError, match="load the model without --rope, or with --rope default"):
        ropewalk.apply(linear, of_vanilla)
    ropewalk.apply(linear, of_linear)
    ropewalk.apply(vanilla, of_linear, any_model=True)


def test_the_fingerprint_is_the_models_under_every_scheme(tiny_path: Path) -> None:
    assert len({model_identity(load(tiny_path, rope))["fingerprint"] for rope in (None, *KINDS)}) == 1


def test_dynamic_tells_trained_lengths_apart(tiny_path: Path) -> None:
    assert base_scheme(load(tiny_path, "dynamic:2,original=128")) != base_scheme(load(tiny_path, "dynamic:2"))


def test_factors_that_a_checkpoint_carries_belong_to_its_own_scheme(tiny: Path) -> None:
    edit_config(tiny, rope_layer_factors=FACTORS)
    with pytest.raises(FactorsError, match="multiply its own scheme"):
        load(tiny, "linear:2")
    assert factors_of(load(tiny, "default")).values == tuple(FACTORS)  # the scheme that it has
    assert factors_of(load(tiny, "linear:2", any_model=True)).values == tuple(FACTORS)
    assert factors_of(load(tiny, "linear:2", apply_factors=False)) is None


@pytest.mark.parametrize("rope", KINDS)
def test_a_saved_model_keeps_its_scheme(tiny_path: Path, tmp_path: Path, rope: str) -> None:
    model, tokenizer = load_pretrained(tiny_path, dtype="float32", device="cpu", rope=rope)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert base_scheme(again) == base_scheme(model)
    assert torch.equal(logits(again), logits(model))
    for other in ("linear:4", "default"):  # the trained length is still known
        factor = RopeOverride.parse(other).factor
        assert longest_input(load(tmp_path / "saved", other)) == TRAINED * factor
