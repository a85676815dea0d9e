"""Intervals and tests: published values, exact oracles, and simulation of coverage and size."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ropewalk import stats
from ropewalk.errors import DataError

RNG = np.random.default_rng(11)
SCORES = RNG.normal(size=(12, 3))


def mean(means: np.ndarray) -> np.ndarray:
    return means.mean(axis=-1)


def worst(means: np.ndarray) -> np.ndarray:
    return means.min(axis=-1)


def weighted(means: np.ndarray) -> np.ndarray:
    return means @ np.array([0.8, 1.0, 1.2]) / 3.0


# Wilson ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # R. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert np.round(stats.wilson(successes, n), 4).tolist() == [low, high]


@given(st.integers(1, 2000), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys_and_mirrors(n: int, data: st.DataObject, confidence: float) -> None:
    k = data.draw(st.integers(0, n))
    low, high = stats.wilson(k, n, confidence)
    oracle = binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1
    mirrored = stats.wilson(n - k, n, confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "n", "confidence"), [(0, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 2, 1.0)])
def test_wilson_refuses(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(DataError, match="expected"):
        stats.wilson(successes, n, confidence)


# McNemar -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5), st.integers(0, 5))
def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ(gained: int, lost: int, both: int, none: int) -> None:
    a = np.array([False] * gained + [True] * lost + [True] * both + [False] * (none + 1))
    b = np.array([True] * gained + [False] * lost + [True] * both + [False] * (none + 1))
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert stats.mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
    assert stats.mcnemar(b, a) == stats.mcnemar(a, b)


def test_mcnemar_by_hand() -> None:
    assert stats.mcnemar([False] * 6, [True] * 6) == 2 / 64
    assert stats.mcnemar([True, False], [False, True]) == 1.0


@pytest.mark.parametrize(
    ("a", "b"),
    [([], []), ([True], [True, False]), ([1, 0], [0, 1]), ([[True]], [[True]]), ([0.5], [1.0])],
)
def test_mcnemar_refuses(a: list, b: list) -> None:
    with pytest.raises(DataError, match="McNemar"):
        stats.mcnemar(np.array(a, dtype=bool) if a == [] else a, np.array(b, dtype=bool) if b == [] else b)


# Holm --------------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.5]).tolist() == [1.0, 1.0]
    assert stats.holm([0.2]).tolist() == [0.2]
    assert stats.holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float]) -> None:
    adjusted = stats.holm(p)
    for alpha in (0.01, 0.05, 0.2):
        rejected: set[int] = set()
        for step, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[index] * (len(p) - step) > alpha:
                break
            rejected.add(index)
        assert set(np.flatnonzero(adjusted <= alpha)) == rejected
    assert (adjusted >= p).all()


@pytest.mark.parametrize("p", [[0.5, float("nan")], [1.1], [-0.1], [[0.5]]])
def test_holm_refuses(p: Any) -> None:
    with pytest.raises(DataError, match=r"in \[0, 1\]"):
        stats.holm(p)


# Bootstrap ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_result_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SCORES + RNG.normal(0.2, 0.5, size=SCORES.shape)
    wide = np.concatenate([SCORES, other]), np.concatenate([other, SCORES + 0.1])
    interval, paired = stats.cluster_bootstrap(SCORES, mean), stats.paired_bootstrap(*wide, mean, resamples=2000)
    assert stats.cluster_bootstrap(SCORES, mean, seed=1) != interval
    monkeypatch.setattr(stats, "BLOCK", 100)
    again = stats.paired_bootstrap(*wide, mean, resamples=2000)
    assert stats.cluster_bootstrap(SCORES, mean) == interval
    assert (again.low, again.high) == pytest.approx((paired.low, paired.high), rel=1e-12)
    assert again.p_value == paired.p_value


def test_the_estimate_is_the_statistic_and_lies_inside() -> None:
    for statistic in (mean, worst, weighted):
        interval = stats.cluster_bootstrap(SCORES, statistic)
        assert interval.estimate == pytest.approx(float(statistic(SCORES.mean(axis=0))), rel=1e-12)
        assert interval.low < interval.estimate < interval.high


def test_records_that_agree_have_no_width_and_verdicts_stay_in_their_range() -> None:
    assert stats.cluster_bootstrap(np.ones((8, 3)), mean) == stats.Interval(1.0, 1.0, 1.0)
    interval = stats.cluster_bootstrap(np.eye(2, dtype=bool), mean)
    assert (interval.estimate, interval.low, interval.high) == (0.5, 0.5, 0.5)  # each record is right once
    few = stats.cluster_bootstrap(np.array([[True, True], [False, False], [True, False]]), mean)
    assert 0 <= few.low < 0.5 < few.high <= 1


def test_more_confidence_is_wider() -> None:
    widths = [
        interval.high - interval.low
        for interval in (stats.cluster_bootstrap(SCORES, mean, confidence=c) for c in (0.5, 0.8, 0.95))
    ]
    assert widths == sorted(widths)
    assert widths[0] < widths[2]


def clustered_verdicts(generator: np.random.Generator, records: int, chance: float) -> np.ndarray:
    """Verdicts [records, 3] that nearly always agree within a record: the case pooled intervals get wrong."""
    whole = generator.random((records, 1)) < chance
    flip = generator.random((records, 3)) < 0.05
    return whole ^ flip


def test_coverage_is_near_nominal_where_pooling_fails() -> None:
    generator = np.random.default_rng(5)
    truth = 0.4 * 0.95 + 0.6 * 0.05
    runs, covered, pooled = 400, 0, 0
    for seed in range(runs):
        verdicts = clustered_verdicts(generator, 40, 0.4)
        interval = stats.cluster_bootstrap(verdicts, mean, resamples=600, seed=seed)
        covered += interval.low <= truth <= interval.high
        low, high = stats.wilson(int(verdicts.sum()), verdicts.size)
        pooled += low <= truth <= high
    assert 0.92 <= covered / runs <= 0.985  # 3 standard errors of 400 runs
    assert pooled / runs < 0.85


def test_coverage_of_paired_differences_with_few_records() -> None:
    generator = np.random.default_rng(6)
    runs, covered = 400, 0
    for seed in range(runs):
        a = generator.normal(size=(10, 3)) + generator.normal(size=(10, 1))
        b = a + 0.5 + generator.normal(size=(10, 1))
        paired = stats.paired_bootstrap(a, b, weighted, resamples=600, seed=seed)
        covered += paired.low <= 0.5 <= paired.high
    assert 0.92 <= covered / runs <= 0.985


@pytest.mark.parametrize("statistic", [mean, worst])
@pytest.mark.parametrize("records", [7, 30])  # all exchanges, and random ones
def test_size_under_the_null(statistic: Callable[[np.ndarray], np.ndarray], records: int) -> None:
    generator = np.random.default_rng(8)
    p = []
    for seed in range(400):
        base = generator.normal(size=(records, 1))
        a, b = base + generator.normal(size=(2, records, 3))
        p.append(stats.paired_bootstrap(a, b, statistic, resamples=199, seed=seed).p_value)
    for alpha in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= alpha) == pytest.approx(alpha, abs=3.5 * np.sqrt(alpha * (1 - alpha) / 400))
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_exact_p_value_by_hand() -> None:
    a = np.zeros((3, 1))
    assert stats.paired_bootstrap(a, np.array([[1.0], [1.0], [1.0]]), mean).p_value == 2 / 8
    assert stats.paired_bootstrap(a, np.array([[1.0], [-1.0], [1.0]]), mean).p_value == 1.0
    assert stats.paired_bootstrap(a, np.array([[1.0], [2.0], [4.0]]), mean).p_value == 2 / 8
    assert stats.paired_bootstrap(a, np.array([[-1.0], [2.0], [4.0]]), mean).p_value == 4 / 8


@pytest.mark.parametrize("statistic", [mean, worst, weighted])
def test_exact_p_value_against_plain_enumeration(statistic: Callable[[np.ndarray], np.ndarray]) -> None:
    a, b = SCORES[:6], SCORES[6:] + 0.4
    observed = abs(float(statistic(b.mean(axis=0)) - statistic(a.mean(axis=0))))
    extreme = 0
    for exchanged in itertools.product([False, True], repeat=6):
        swap = np.array(exchanged)[:, None]
        one, other = np.where(swap, b, a), np.where(swap, a, b)
        extreme += abs(float(statistic(other.mean(axis=0)) - statistic(one.mean(axis=0)))) >= observed - 1e-12
    paired = stats.paired_bootstrap(a, b, statistic)
    assert paired.p_value == extreme / 64
    assert paired.difference == pytest.approx(float(statistic(b.mean(axis=0)) - statistic(a.mean(axis=0))), rel=1e-12)


def test_random_exchanges_come_near_the_exact_p_value() -> None:
    a, b = SCORES[:, :1], SCORES[:, :1] + RNG.normal(0.3, 0.6, size=(12, 1))
    exact = stats.paired_bootstrap(a, b, mean, resamples=5000)  # 2^12 = 4096 exchanges
    drawn = stats.paired_bootstrap(a, b, mean, resamples=4000)
    assert exact.p_value * 4096 == int(exact.p_value * 4096)
    assert drawn.p_value == pytest.approx(exact.p_value, abs=4 * np.sqrt(exact.p_value / 4000))
    assert drawn.p_value > 0


def test_records_that_do_not_differ_change_no_p_value() -> None:
    a, b = np.zeros((3, 2)), np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    padded = np.concatenate([a, np.ones((40, 2))]), np.concatenate([b, np.ones((40, 2))])
    assert stats.paired_bootstrap(*padded, mean).p_value == stats.paired_bootstrap(a, b, mean).p_value


def test_swapping_the_arms_only_changes_the_sign() -> None:
    a, b = SCORES, SCORES + RNG.normal(0.2, 0.5, size=SCORES.shape)
    forth, back = stats.paired_bootstrap(a, b, weighted), stats.paired_bootstrap(b, a, weighted)
    assert back.difference == pytest.approx(-forth.difference)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))
    assert back.p_value == forth.p_value


def test_the_same_records_are_drawn_for_both_arms() -> None:
    """Arms that differ by a constant have a difference without any spread; drawn apart they would not."""
    paired = stats.paired_bootstrap(SCORES, SCORES + 0.25, mean)
    assert (paired.difference, paired.low, paired.high) == pytest.approx((0.25, 0.25, 0.25))


def test_equal_arms() -> None:
    assert stats.paired_bootstrap(SCORES, SCORES, mean) == stats.PairedDifference(0.0, 0.0, 0.0, 1.0)


def test_a_real_gain_is_found() -> None:
    a = RNG.normal(size=(30, 3))
    paired = stats.paired_bootstrap(a, a + 0.3 + RNG.normal(0, 0.2, size=(30, 1)), mean)
    assert paired.low > 0
    assert paired.p_value == pytest.approx(1 / (1 + stats.RESAMPLES))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.ones((0, 3)), "at least 2"),
        (np.ones((1, 3)), "at least 2"),
        (np.ones((3, 0)), r"expected \[records, positions\]"),
        (np.ones(3), r"expected \[records, positions\]"),
        (np.ones((2, 2, 2)), r"expected \[records, positions\]"),
        (np.array([[1.0, np.nan], [1.0, 1.0]]), "1 values that are not finite"),
        (np.array([[1.0, np.inf], [-np.inf, 1.0]]), "2 values that are not finite"),
    ],
)
def test_bad_scores_are_refused(values: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        stats.cluster_bootstrap(values, mean)
    with pytest.raises(DataError, match=says):
        stats.paired_bootstrap(values, values, mean)


def test_other_misuse_is_refused() -> None:
    with pytest.raises(DataError, match="one shape"):
        stats.paired_bootstrap(SCORES, SCORES[:, :2], mean)
    with pytest.raises(DataError, match="last axis"):
        stats.cluster_bootstrap(SCORES, lambda means: np.asarray(means.mean()))
    with pytest.raises(DataError, match="confidence is 95"):
        stats.cluster_bootstrap(SCORES, mean, confidence=95)
    with pytest.raises(DataError, match="resamples is 0"):
        stats.paired_bootstrap(SCORES, SCORES, mean, resamples=0)
