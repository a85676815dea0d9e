"""Gold positions, and the text of an example."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import DataError
from ropewalk.tasks.base import Example, Piece, TaskOptions, check_options, gold_positions


@given(st.integers(1, 200), st.data())
def test_a_count_is_rounded_linspace(count: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, count))
    places = gold_positions(number, count)
    assert places == tuple(np.round(np.linspace(0, count - 1, number)).astype(int))
    assert len(set(places)) == number
    assert places[0] == 0
    assert places[-1] == (count - 1 if number > 1 else 0)


def test_five_of_75_are_the_published_positions() -> None:
    assert gold_positions(5, 75) == (0, 18, 37, 56, 74)


def test_given_positions_are_kept() -> None:
    assert gold_positions([1, 3, 5], 10) == (1, 3, 5)


@pytest.mark.parametrize("positions", [0, -1, 4, (), (0, 0), (2, 1), (-1, 2), (0, 3)])
def test_impossible_positions_are_refused(positions: int | tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected"):
        gold_positions(positions, 3)


def test_the_prompt_is_its_pieces() -> None:
    pieces = (Piece("Look: ", "instruction"), Piece("x", "gold"), Piece("?", "query"))
    assert Example("a@0", "a", 0, pieces, ("x",)).prompt == "Look: x?"


def test_fields_that_a_task_has_no_use_for_are_refused() -> None:
    check_options(TaskOptions(limit=1), "needle", "keys")
    with pytest.raises(DataError, match=r"task needle has no use for --keys \(7 was given\); leave it out"):
        check_options(TaskOptions(keys=7), "needle", "keys")
    with pytest.raises(DataError, match="limit is 0 records, expected at least 1"):
        check_options(TaskOptions(limit=0), "needle")
