"""Packing of prompts into rows: nothing is lost or doubled, and a row lets each prompt see what it sees by itself."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.engine.attention import visible
from ropewalk.engine.rows import CAUSAL_COST, MASKED_COST, MIN_COMMON_STEM, MIN_SAVED_SHARE, Row, make_batches, pack
from ropewalk.prompts import RenderedPrompt
from ropewalk.tasks.base import Example
from scored_prompts import prompt_of, prompts_of_records

EXAMPLE = Example("r@0", "r", 0, (), ())


@st.composite
def prompts(draw: st.DrawFn) -> list[RenderedPrompt]:
    """Families: prompts that go on in different ways from a stem, or that are begun again and again."""
    found: list[RenderedPrompt] = []
    tokens = st.integers(3, 5)  # few, so that chance makes prompts begin alike too
    for _ in range(draw(st.integers(1, 4))):
        stem = draw(st.lists(tokens, min_size=0, max_size=20))
        for _ in range(draw(st.integers(1, 4))):
            tail = draw(st.lists(tokens, min_size=0, max_size=6))
            ids = (*stem, *tail)
            ids = ids if len(ids) > 1 else (3, 4)
            first = draw(st.integers(1, len(ids) - 1))
            found.append(RenderedPrompt(EXAMPLE, ids, first, draw(st.sampled_from(["", '"']))))
    return found


def seen(row: Row, place: int, window: int | None = None) -> list[tuple[int, int]]:
    """Position and id of each token that the token at `place` of a row sees, by the mask that the loop uses."""
    positions, segments = torch.tensor([row.positions]), torch.tensor([row.segments])
    mask = visible(positions[:, place, None], segments[:, place, None], positions, segments, window)[0, 0, 0]
    return [(row.positions[key], row.ids[key]) for key in range(len(row.ids)) if mask[key]]


@given(prompts(), st.integers(1, 80))
def test_every_prompt_is_in_one_row_with_its_scored_tokens(found: list[RenderedPrompt], size: int) -> None:
    rows = pack(found, size)
    assert [number for row in rows for number, _ in row.spans] == list(range(len(found)))
    for row in rows:
        assert len(row.ids) == len(row.positions) == len(row.segments)
        for number, span in row.spans:
            prompt = found[number]
            last = len(prompt.ids) - (0 if prompt.terminator else 1)
            assert [row.positions[place] for place in span] == list(range(prompt.first - 1, last))
            assert [row.ids[place] for place in span] == list(prompt.ids[prompt.first - 1 : last])
        assert row.length == max(len(found[number].ids) for number, _ in row.spans)


@given(prompts(), st.integers(1, 80), st.sampled_from([None, 1, 3]))
def test_a_scored_place_sees_its_own_prompt_and_nothing_else(
    found: list[RenderedPrompt], size: int, window: int | None
) -> None:
    for row in pack(found, size):
        for number, span in row.spans:
            own = list(enumerate(found[number].ids))
            for place in span:
                stop = row.positions[place] + 1
                start = 0 if window is None else max(0, stop - window)
                assert seen(row, place, window) == own[start:stop]


@given(prompts(), st.integers(1, 80))
def test_rows_of_several_prompts_save_tokens_and_keep_to_the_budget(found: list[RenderedPrompt], size: int) -> None:
    for row in pack(found, size):
        total = sum(len(found[number].ids) for number, _ in row.spans)
        assert len(row.ids) <= total
        if row.has_tails:
            assert len(row.ids) <= size
            assert total - len(row.ids) >= MIN_SAVED_SHARE * total
            assert row.segments[: row.stem] == (0,) * row.stem
            assert 0 not in row.segments[row.stem :]
        else:
            assert len(row.ids) == row.length == row.stem


@settings(deadline=None)
@given(prompts(), st.integers(1, 80), st.sampled_from([1, 8]))
def test_batches_hold_every_row_once_within_the_budget(found: list[RenderedPrompt], size: int, multiple: int) -> None:
    rows = pack(found, size)
    batches = make_batches(rows, size, multiple)
    assert sorted(number for batch in batches for number in batch) == list(range(len(rows)))
    for batch in batches:
        longest = max(len(rows[number].ids) for number in batch)
        assert len(batch) == 1 or len(batch) * (-(-longest // multiple) * multiple) <= size
        assert len({rows[number].has_tails for number in batch}) == 1
        stems = [rows[number].stem for number in batch]
        assert not rows[batch[0]].has_tails or min(stems) >= MIN_COMMON_STEM * max(stems)
    sizes = [len(rows[batch[0]].ids) for batch in batches if not rows[batch[0]].has_tails]
    assert sizes == sorted(sizes, reverse=True)


@given(prompts(), st.integers(1, 80))
def test_packing_is_a_pure_function(found: list[RenderedPrompt], size: int) -> None:
    copies = [dataclasses.replace(prompt, ids=(*prompt.ids,)) for prompt in found]
    assert pack(found, size) == pack(copies, size)
    rows = pack(found, size)
    assert make_batches(rows, size) == make_batches(list(rows), size)


def test_the_positions_of_a_record_are_one_row() -> None:
    rows = pack(prompts_of_records(3, positions=4, prefix=40), 10_000)
    assert [(row.stem, [number for number, _ in row.spans]) for row in rows] == [
        (40, [0, 1, 2, 3]),
        (41, [4, 5, 6, 7]),
        (42, [8, 9, 10, 11]),
    ]
    assert make_batches(rows, 10_000) == [[2, 1, 0]]


def test_a_row_ends_where_it_would_be_too_long() -> None:
    """Each tail has 12 tokens or more: 40 + 12 + 13 is within 70, a third tail is not."""
    rows = pack(prompts_of_records(1, positions=4, prefix=40), 70)
    assert [[number for number, _ in row.spans] for row in rows] == [[0, 1], [2, 3]]


def test_prompts_that_go_on_from_one_another_are_one_row_without_tails() -> None:
    text = tuple(range(3, 43))
    buckets = [RenderedPrompt(EXAMPLE, text[:stop], stop - 10, "") for stop in (10 + 1, 20, 30, 40)]
    (row,) = pack(buckets, 5)  # what has to be computed for the longest one costs nothing more
    assert not row.has_tails
    assert row.ids == text
    assert [span for _, span in row.spans] == [tuple(range(stop - 11, stop - 1)) for stop in (11, 20, 30, 40)]


def test_equal_prompts_are_computed_once() -> None:
    """Also where they are scored at different places."""
    whole = prompt_of(list(range(3, 33)))
    (row,) = pack([whole, dataclasses.replace(whole, first=1), whole], 10_000)
    assert row.ids == whole.ids
    assert [len(span) for _, span in row.spans] == [6, 30, 6]


def test_prompts_that_share_little_stay_alone() -> None:
    alone = prompts_of_records(3, positions=1)
    assert [len(row.spans) for row in pack(alone, 10_000)] == [1, 1, 1]
    few = [prompt_of([3, 4, 5, *prompt.ids[3:]]) for prompt in alone]
    assert [len(row.spans) for row in pack(few, 10_000)] == [1, 1, 1]


@given(prompts(), st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0]))
def test_a_row_costs_less_than_its_prompts_with_the_masks_counted(found: list[RenderedPrompt], weight: float) -> None:
    for row in pack(found, 10_000, attention_weight=weight):
        if row.has_tails:
            alone = [len(found[number].ids) for number, _ in row.spans]
            tails = len(row.ids) - row.stem
            pairs = row.stem**2 / 2 + MASKED_COST * tails * len(row.ids)
            cost = sum(length + weight * length**2 / 2 for length in alone)
            assert len(row.ids) + weight * pairs <= (1 - MIN_SAVED_SHARE) * cost + 1e-9


def test_long_tails_are_not_worth_their_masks() -> None:
    """With 4 prompts of a common half; short tails are worth it at any weight."""
    half, short = prompts_of_records(1, prefix=14), prompts_of_records(1, prefix=2000)
    assert len(pack(half, 10_000)) == 1
    assert len(pack(half, 10_000, attention_weight=1.0)) == 4
    assert len(pack(short, 10_000, attention_weight=1.0)) == 1


def test_long_tails_are_worth_a_row_where_they_need_no_masks() -> None:
    half = prompts_of_records(1, prefix=14)
    assert len(pack(half, 10_000, attention_weight=0.01)) == 4
    assert len(pack(half, 10_000, attention_weight=0.01, tail_cost=CAUSAL_COST)) == 1


def test_prompts_of_different_length_keys_share_no_row() -> None:
    found = prompts_of_records(1, positions=4, prefix=40)  # of 52, 53, 54 and 52 tokens
    rows = pack(found, 10_000, length_key=lambda length: length if length > 52 else 0)
    assert [[number for number, _ in row.spans] for row in rows] == [[0], [1], [2], [3]]
    rows = pack(found, 10_000, length_key=lambda length: length > 53)
    assert [[number for number, _ in row.spans] for row in rows] == [[0, 1], [2], [3]]


def test_nothing_is_shared_where_that_was_not_asked_for() -> None:
    found = prompts_of_records(2)
    assert [row.ids for row in pack(found, 10_000, share=False)] == [prompt.ids for prompt in found]
