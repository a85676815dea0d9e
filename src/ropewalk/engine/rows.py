"""Prompts packed into rows: what they share stands once, and their tails branch off behind it.

A row is a stem of tokens and tails that all follow the stem and do not see one another. The positions of a generated kv
record share all but their query, the aliases of an answer share their prompt, the stretches of one text share all that
stands before them: each such family is one row. Which prompts share a row, and which rows a batch, is a pure function
of the prompts, so every candidate sees the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.prompts import RenderedPrompt

MIN_SAVED_SHARE = 0.1
"""A row of several prompts must save this share of their cost."""

MASKED_COST = 4.0
"""What attention with a mask costs for each pair of tokens, over causal attention, which has a kernel of its own."""

CAUSAL_COST = 1.0
"""The same where each tail is causal by itself, behind the stem: on a CPU, which computes tails one after another."""

MIN_COMMON_STEM = 0.9
"""Rows with tails run together only if the shortest stem is at least this part of the longest."""


@dataclass(frozen=True)
class Row:
    """One row of a batch: `stem` tokens, then the tails one after another.

    ids, positions, segments: [tokens]; segment 0 is the stem, 1, 2, … are the tails. spans: for each prompt of the row
    its number and the places whose logits predict its scored tokens and then what ends the answer. length: tokens of
    the longest prompt by itself.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    segments: tuple[int, ...]
    stem: int
    spans: tuple[tuple[int, tuple[int, ...]], ...]
    length: int

    @property
    def has_tails(self) -> bool:
        """Whether anything branches off."""
        return self.stem < len(self.ids)


def pack(
    prompts: Sequence[RenderedPrompt],
    tokens_per_row: int,
    *,
    length_key: Callable[[int], int] = lambda length: 0,
    attention_weight: float = 0.0,
    tail_cost: float = MASKED_COST,
    share: bool = True,
) -> list[Row]:
    """Rows that hold every prompt once, in their order.

    tokens_per_row: no row of several prompts is longer. attention_weight: cost of one pair of tokens that attend, in
    units of all else that a token costs. tail_cost: what a pair costs in the tails, over one in the stem; where it is
    `MASKED_COST`, tails are worth their masks only if they are short. length_key: prompts of different keys never share
    a row (the rotary base of some models follows the prompt's own length). share: False gives each prompt a row.
    """
    rows: list[Row] = []
    start = 0
    while start < len(prompts):
        pair = (attention_weight, tail_cost)
        members = _family(prompts, start, tokens_per_row, length_key, pair) if share else [start]
        rows.append(_row(prompts, members))
        start = members[-1] + 1
    return rows


