"""vLLM's tables with a factor, held against the angles in float64, for every rope type; what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

vllm = pytest.importorskip("vllm", reason="runs in an environment of its own: make test-vllm")

from transformers import AutoConfig  # noqa: E402
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402
from vllm.config import VllmConfig, set_current_vllm_config  # noqa: E402
from vllm.config.compilation import CompilationConfig  # noqa: E402
from vllm.model_executor.layers.rotary_embedding import get_rope  # noqa: E402

from ropewalk.errors import UnsupportedModelError  # noqa: E402
from ropewalk.serving.vllm_rotary import is_rotary, scaled_copy, table_bytes  # noqa: E402

pytestmark = pytest.mark.slow

HEAD, LENGTH, TRAINED = 64, 512, 128
SCHEMES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": TRAINED,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": TRAINED},
    "partial": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
    "mrope": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
}
FACTORS = (0.5, 0.93, 1.37, 2.0)


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    """vLLM's modules ask for a configuration when they are made."""
    with set_current_vllm_config(VllmConfig()):
        yield


def made(scheme: dict[str, Any], dtype: torch.dtype = torch.float32) -> nn.Module:
    return get_rope(HEAD, LENGTH, True, scheme, dtype)


def frequencies(scheme: dict[str, Any]) -> tuple[Tensor, float]:
    """inv_freq and attention factor by transformers."""
    parameters = {**scheme}
    config = AutoConfig.for_model(
        "llama", head_dim=HEAD, hidden_size=HEAD * 4, num_attention_heads=4, max_position_embeddings=LENGTH
    )
    config.rope_parameters = parameters
    if scheme["rope_type"] == "default":
        dim = int(HEAD * scheme.get("partial_rotary_factor", 1.0))
        return 1.0 / scheme["rope_theta"] ** (torch.arange(0, dim, 2).double() / dim), 1.0
    inv_freq, scaling = ROPE_INIT_FUNCTIONS[scheme["rope_type"]](config, "cpu")
    return inv_freq.double(), scaling


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", SCHEMES)
def test_the_angles_are_those_of_divided_positions(name: str, factor: float) -> None:
    table = scaled_copy(made(SCHEMES[name]), factor).cos_sin_cache
    inv_freq, scaling = frequencies(SCHEMES[name])
    angles = torch.arange(len(table)).double()[:, None] / factor * inv_freq
    wanted = torch.cat([angles.cos(), angles.sin()], dim=-1) * scaling
    # float32 holds an angle of 2000 to 1e-4
    torch.testing.assert_close(table.double(), wanted, rtol=0, atol=5e-4)
    assert (table - made(SCHEMES[name]).cos_sin_cache).abs().max() > 0.5


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("length", [64, LENGTH])
def test_longrope_has_both_its_tables_scaled(factor: float, length: int) -> None:
    short, long = [1.0 + i / 64 for i in range(32)], [1.0 + i / 8 for i in range(32)]
    scheme = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": TRAINED,
    }

    class Model:
        max_model_len = length

    config = VllmConfig()
    config.model_config = Model()  # of a real one this is all that the module reads
    with set_current_vllm_config(config):
        base = get_rope(HEAD, LENGTH, True, scheme | {"short_mscale": 1.1 + length}, torch.float32)
        table = scaled_copy(base, factor).long_short_cos_sin_cache
    plain = 1e4 ** (torch.arange(0, HEAD, 2).double() / HEAD)
    for part, own, size in ((table[:TRAINED], short, base.short_mscale), (table[TRAINED:], long, base.long_mscale)):
        angles = torch.arange(len(part)).double()[:, None] / factor / (torch.tensor(own).double() * plain)
        wanted = torch.cat([angles.cos(), angles.sin()], dim=-1) * size
        torch.testing.assert_close(part.double(), wanted, rtol=0, atol=5e-4 * size)


def test_dynamic_is_the_base_that_vllm_chose() -> None:
    scheme = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0, "max_trained_positions": TRAINED}
    base = made(scheme)
    ratio = 2.0 * LENGTH / TRAINED - 1.0
    inv_freq = 1.0 / (1e4 * ratio ** (HEAD / (HEAD - 2))) ** (torch.arange(0, HEAD, 2).double() / HEAD)
    angles = torch.arange(LENGTH).double()[:, None] / 1.37 * inv_freq
    wanted = torch.cat([angles.cos(), angles.sin()], dim=-1)
    torch.testing.assert_close(scaled_copy(base, 1.37).cos_sin_cache.double(), wanted, rtol=0, atol=5e-4)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_copy_turns_by_its_own_table_and_leaves_the_original(name: str) -> None:
    base = made(SCHEMES[name])
    before = base.cos_sin_cache.clone()
    copy = scaled_copy(base, 1.37)
    assert copy._forward_method.__self__ is copy
    assert torch.equal(base.cos_sin_cache, before)
    assert "_compute_inv_freq" not in vars(base)
    assert "_compute_inv_freq" not in vars(copy)
    assert table_bytes(copy) == table_bytes(base)
    if name == "mrope":
        return  # turns by a kernel that needs Triton
    positions = torch.arange(0, 40)
    turned = [rope(positions, torch.ones(40, HEAD), torch.ones(40, HEAD))[0] for rope in (base, copy)]
    assert (turned[0] - turned[1]).abs().max() > 0.1


def test_a_table_of_bf16_is_rounded_once() -> None:
    exact = scaled_copy(made(SCHEMES["default"]), 1.37).cos_sin_cache
    rounded = scaled_copy(made(SCHEMES["default"], torch.bfloat16), 1.37).cos_sin_cache
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, exact.bfloat16())


def test_a_table_that_is_not_made_of_frequencies_is_refused() -> None:
    base = made(SCHEMES["default"] | {"rope_theta": 1.1e4})
    base.cos_sin_cache[7] += 0.25  # as weights that are loaded into it would do
    with pytest.raises(UnsupportedModelError, match="its table is not what its _compute_cos_sin_cache gives"):
        scaled_copy(base, 1.37)


def test_a_class_with_further_tables_is_refused() -> None:
    base = made(SCHEMES["default"] | {"rope_theta": 1.05e4})
    base.register_buffer("cos_sin_q_cache", base.cos_sin_cache.clone())  # as dual chunk attention keeps them
    assert is_rotary(base)
    with pytest.raises(UnsupportedModelError, match=r"cos_sin_cache, cos_sin_q_cache, which ropewalk can't scale"):
        scaled_copy(base, 1.37)


def test_a_copy_bound_to_the_original_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base = made(SCHEMES["default"] | {"rope_theta": 1.2e4})
    other = made(SCHEMES["default"] | {"rope_theta": 1.3e4})
    monkeypatch.setattr(base, "_forward_method", other.forward_native)
    monkeypatch.setattr(type(base), "__deepcopy__", lambda self, memo: _shallow(self), raising=False)
    with pytest.raises(UnsupportedModelError, match="still calls the original's"):
        scaled_copy(base, 1.37)


def _shallow(module: Any) -> Any:
    twin = type(module).__new__(type(module))
    twin.__dict__ = dict(module.__dict__)
    return twin


def test_compiled_engines_have_such_modules_too() -> None:
    config = VllmConfig(compilation_config=CompilationConfig(custom_ops=["none"]))
    with set_current_vllm_config(config):
        copy = scaled_copy(made(SCHEMES["default"] | {"rope_theta": 1.4e4}), 1.37)
    assert copy._forward_method.__self__ is copy
