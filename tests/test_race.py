"""Racing: the stages are all of the records in their order, and equals are seldom stopped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.objectives import Objective, Part, Scores
from ropewalk.race import FEWEST, LEVEL, SHARES, is_behind, stages

tasks = st.lists(st.lists(st.integers(0, 500), min_size=1, max_size=60, unique=True), min_size=1, max_size=4)


@given(tasks)
def test_stages_are_all_rows_in_their_order(given_rows: list[list[int]]) -> None:
    rows = tuple(tuple(own) for own in given_rows)
    parts = stages(rows)
    assert tuple(tuple(row for stage in parts for row in stage[task]) for task in range(len(rows))) == rows
    assert all(any(stage) for stage in parts)
    assert 1 <= len(parts) <= len(SHARES) + 1
    assert all(len(own) >= min(FEWEST, len(all_own)) for own, all_own in zip(parts[0], rows, strict=True))


def test_stages_of_few_and_of_many_records() -> None:
    assert [[len(own) for own in stage] for stage in stages((tuple(range(4)),))] == [[4]]
    assert [[len(own) for own in stage] for stage in stages((tuple(range(100)),))] == [[25], [25], [25], [25]]
    mixed = stages((tuple(range(4)), tuple(range(40))))
    assert [[len(own) for own in stage] for stage in mixed] == [[4, 10], [0, 10], [0, 10], [0, 10]]


@pytest.mark.parametrize(
    ("difference", "records", "behind"),
    [
        ((-1.0, 0.1), [8], True),
        ((-1.0, 0.9), [8], False),
        ((1.0, 0.1), [8], False),
        ((0.0, 0.0), [8], False),
        ((-0.1, 0.0), [8], True),
        ((-1.0, 0.1), [40, 1], False),  # of one record nothing is known
        ((-1.0, 0.4), [40, 3], False),  # the task of few records decides how sure one may be
        ((-1.0, 0.36), [40, 40], True),
        ((-1.0, 0.4), [40, 40], False),
        ((-1.0, 0.4), [500, 500], True),  # half of all: the rest can't turn it
        ((float("nan"), float("nan")), [8], False),
        (None, [8], False),
    ],
)
def test_who_is_behind(difference: tuple[float, float] | None, records: list[int], behind: bool) -> None:
    assert is_behind(difference, records, [1000] * len(records)) is behind


def false_stops(objective: Objective, draw: object, records: int, runs: int = 4000) -> float:
    rng = np.random.default_rng(records)
    stopped = 0
    for _ in range(runs):
        mine, theirs = ([draw(rng, records) for _ in objective.parts] for _ in range(2))  # type: ignore[operator]
        difference = objective.difference(mine, theirs, [1.0] * len(objective.parts))
        stopped += is_behind(difference, [records] * len(objective.parts), [10 * records] * len(objective.parts))
    return stopped / runs


def likelihoods(rng: np.random.Generator, records: int) -> Scores:
    return Scores(np.zeros((records, 3)), rng.normal(size=(records, 1)) + rng.normal(size=(records, 3)))


def verdicts(rng: np.random.Generator, records: int) -> Scores:
    return Scores((rng.random((records, 10)) < 0.5) * 1.0, np.zeros((records, 10)))


@pytest.mark.parametrize("records", [4, 8, 25])
def test_equals_are_seldom_stopped(records: int) -> None:
    """At most about as often as the level of the test says, three standard errors allowed."""
    allowed = LEVEL + 3 * (LEVEL / 4000) ** 0.5
    assert false_stops(Objective(), likelihoods, records) < allowed
    assert false_stops(Objective((Part(name="a"), Part(name="b"))), likelihoods, records) < allowed
    assert false_stops(Objective((Part("accuracy"),)), verdicts, records) < 1.5 * allowed  # not normal


def test_who_would_have_been_ahead_in_the_end_is_seldom_stopped() -> None:
    """Of 40 records a quarter, a half and three quarters are seen; ahead over all 40 is who must not be lost."""
    rng, objective, lost = np.random.default_rng(0), Objective((Part("accuracy"),)), 0
    for _ in range(1500):
        mine, theirs = (Scores((rng.random((40, 5)) < 0.4) * 1.0, np.zeros((40, 5))) for _ in range(2))
        mean, _ = objective.difference([mine], [theirs], [1.0]) or (0.0, 0.0)
        for seen in (10, 20, 30):
            first = objective.difference([mine.rows(range(seen))], [theirs.rows(range(seen))], [1.0])
            if mean >= 0 and is_behind(first, [seen], [40]):
                lost += 1
                break
    assert lost / 1500 < 3 * LEVEL / 2  # three tests, and half of the pairs are behind in the end anyway


@pytest.mark.parametrize("records", [8, 25])
def test_a_clearly_worse_one_is_stopped(records: int) -> None:
    rng = np.random.default_rng(0)
    theirs = likelihoods(rng, records)
    mine = Scores(theirs.scores, theirs.log_likelihoods - 1 + rng.normal(size=theirs.scores.shape) / 4)
    assert is_behind(Objective().difference([mine], [theirs], [1.0]), [records], [2 * records])
    assert not is_behind(Objective().difference([theirs], [mine], [1.0]), [records], [2 * records])
    assert not is_behind(Objective().difference([theirs], [theirs], [1.0]), [records], [2 * records])
