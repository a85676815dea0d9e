"""Effects: those of the statistics they are made of, Holm over arms, and the words for too few records."""

from __future__ import annotations

import numpy as np
import pytest

from ropewalk.analysis.parts.effects import difference, direction, effect, pooled, size, too_few, with_holm
from ropewalk.comparison import compare
from ropewalk.errors import DataError
from ropewalk.results import TaskResult


def result(seed: int, records: int = 12) -> TaskResult:
    draw = np.random.default_rng(seed)
    return TaskResult(
        task={},
        positions=(0, 4, 9),
        records=tuple(f"record {number}" for number in range(records)),
        scores=draw.integers(0, 2, size=(records, 3)).astype(float),
        log_likelihoods=draw.normal(size=(records, 3)),
        margins=np.zeros((records, 3)),
        answer_tokens=np.ones((records, 3), dtype=int),
    )


def test_an_effect_is_that_of_the_paired_comparison() -> None:
    one, other = result(0), result(1)
    found, compared = effect(one, other), compare(one, other)
    for name, key in (("likelihood", "utilisation_log_likelihood"), ("accuracy", "utilisation")):
        assert found[name]["difference"] == pytest.approx(compared[key]["difference"])
        assert found[name]["p"] == pytest.approx(compared[key]["p"], abs=0.02)
        assert found[name]["low"] == pytest.approx(compared[key]["low"], abs=0.02)
    for row, expected in zip(found["by_position"], compared["log_likelihood"], strict=True):
        assert row == pytest.approx(expected, abs=0.02)


def test_what_is_not_finite_is_no_number() -> None:
    one, other = result(0), result(1)
    other.log_likelihoods[0, 0] = np.nan
    found = effect(one, other)
    assert found["likelihood"]["difference"] is found["by_position"][0]["p"] is None
    assert found["by_position"][1]["difference"] is not None
    assert size(found["likelihood"]) == "a number that is not finite"
    assert direction(found["likelihood"]) == 0
    assert with_holm({"a": found})["a"]["likelihood"] == found["likelihood"]


def test_p_values_are_corrected_over_the_arms() -> None:
    gaps = np.random.default_rng(0).normal(0.4, 1, size=30)
    arms = {
        name: {"likelihood": difference(gaps + shift), "accuracy": difference(gaps), "by_position": []}
        for name, shift in (("a", 0.0), ("b", 1.0), ("c", -0.4))
    }
    found = with_holm(arms)
    raw = sorted((row["likelihood"]["p"], name) for name, row in arms.items())
    expected, least = {}, 0.0
    for place, (p, name) in enumerate(raw):
        least = max(least, min(1.0, p * (3 - place)))
        expected[name] = least
    assert {name: row["likelihood"]["p_holm"] for name, row in found.items()} == pytest.approx(expected)
    assert "p_holm" not in arms["a"]["likelihood"]
    assert direction(found["b"]["likelihood"]) == 1


def test_a_mean_over_tasks_resamples_each_by_itself() -> None:
    draw = np.random.default_rng(0)
    gaps = [draw.normal(1, 0.1, size=40), draw.normal(3, 0.2, size=60)]
    found = pooled(gaps)
    assert found["difference"] == pytest.approx((gaps[0].mean() + gaps[1].mean()) / 2)
    error = np.sqrt(gaps[0].var() / 40 + gaps[1].var() / 60) / 2
    assert found["high"] - found["low"] == pytest.approx(2 * 2.02 * error, rel=0.1)
    assert pooled([np.array([1.0, np.inf])])["difference"] is None


@pytest.mark.parametrize(("tests", "needed"), [(1, 6), (6, 8), (36, 11), (100, 12)])
def test_the_records_that_are_said_to_be_enough_are_and_one_less_is_not(tests: int, needed: int) -> None:
    assert too_few(needed, tests) == []
    (warning,) = too_few(needed - 1, tests)
    assert f"at least {needed} records" in warning
    assert tests * difference(np.ones(needed) + np.arange(needed) / 100)["p"] < 0.05
    assert min(1.0, tests * difference(np.ones(needed - 1) + np.arange(needed - 1) / 100)["p"]) >= 0.05


def test_other_examples_are_refused() -> None:
    with pytest.raises(DataError, match="different examples"):
        effect(result(0), result(1, records=11))