def make_batches(rows: Sequence[Row], tokens_per_batch: int, multiple: int = 1) -> list[list[int]]:
    """Numbers of rows, batch by batch, longest first, each at most `tokens_per_batch` tokens with its padding.

    Longest first, so that running out of memory happens at once. A row longer than the budget has a batch to itself.
    multiple: rows are padded to a multiple of it. Rows with and without tails are never in one batch.
    """
    order = sorted(range(len(rows)), key=lambda row: (not rows[row].has_tails, -len(rows[row].ids), row))
    batches: list[list[int]] = []
    for number in order:
        row, first = rows[number], rows[batches[-1][0]] if batches else None
        longest = -(-len(first.ids) // multiple) * multiple if first else 0
        if (
            first
            and first.has_tails == row.has_tails
            and (len(batches[-1]) + 1) * longest <= tokens_per_batch
            and (not row.has_tails or _stems_agree([rows[other].stem for other in batches[-1]], row.stem))
        ):
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches


def _stems_agree(stems: Sequence[int], stem: int) -> bool:
    return min(*stems, stem) >= MIN_COMMON_STEM * max(*stems, stem)


def _family(
    prompts: Sequence[RenderedPrompt],
    start: int,
    tokens_per_row: int,
    length_key: Callable[[int], int],
    pair: tuple[float, float],
) -> list[int]:
    """The consecutive prompts from `start` on that share a row: nested ones, or a stem with tails where that saves."""
    key = length_key(len(prompts[start].ids))
    alike = [start]
    for number in range(start + 1, len(prompts)):
        if length_key(len(prompts[number].ids)) != key:
            break
        alike.append(number)
    nested = _nested(prompts, alike)
    if len(nested) > 1:
        return nested
    return _with_common_stem(prompts, alike, tokens_per_row, *pair)


def _nested(prompts: Sequence[RenderedPrompt], alike: Sequence[int]) -> list[int]:
    members = [alike[0]]
    for number in alike[1:]:
        inner, outer = prompts[members[-1]].ids, prompts[number].ids
        if outer[: len(inner)] != inner:
            break
        members.append(number)
    return members


def _with_common_stem(
    prompts: Sequence[RenderedPrompt],
    alike: Sequence[int],
    tokens_per_row: int,
    attention_weight: float,
    tail_cost: float,
) -> list[int]:
    """The next prompt joins as long as that saves more than it did before."""
    first = np.asarray(prompts[alike[0]].ids)
    stem, lengths, saved = len(first) - 1, [len(first)], 0.0
    for number in alike[1:]:
        ids = np.asarray(prompts[number].ids)
        common, longer = _common(first, ids, min(stem, len(ids) - 1)), [*lengths, len(ids)]
        tails = sum(longer) - len(longer) * common
        now = _saved(longer, common, attention_weight, tail_cost)
        if now <= saved or common + tails > tokens_per_row:
            break
        stem, lengths, saved = common, longer, now
    worth = saved >= MIN_SAVED_SHARE * _cost_alone(lengths, attention_weight)
    return list(alike[: len(lengths)]) if worth else [alike[0]]


def _saved(lengths: Sequence[int], stem: int, attention_weight: float, tail_cost: float) -> float:
    """What a row of a stem and tails saves over its prompts one by one, in tokens' cost."""
    tails = sum(lengths) - len(lengths) * stem
    pairs = stem * stem / 2 + tail_cost * tails * (stem + tails)
    return _cost_alone(lengths, attention_weight) - (stem + tails) - attention_weight * pairs


def _cost_alone(lengths: Sequence[int], attention_weight: float) -> float:
    return sum(length + attention_weight * length * length / 2 for length in lengths)


def _common(one: np.ndarray, other: np.ndarray, limit: int) -> int:
    differs = one[:limit] != other[:limit]
    return int(differs.argmax()) if differs.any() else limit


def _row(prompts: Sequence[RenderedPrompt], members: Sequence[int]) -> Row:
    longest = max((prompts[number] for number in members), key=lambda prompt: len(prompt.ids))
    if all(longest.ids[: len(prompts[number].ids)] == prompts[number].ids for number in members):
        ids, stem = longest.ids, len(longest.ids)
    else:
        first = np.asarray(prompts[members[0]].ids)
        stem = min(_common(first, np.asarray(o.ids), min(len(first), len(o.ids)) - 1) for o in _of(prompts, members))
        ids = longest.ids[:stem]
    positions, segments = list(range(stem)), [0] * stem
    path = list(ids)
    spans: list[tuple[int, tuple[int, ...]]] = []
    for number in members:
        prompt = prompts[number]
        offset = len(path) - stem  # a token of the tail stands so much further right than in its own prompt
        tail = prompt.ids[stem:]
        path.extend(tail)
        positions.extend(range(stem, stem + len(tail)))
        segments.extend([len(spans) + 1] * len(tail))
        last = len(prompt.ids) if prompt.terminator else len(prompt.ids) - 1
        places = range(prompt.first - 1, last)
        spans.append((number, tuple(place if place < stem else place + offset for place in places)))
    return Row(tuple(path), tuple(positions), tuple(segments), stem, tuple(spans), len(longest.ids))


def _of(prompts: Sequence[RenderedPrompt], members: Sequence[int]) -> list[RenderedPrompt]:
    return [prompts[number] for number in members]
