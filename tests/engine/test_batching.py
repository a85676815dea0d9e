"""Which prompts share a pass: all of them once, within the budget, never by another's length where that matters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.engine.batching import has_length_dependent_rope, make_batches
from scored_prompts import prompt_of


@given(st.lists(st.integers(6, 40), min_size=1, max_size=30), st.integers(1, 200), st.booleans())
def test_batches_hold_every_prompt_once_within_the_budget(lengths: list[int], budget: int, equal: bool) -> None:
    prompts = [prompt_of([3] * length) for length in lengths]
    batches = make_batches(prompts, budget, equal_lengths=equal)
    assert sorted(index for batch in batches for index in batch) == list(range(len(prompts)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert not equal or len({lengths[index] for index in batch}) == 1
    in_order = [lengths[index] for batch in batches for index in batch]
    assert in_order == sorted(lengths, reverse=True)


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
    assert has_length_dependent_rope(scheme) is expected
