"""Parts of a batch on several cores: their order, torch's state in the threads and after them, failures."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from ropewalk.engine.side_by_side import side_by_side


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 9])
def test_every_part_once_and_in_order(threads: int, count: int) -> None:
    torch.set_num_threads(threads)
    assert side_by_side(lambda part: 10 * part, range(count)) == [10 * part for part in range(count)]
    assert torch.get_num_threads() == threads


def test_threads_are_divided_among_the_parts_that_run_at_a_time() -> None:
    torch.set_num_threads(4)
    assert side_by_side(lambda part: torch.get_num_threads(), range(2)) == [2, 2]
    assert side_by_side(lambda part: torch.get_num_threads(), range(5)) == [1, 1, 1, 1, 4]  # the last one has them all
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [4]  # and so have threads that others begin later


def test_parts_run_at_the_same_time() -> None:
    """Each waits for the other: one after the other they would never end."""
    torch.set_num_threads(2)
    met = threading.Barrier(2, timeout=30)
    assert len(side_by_side(lambda part: met.wait(), range(2))) == 2


def test_gradients_and_inference_mode_are_those_of_the_caller() -> None:
    torch.set_num_threads(2)

    def state(part: int) -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with torch.no_grad():
        assert side_by_side(state, range(3)) == [(False, False)] * 3
    with torch.inference_mode():
        assert side_by_side(state, range(3)) == [(False, True)] * 3
    assert side_by_side(state, range(3)) == [(True, False)] * 3


def test_a_part_that_fails_fails_the_call() -> None:
    torch.set_num_threads(2)

    def work(part: int) -> int:
        if part == 1:
            raise ValueError("the second part")
        return part

    with pytest.raises(ValueError, match="the second part"):
        side_by_side(work, range(4))
    assert torch.get_num_threads() == 2
