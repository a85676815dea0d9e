"""Tables in fewer operations: the module's own to the bit, or not used."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ropewalk import rotary_formula
from ropewalk.layers import undecorated_forward
from ropewalk.rotary import LayerwiseRotary
from tiny import tiny_model

FACTORS = (1.3, 0.8, 1.0, 1.3)
FIXED: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


def rotary_of(model_type: str, rope_type: str = "default", **more: Any) -> Any:
    parameters = {"rope_type": rope_type, "rope_theta": 10000.0, **FIXED.get(rope_type, more)}
    return tiny_model(model_type, rope_parameters=parameters).model.rotary_emb


def wrapped(base: nn.Module, factors: Sequence[float] = FACTORS) -> LayerwiseRotary:
    rotary = LayerwiseRotary(base, len(factors))
    rotary.set_factors(factors)
    return rotary


def entries(rotary: LayerwiseRotary, dtype: torch.dtype, positions: Tensor, *, formula: bool) -> list[Tensor]:
    rotary._has_formula = formula
    found = rotary(torch.empty(1, dtype=dtype), positions)
    return [table for entry in found for table in entry]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rope_type", FIXED)
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "mistral", "granite", "gemma2"])
def test_it_gives_the_modules_own_tables_to_the_bit(model_type: str, rope_type: str, dtype: torch.dtype) -> None:
    rotary = wrapped(rotary_of(model_type, rope_type))
    assert rotary._has_formula
    for positions in (torch.arange(300).expand(2, -1), torch.tensor([[100_003]]), torch.tensor([[3], [77]])):
        own = entries(rotary, dtype, positions, formula=True)
        usual = entries(rotary, dtype, positions, formula=False)
        assert [table.shape for table in own] == [table.shape for table in usual]
        assert all(map(torch.equal, own, usual))
        assert {table.dtype for table in own} == {dtype}


def test_frequencies_that_were_rounded_or_replaced_since_are_followed() -> None:
    base = rotary_of("llama")
    rotary = wrapped(base)
    positions = torch.tensor([[5, 900]])
    before = entries(rotary, torch.float32, positions, formula=True)
    for change in (
        lambda: base.to(torch.bfloat16),
        lambda: base.inv_freq.mul_(0.5),
        lambda: setattr(base, "attention_scaling", 1.5),
    ):
        change()
        own = entries(rotary, torch.float32, positions, formula=True)
        assert all(map(torch.equal, own, entries(rotary, torch.float32, positions, formula=False)))
        assert not all(map(torch.equal, own, before))
        before = own


def test_copies_keep_it() -> None:
    rotary = wrapped(rotary_of("llama"))
    for other in (copy.deepcopy(rotary), pickle.loads(pickle.dumps(rotary))):  # noqa: S301
        assert other._has_formula
        positions = torch.tensor([[7]])
        given = entries(rotary, torch.float32, positions, formula=True)
        assert all(map(torch.equal, given, entries(other, torch.float32, positions, formula=True)))


def test_it_is_left_where_the_base_follows_the_length() -> None:
    for rope_type in ("dynamic", "longrope"):
        more = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8} if rope_type == "longrope" else {}
        base = rotary_of("llama", rope_type, factor=2.0, original_max_position_embeddings=64, **more)
        assert not LayerwiseRotary(base, 4)._has_formula


class Halves(nn.Module):
    """A rotary module of another kind, with the usual names."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.attention_scaling = kind, 1.0
        self.register_buffer("inv_freq", 10000.0 ** -(torch.arange(0, 16, 2) / 16))

    def forward(self, x: Tensor, position_ids: Tensor) -> Any:
        angles = position_ids[..., None].float() * self.inv_freq
        if self.kind == "interleaved":
            angles = angles.repeat_interleave(2, -1)
        elif self.kind == "usual":
            angles = torch.cat((angles, angles), -1)
        if self.kind == "complex":
            return torch.polar(torch.ones_like(angles), angles)
        cos = angles.cos().to(x.dtype if self.kind != "float32" else torch.float32)
        return cos, angles.sin().to(cos.dtype)


@pytest.mark.parametrize("kind", ["usual", "interleaved", "complex", "halves", "float32"])
def test_other_formulas_are_told_apart(kind: str) -> None:
    base = Halves(kind)
    assert rotary_formula.agrees(base, undecorated_forward(base)) is (kind == "usual")


def test_nothing_is_tried_on_a_module_without_values() -> None:
    with torch.device("meta"):
        base = Halves("usual")
    assert not rotary_formula.agrees(base, undecorated_forward(base))
