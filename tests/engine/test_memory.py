"""The size of a batch: a formula that never shrinks with the memory there is, and halving that ends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.engine.memory import (
    CPU_TOKENS,
    CUDA_TOKENS,
    FREE_SHARE,
    Budget,
    budget,
    bytes_per_token,
    cache_bytes_per_token,
)
from ropewalk.errors import RopewalkError
from tiny import tiny_model

CUDA = torch.device("cuda")


def with_memory(monkeypatch: pytest.MonkeyPatch, free: int, reserved: int = 0, allocated: int = 0) -> None:
    """A GPU with so much free memory: there is none where the tests run."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)


def test_the_formula_by_hand() -> None:
    """Hidden 64, inner 96, 4 heads and 2 key-value heads of 16, 4 bytes a number."""
    model = tiny_model()
    assert bytes_per_token(model) == (3 * 96 + 3 * 64 + 2 * (4 + 2 * 2) * 16) * 4 + 12 * 64
    assert cache_bytes_per_token(model) == 2 * 2 * 4 * (2 * 16) * 4


@pytest.mark.parametrize(
    "larger", [{"hidden_size": 128}, {"intermediate_size": 192}, {"num_key_value_heads": 4}, {"head_dim": 32}]
)
def test_a_larger_model_takes_more(larger: dict[str, int]) -> None:
    assert bytes_per_token(tiny_model(**larger)) > bytes_per_token(tiny_model())


def test_a_smaller_dtype_takes_less() -> None:
    model = tiny_model()
    whole, cache = bytes_per_token(model), cache_bytes_per_token(model)
    model.to(torch.bfloat16)
    assert whole / 2 < bytes_per_token(model) < whole  # norms are computed in float32 in any case
    assert cache_bytes_per_token(model) == cache / 2


def test_more_memory_gives_larger_batches_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    sizes = []
    for free in (0, 10_000, 10**6, 10**8, 10**12):
        with_memory(monkeypatch, free)
        sizes.append(budget(model, CUDA).tokens)
    assert sizes[0] == 1
    assert sizes[2] == int(FREE_SHARE * 10**6 / bytes_per_token(model))
    assert sizes == sorted(sizes)
    assert sizes[-1] == CUDA_TOKENS


def test_what_the_allocator_holds_back_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    with_memory(monkeypatch, 10**6, reserved=3 * 10**6, allocated=10**6)
    assert budget(model, CUDA).tokens == int(FREE_SHARE * 3 * 10**6 / bytes_per_token(model))


def test_a_cache_leaves_room_for_fewer_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    with_memory(monkeypatch, 10**7)
    assert budget(model, CUDA, cached=True).tokens < budget(model, CUDA).tokens


def test_what_is_asked_for_is_taken() -> None:
    model = tiny_model()
    assert budget(model, CUDA, 77).tokens == budget(model, torch.device("cpu"), 77, cached=True).tokens == 77
    assert budget(model, torch.device("cpu")).tokens == CPU_TOKENS


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_halving_ends_at_the_smallest_batch(failed: int, smallest: int) -> None:
    size = Budget(10**7)
    steps = 0
    while failed > smallest:
        size.halve(failed, smallest=smallest)
        assert smallest <= size.tokens < failed
        failed, steps = size.tokens, steps + 1
    assert steps <= 20
    with pytest.raises(RopewalkError, match=f"a batch of {failed} tokens, the smallest possible one"):
        size.halve(failed, smallest=smallest)
