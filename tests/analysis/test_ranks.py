"""Rank correlations against scipy's, and permutation p-values that keep their level."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from ropewalk.analysis.parts import ranks
from ropewalk.analysis.parts.ranks import correlation, in_words, permutation_p, spearman


def test_spearman_is_scipys_with_ties() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(20, 11)).round(0), generator.normal(size=(20, 11)).round(1)
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(spearman(x, y), expected, rtol=1e-12)
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_the_p_value_is_near_that_of_all_orders() -> None:
    x, y = np.array([1.0, 2, 3, 4, 5, 6]), np.array([2.0, 1, 4, 3, 6, 5])
    observed = abs(spearman(x, y))
    every = [abs(spearman(x, np.array(order))) >= observed - 1e-12 for order in itertools.permutations(y)]
    assert permutation_p(x, y) == pytest.approx(np.mean(every), abs=0.01)
    assert permutation_p(x, x) < permutation_p(x, y)


def test_the_p_value_keeps_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "PERMUTATIONS", 300)
    generator = np.random.default_rng(2)
    drawn = [permutation_p(generator.normal(size=12), generator.normal(size=12)) for _ in range(300)]
    assert np.mean(np.array(drawn) <= 0.05) < 0.09


def test_the_interval_is_over_records() -> None:
    """Layers that keep their order in every record leave no doubt over records; noise in the records does."""
    generator = np.random.default_rng(3)
    order, factors = np.arange(10.0), np.arange(10.0) + np.array([0, 3, 0, 0, -3, 0, 0, 0, 0, 0])
    steady = correlation(np.tile(order, (6, 1)), np.tile(factors, (6, 1)))
    assert steady["low"] == pytest.approx(steady["high"]) == pytest.approx(steady["rho"])
    noisy = correlation(order + 8 * generator.normal(size=(6, 10)), np.tile(factors, (6, 1)))
    assert noisy["low"] < noisy["rho"] < noisy["high"]
    assert "permutation p over layers" in in_words(noisy)


def test_a_constant_or_broken_side_has_no_correlation() -> None:
    x = np.random.default_rng(0).normal(size=(4, 5))
    for other in (np.ones((4, 5)), np.where(np.arange(5) == 2, np.nan, x)):
        found = correlation(x, other)
        assert set(found.values()) == {None}
        assert in_words(found).startswith("no rank correlation")
