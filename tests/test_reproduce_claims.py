"""benchmarks/reproduce/claims.py: pairs by seed, Student's interval, verdicts that need Holm's p."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reproduce_scripts import reproduce_script


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    return reproduce_script("claims")


def runs(arm: str, gains: dict[int, float]) -> list[dict[str, Any]]:
    head = {"model": "a", "keys": 5, "budget": 100, "arm": arm}
    kinds = ("likelihood_gain", "accuracy_gain", "worst_gain")
    return [head | {"seed": seed} | {kind: {"difference": gain} for kind in kinds} for seed, gain in gains.items()]


def test_arms_are_paired_by_seed(claims: ModuleType) -> None:
    ours, theirs = {0: 0.03, 1: 0.031, 2: 0.029, 3: 0.2}, {2: 0.01, 1: 0.009, 0: 0.0105}
    row = next(one for one in claims.compared(runs("default", ours) + runs("uniform", theirs)))
    expected = stats.ttest_rel([ours[seed] for seed in range(3)], [theirs[seed] for seed in range(3)])
    assert row["seeds"] == 3
    assert row["p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["spread"] == pytest.approx(np.std(list(ours.values()), ddof=1))
    assert claims.verdict(row) == "confirmed"


def test_the_reverse_is_refuted_and_noise_is_not_decided(claims: ModuleType) -> None:
    (row,) = claims.compared(
        runs("default", {0: 0.01, 1: 0.0101, 2: 0.0099}) + runs("uniform", dict.fromkeys(range(3), 0.03))
    )
    assert claims.verdict(row) == "refuted"
    (row,) = claims.compared(runs("default", {0: 0.01, 1: 0.05}) + runs("uniform", {0: 0.03, 1: 0.01}))
    assert claims.verdict(row) == "not decided"
    (row,) = claims.compared(runs("default", {0: 0.01}) + runs("uniform", {0: 0.03}))
    assert claims.verdict(row) == "one seed: not decided"
    assert "one seed" in claims.tables(runs("default", {0: 0.01}) + runs("uniform", {0: 0.03}))


def test_every_claim_names_arms_that_are_run(claims: ModuleType) -> None:
    from search_arms import ARMS, CLAIMS

    named = {arm for claim in claims.CLAIMS for arm in (claim.one, claim.other)}
    assert named == set(CLAIMS)
    assert named <= set(ARMS)
    assert all(arm.objective for arm in ARMS.values())
