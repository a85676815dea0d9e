"""What a model's rope parameters say of lengths."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ropewalk.engine.rope_schemes import has_length_dependent_rope, longest_input, rope_schemes
from tiny import tiny_model


def configured(**config: Any) -> Any:
    """As much of a model as is asked: its config."""
    built = SimpleNamespace(**config)
    built.get_text_config = lambda **_: built
    return SimpleNamespace(config=built)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ({}, False),
        ({"rope_type": "default"}, False),
        ({"rope_type": "yarn", "factor": 2.0}, False),
        ({"rope_type": "dynamic", "factor": 2.0}, True),
        ({"rope_type": "longrope"}, True),
        ({"full_attention": {"rope_type": "dynamic"}, "sliding_attention": {"rope_type": "default"}}, True),
    ],
)
def test_length_dependent_schemes_are_known(scheme: dict[str, object], expected: bool) -> None:
    assert has_length_dependent_rope(configured(rope_parameters=scheme)) is expected


def test_layer_types_have_a_scheme_each() -> None:
    schemes = rope_schemes(tiny_model("gemma3_text", head_dim=16))
    assert sorted(scheme["rope_theta"] for scheme in schemes) == [10_000.0, 1_000_000.0]
    assert len(rope_schemes(tiny_model())) == 1


def test_the_longest_input_is_what_the_config_says() -> None:
    assert longest_input(tiny_model()) == 256
    assert longest_input(configured()) is None
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
    assert longest_input(tiny_model(rope_parameters=yarn)) == 256
    assert longest_input(tiny_model(rope_parameters=yarn, max_position_embeddings=64)) == 256  # before its extension


def test_dynamic_ntk_names_the_length_before_its_extension() -> None:
    scheme = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    assert longest_input(tiny_model(max_position_embeddings=24, rope_parameters=scheme)) == 96
