"""Named warnings: what makes each of them appear, and what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ropewalk.comparison import compare
from ropewalk.findings import findings, lost_in_the_tail, no_u_to_mend, short_context_regression
from ropewalk.results import TaskResult


def result(scores: Any, likelihoods: Any = None, **changes: Any) -> TaskResult:
    """Records of these scores; log-likelihoods of -1 unless given."""
    scores = np.asarray(scores, dtype=np.float64)
    fields: dict[str, Any] = {
        "task": {"task": "kv"},
        "positions": tuple(range(scores.shape[1])),
        "records": tuple(str(row) for row in range(len(scores))),
        "scores": scores,
        "log_likelihoods": np.full(scores.shape, -1.0) if likelihoods is None else np.asarray(likelihoods),
        "margins": np.ones(scores.shape),
        "answer_tokens": np.ones(scores.shape, dtype=np.int64),
    }
    return TaskResult(**(fields | changes))


def shares(*successes: int, records: int = 20) -> TaskResult:
    """So many right answers at each position."""
    return result([[float(row < count) for count in successes] for row in range(records)])


# No U to mend ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracy", "warned"),
    [((15, 5, 15), False), ((15, 15, 15), True), ((10, 14, 12), True), ((20, 4, 9, 4, 15), False), ((15, 5), False)],
)
def test_no_u(accuracy: tuple[int, ...], warned: bool) -> None:
    found = no_u_to_mend(shares(*accuracy).summary())
    assert (found is not None) == warned
    if found:
        assert found["name"] == "no U to mend"


def test_its_message_has_both_figures() -> None:
    found = no_u_to_mend(shares(10, 14, 16, 12).summary())
    assert found is not None
    assert "75.0 % at the inner positions, 55.0 % at the ends" in found["message"]


@pytest.mark.parametrize(("middle", "warned"), [(-2.0, False), (-0.5, True)])
def test_where_no_answer_is_right_the_likelihood_tells(middle: float, warned: bool) -> None:
    likelihoods = [[-1.0, middle, -1.0]] * 4
    found = no_u_to_mend(result(np.zeros((4, 3)), likelihoods).summary())
    assert (found is not None) == warned
    unknown = result(np.zeros((4, 3)), [[np.nan, middle, -1.0]] * 4)
    assert no_u_to_mend(unknown.summary()) is None


def test_a_plain_text_has_no_middle_to_lose() -> None:
    text = result(np.full((4, 3), 0.5), graded=True, metric="next_token_accuracy")
    assert no_u_to_mend(text.summary()) is None


# Lost in the tail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "warned"),
    [((20, 20, 0), True), ((20, 20, 14), True), ((20, 20, 15), False), ((0, 0, 20), False), ((20, 20, 20), False)],
)
def test_the_tail(after: tuple[int, ...], warned: bool) -> None:
    """Of 20 right answers 6 lost give p = 2 / 2^6 = 0.031, times 3 = 0.094 with Holm unless the others are as small."""
    before = shares(10, 10, 20)
    gain = compare(before, shares(*after))
    assert (lost_in_the_tail(gain) is not None) == (gain["accuracy_p_holm"][-1] < 0.05 and gain["accuracy"][-1] < 0)
    assert (lost_in_the_tail(gain) is not None) == warned


def test_the_tail_by_log_likelihood() -> None:
    before = result(np.zeros((12, 2)))
    found = lost_in_the_tail(compare(before, result(np.zeros((12, 2)), [[-0.5, -1.25]] * 12)))
    assert found is not None
    assert found["name"] == "lost in the tail"
    assert "(@1)" in found["message"]
    assert "log-likelihood -0.25 nats a token" in found["message"]
    assert "exact_match" not in found["message"]
    assert lost_in_the_tail(compare(before, result(np.zeros((12, 2)), [[-1.5, -1.0]] * 12))) is None
    unknown = result(np.zeros((12, 2)), [[np.nan, -9.0]] * 12)
    assert lost_in_the_tail(compare(before, unknown)) is None


def test_one_position_has_no_tail() -> None:
    assert lost_in_the_tail(compare(shares(20), shares(0))) is None


# Short contexts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "warned"), [(0, True), (19, False), (20, False)])
def test_short_contexts_by_score(right: int, warned: bool) -> None:
    found = short_context_regression(compare(shares(20, 20), shares(right, right)))
    assert (found is not None) == warned
    if found:
        assert found["name"] == "short-context regression"
        assert "-100 points" in found["message"]


def test_short_contexts_by_log_likelihood() -> None:
    before = shares(20, 20)
    lower = result(before.scores, before.log_likelihoods - 0.5)
    found = short_context_regression(compare(before, lower))
    assert found is not None
    assert "log-likelihood -0.5 nats a token" in found["message"]
    higher = result(before.scores, before.log_likelihoods + 0.5)
    assert short_context_regression(compare(before, higher)) is None
    unknown = result(before.scores, before.log_likelihoods * np.nan)
    assert short_context_regression(compare(before, unknown)) is None


def test_all_of_a_test() -> None:
    vanilla, worse = shares(10, 10, 20), shares(10, 10, 0)
    gain = compare(vanilla, worse)
    summary = {"vanilla": vanilla.summary(), "gain": {"factors": gain}, "short": {"gain": gain}}
    assert [one["name"] for one in findings(summary)] == ["lost in the tail", "short-context regression"]
    assert findings({"vanilla": vanilla.summary()}) == []
    assert [one["name"] for one in findings({"vanilla": shares(1, 2, 1).summary(), "short": None})] == ["no U to mend"]
