"""Tables of the own loop against angles computed by hand, and the base that is left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ropewalk.engine.rotary_tables import RotaryTables, kept_base
from tiny import tiny_model

LIKE = torch.zeros(1, dtype=torch.float64)
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "factor": 4.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 64,
}


def dynamic_model() -> Any:
    return tiny_model(max_position_embeddings=64, rope_parameters=DYNAMIC)


def of_factors(factors: list[float]) -> torch.Tensor:
    return torch.tensor(factors, dtype=torch.float64)


def test_positions_are_divided_by_the_factors() -> None:
    """cos(p / s · theta^(-2i / 16)) for the groups of factors and the rows of positions."""
    tables = RotaryTables(tiny_model())
    positions = torch.tensor([[0, 1, 7], [100, 5, 6]])
    cos, sin = tables.at(positions, of_factors([1.0, 1.3]), (0, 0), LIKE, None)
    assert cos.shape == sin.shape == (2, 2, 3, 16)
    frequencies = 10000.0 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
    for group, factor in enumerate((1.0, 1.3)):
        angles = positions.double()[:, :, None] / factor * frequencies
        torch.testing.assert_close(cos[group], torch.cat([angles, angles], -1).cos(), rtol=0, atol=2e-5)
        torch.testing.assert_close(sin[group], torch.cat([angles, angles], -1).sin(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("history", [0, 200])
def test_each_row_has_the_base_of_its_own_length(history: int) -> None:
    """Whatever the module has met before."""
    model = dynamic_model()
    tables = RotaryTables(model)
    if history:
        model.model.rotary_emb(LIKE, torch.tensor([[history]]))
    positions = torch.arange(30)[None].expand(3, -1)
    lengths = (100, 30, 150)
    keys = tuple(tables.length_key(length) for length in lengths)
    assert keys == (100, 0, 150)
    cos, _ = tables.at(positions, of_factors([1.0, 1.2]), keys, LIKE, None)
    for row, length in enumerate(lengths):
        fresh = dynamic_model().model.rotary_emb
        whole, _ = fresh(LIKE, torch.arange(length)[None])
        torch.testing.assert_close(cos[0, row], whole[0, :30], rtol=0, atol=0)
    assert not torch.equal(cos[0, 0], cos[0, 2])


def test_lengths_that_give_one_base_have_one_key() -> None:
    assert {RotaryTables(tiny_model()).length_key(length) for length in (1, 64, 10**6)} == {0}
    dynamic = RotaryTables(dynamic_model())
    assert [dynamic.length_key(length) for length in (1, 64, 65, 66)] == [0, 0, 65, 66]
    longrope = RotaryTables(tiny_model(rope_parameters=LONGROPE))
    assert [longrope.length_key(length) for length in (1, 64, 65, 200)] == [0, 0, 65, 65]


def test_layer_types_have_tables_of_their_own() -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    tables = RotaryTables(tiny_model("gemma3_text", head_dim=16, layer_types=kinds))
    assert tables.by_layer_type
    positions = torch.arange(20)[None]
    full, _ = tables.at(positions, of_factors([1.1]), (0,), LIKE, "full_attention")
    sliding, _ = tables.at(positions, of_factors([1.1]), (0,), LIKE, "sliding_attention")
    assert not torch.equal(full, sliding)


def test_one_rotary_module_must_serve_all_layers() -> None:
    model: Any = tiny_model()
    model.model.another = tiny_model().model.rotary_emb
    with pytest.raises(ValueError, match="it has 2 rotary modules, expected one that serves all layers"):
        RotaryTables(model)


@pytest.mark.parametrize("scheme", [DYNAMIC, LONGROPE])
@pytest.mark.parametrize("before", [[], [150]])
def test_the_base_is_what_it_was(scheme: dict[str, Any], before: list[int]) -> None:
    """After an error too, and also where it was grown before."""
    model = tiny_model(max_position_embeddings=64, rope_parameters=scheme)
    untouched = tiny_model(max_position_embeddings=64, rope_parameters=scheme)
    for length in before:
        for one in (model, untouched):
            one.model.rotary_emb(LIKE, torch.tensor([[length]]))

    def interrupted() -> None:
        with kept_base(model):
            for length in (100, 10, 180):
                model.model.rotary_emb(LIKE, torch.tensor([[length]]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(model.model.rotary_emb.inv_freq, untouched.model.rotary_emb.inv_freq)
    for length in (100, 70, 20, 90):
        positions = torch.arange(length)[None]
        found, expected = (one.model.rotary_emb(LIKE, positions)[0] for one in (model, untouched))
        assert torch.equal(found, expected)
