"""Splits: every record in exactly one, in the stated shares, the same everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import DataError
from ropewalk.splits import check_split, in_split, region_of, split_of


@given(st.text())
def test_every_content_is_in_exactly_one_split_and_in_all(content: str) -> None:
    splits = [split for split in ("search", "validation", "test") if in_split(content, check_split(split))]
    assert splits == [split_of(content)]
    assert in_split(content, "all")


def test_shares_are_40_20_40() -> None:
    found = [split_of(f"record {index}") for index in range(4000)]
    shares = {split: found.count(check_split(split)) / 4000 for split in ("search", "validation", "test")}
    assert shares == pytest.approx({"search": 0.4, "validation": 0.2, "test": 0.4}, abs=0.03)


def test_the_assignment_is_pinned() -> None:
    """Another assignment would move records that a search has seen into someone's test split."""
    assert [split_of(name) for name in "abcdefgh"] == [
        "test",
        "search",
        "search",
        "search",
        "search",
        "search",
        "test",
        "test",
    ]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="no split 'train', expected one of: search, validation, test, all"):
        check_split("train")


def test_regions_of_a_text_are_disjoint_cover_it_and_have_the_same_shares() -> None:
    assert [region_of(split) for split in ("search", "validation", "test")] == [(0.0, 0.4), (0.4, 0.6), (0.6, 1.0)]
    assert region_of("all") == (0.0, 1.0)
