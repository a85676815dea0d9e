"""The additive model, against the exact Gaussian posterior with an explicit intercept for each group, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from ropewalk.additive_model import (
    AMPLITUDES,
    JITTER,
    NOISE_GROWTH,
    NOISE_SHARE,
    PASSES,
    AdditiveModel,
    Posterior,
    _spread_within,
)

Array = NDArray[np.float64]

NODES = np.round(np.arange(0.7, 1.351, 0.05), 10)
LENGTH = 0.15
LAYERS = 3
GROUPINGS = {
    "groups of four": np.arange(60) // 4,
    "one group": np.zeros(60, dtype=int),
    "groups of one": np.arange(60),
    "mixed, out of order, any labels": np.random.default_rng(8).choice([-3, 0, 7, 1000], size=60),
}
every_grouping = pytest.mark.parametrize("groups", GROUPINGS.values(), ids=GROUPINGS.keys())


def drawn(count: int, layers: int = LAYERS, seed: int = 0) -> Array:
    return np.clip(1 + 0.1 * np.random.default_rng(seed).standard_normal((count, layers)), 0.7, 1.35)


def scored(factors: Array, groups: Array, seed: int = 1) -> Array:
    """A smooth landscape with a slope in every layer, an offset for each group and noise."""
    rng = np.random.default_rng(seed)
    labels = np.unique(groups, return_inverse=True)[1]
    level = (0.8 * (factors - 1) - 4 * (factors - 1) ** 2).sum(axis=1)
    return level + 0.1 * rng.standard_normal(labels.max() + 1)[labels] + 0.1 * rng.standard_normal(len(factors))


# The oracle ---------------------------------------------------------------------------------------------------------


def interpolation(factors: Array, nodes: Array) -> Array:
    """Hat functions of the nodes, [N, layers · nodes]."""
    hats = [np.interp(factors, nodes, unit) for unit in np.eye(len(nodes))]
    return np.stack(hats, axis=-1).reshape(len(factors), -1)


def prior(layers: int, nodes: Array, amplitude: float) -> Array:
    """Covariance of all functions at the nodes: a squared exponential, conditioned on 0 at factor 1."""
    points = np.append(nodes, 1.0)
    kernel = np.exp(-(((points[:, None] - points) / LENGTH) ** 2) / 2)
    conditioned = kernel[:-1, :-1] - np.outer(kernel[:-1, -1], kernel[-1, :-1]) / kernel[-1, -1]
    return np.kron(np.eye(layers), amplitude**2 * (conditioned + JITTER * np.eye(len(nodes))))


def exact(
    factors: Array, scores: Array, groups: Array, deviation: Array, noise: float, amplitude: float
) -> tuple[Array, Array, float]:
    """Mean and covariance of the functions, log marginal likelihood; by conditioning on N scores, nothing inverted."""
    labels = np.unique(groups, return_inverse=True)[1]
    functions, seen = prior(factors.shape[1], NODES, amplitude), interpolation(factors, NODES)
    intercepts = np.eye(labels.max() + 1)[labels]
    joint = np.block(
        [
            [functions, np.zeros((len(functions), intercepts.shape[1]))],
            [np.zeros((intercepts.shape[1], len(functions))), noise**2 * np.eye(intercepts.shape[1])],
        ]
    )
    design = np.hstack([seen, intercepts])
    covariance = design @ joint @ design.T + np.diag(deviation**2)
    gain = np.linalg.solve(covariance, design @ joint).T
    size = len(functions)
    evidence = stats.multivariate_normal(np.zeros(len(scores)), covariance).logpdf(scores)
    return (gain @ scores)[:size], (joint - gain @ design @ joint)[:size, :size], float(evidence)


def spread_by_loop(values: Array, groups: Array) -> float:
    gaps = [abs(value - np.median(values[groups == group])) for value, group in zip(values, groups, strict=True)]
    return 1.4826 * float(np.median([gap for gap in gaps if gap > 0]))


def exact_fit(factors: Array, scores: Array, groups: Array, noise: float) -> tuple[Array, Array]:
    """Mean and covariance of a whole fit: every pass with the noise of the last one's fitted values."""
    fitted = np.zeros(len(scores))
    for _ in range(PASSES):
        deviation = NOISE_SHARE * noise + NOISE_GROWTH * np.maximum(0, -fitted)
        found = [exact(factors, scores, groups, deviation, noise, noise * size) for size in AMPLITUDES]
        mean, covariance, _ = max(found, key=lambda one: one[2])
        fitted = interpolation(factors, NODES) @ mean
    return mean, covariance


def covariance_of(posterior: Posterior) -> Array:
    return np.linalg.inv(posterior.cholesky @ posterior.cholesky.T)


@every_grouping
def test_every_amplitudes_posterior_is_the_exact_one(groups: Array) -> None:
    """With the weights of one pass: mean, covariance, and the evidence up to what all amplitudes share."""
    factors = drawn(60)
    scores, model = scored(factors, groups), AdditiveModel(LAYERS, NODES, LENGTH)
    model.noise, fitted = 0.13, np.linspace(-0.5, 0.2, 60)
    labels = np.unique(groups, return_inverse=True)[1]
    deviation = NOISE_SHARE * 0.13 + NOISE_GROWTH * np.maximum(0, -fitted)
    features, none = model._features(factors), np.zeros((60, 0))
    information, projected = model._information(features, scores, none, labels, deviation**-2)
    found = model._posteriors(information, projected[:, 0])
    evidences = []
    for posterior, size in zip(found, AMPLITUDES, strict=True):
        mean, covariance, evidence = exact(factors, scores, groups, deviation, 0.13, 0.13 * size)
        np.testing.assert_allclose(posterior.mean, mean, atol=1e-6)
        np.testing.assert_allclose(covariance_of(posterior), covariance, atol=1e-6)
        evidences.append(evidence)
    own = np.array([posterior.evidence for posterior in found])
    np.testing.assert_allclose(own - own[0], np.array(evidences) - evidences[0], atol=1e-4)


@every_grouping
def test_a_whole_fit_is_the_exact_one(groups: Array) -> None:
    factors = drawn(60)
    scores, model = scored(factors, groups), AdditiveModel(LAYERS, NODES, LENGTH)
    model.fit(factors, scores, groups.tolist())
    alone = len(set(groups.tolist())) > 30
    assert model.noise == pytest.approx(spread_by_loop(scores, np.zeros(60) if alone else groups))
    mean, covariance = exact_fit(factors, scores, groups, model.noise)
    np.testing.assert_allclose(model.posterior.mean, mean, atol=1e-6)
    np.testing.assert_allclose(covariance_of(model.posterior), covariance, atol=1e-6)
    np.testing.assert_allclose(model.predict(factors), interpolation(factors, NODES) @ mean, atol=1e-6)
    cautious = (mean - 0.7 * np.sqrt(np.diag(covariance))).reshape(LAYERS, -1)
    assert model.best(0.7).tolist() == NODES[cautious.argmax(axis=1)].tolist()


def test_before_any_score_it_is_the_prior() -> None:
    model = AdditiveModel(LAYERS, NODES, LENGTH)
    assert model.posterior.mean.tolist() == [0.0] * LAYERS * len(NODES)
    np.testing.assert_allclose(covariance_of(model.posterior), prior(LAYERS, NODES, 1.0), atol=1e-5)
    assert model.best().tolist() == model.best(1.0).tolist() == [1.0] * LAYERS


def test_the_order_of_candidates_and_the_names_of_groups_change_nothing() -> None:
    factors, groups = drawn(60), np.arange(60) // 4
    scores = scored(factors, groups)
    one, other = (AdditiveModel(LAYERS, NODES, LENGTH) for _ in range(2))
    one.fit(factors, scores, groups.tolist())
    order = np.random.default_rng(3).permutation(60)
    other.fit(factors[order], scores[order], (100 - 7 * groups)[order].tolist())
    np.testing.assert_allclose(other.posterior.mean, one.posterior.mean, atol=1e-9)


# Draws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exploration", [0.5, 1.0, 2.0])
def test_a_draw_is_the_best_one_as_often_as_the_posterior_says(exploration: float) -> None:
    """Of two nodes the second one wins with the probability that the difference of two Gaussians is above 0."""
    nodes = np.array([1.0, 1.1])
    model = AdditiveModel(1, nodes, LENGTH)
    factors = np.repeat([[1.0], [1.1]], 3, axis=0)
    model.fit(factors, np.array([0.05, -0.1, 0.0, 0.15, -0.04, 0.0]), [0] * 6)
    contrast = np.array([-1.0, 1.0])
    deviation = exploration * math.sqrt(contrast @ covariance_of(model.posterior) @ contrast)
    expected = stats.norm.cdf(contrast @ model.posterior.mean / deviation)
    rng = np.random.default_rng(0)
    share = np.mean([model.sample(rng, exploration)[0] == 1.1 for _ in range(4000)])
    assert 0.5 < expected < 0.95
    assert share == pytest.approx(expected, abs=0.025)


def test_draws_know_that_functions_depend_on_each_other() -> None:
    """Two layers that were only ever changed together: where one is guessed to gain, the other is guessed to lose."""
    nodes = np.array([0.9, 1.0, 1.1])
    model = AdditiveModel(2, nodes, LENGTH)
    factors = np.resize([[0.9, 1.1], [1.0, 1.0], [1.1, 0.9]], (60, 2))
    model.fit(factors, np.repeat(np.resize([0.01, -0.01], 20), 3), [0] * 60)
    rng = np.random.default_rng(1)
    guesses = rng.multivariate_normal(model.posterior.mean, covariance_of(model.posterior), 20000)
    expected = np.bincount(guesses.reshape(-1, 2, 3).argmax(axis=2) @ [3, 1], minlength=9) / 20000
    draws = np.searchsorted(nodes, [model.sample(rng) for _ in range(5000)])
    np.testing.assert_allclose(np.bincount(draws @ [3, 1], minlength=9) / 5000, expected, atol=0.03)
    assert expected[[0, 8]].sum() > 1.3 * expected[[2, 6]].sum()  # changed in the same direction, against each other


def test_draws_come_from_the_generator_and_without_exploration_are_the_optimum() -> None:
    factors, groups = drawn(60), np.arange(60) // 4
    model = AdditiveModel(LAYERS, NODES, LENGTH)
    model.fit(factors, scored(factors, groups), groups.tolist())
    draws = [[model.sample(np.random.default_rng(seed)).tolist() for _ in range(2)] for seed in range(20)]
    assert all(one == other for one, other in draws)
    assert len({tuple(one) for one, _ in draws}) > 5
    assert {factor for one, _ in draws for factor in one} <= set(NODES.tolist())
    assert model.sample(np.random.default_rng(0), 0.0).tolist() == model.best().tolist()


# Interpolation and grids --------------------------------------------------------------------------------------------


def test_prediction_is_exact_at_nodes_linear_between_and_0_at_the_identity() -> None:
    factors, groups = drawn(60), np.arange(60) // 4
    model = AdditiveModel(LAYERS, NODES, LENGTH)
    model.fit(factors, scored(factors, groups), groups.tolist())
    functions = model.posterior.mean.reshape(LAYERS, -1)
    corners = np.array([NODES[[0, 5, 13]], NODES[[1, 13, 0]]])
    sums = [functions[range(LAYERS), places].sum() for places in ([0, 5, 13], [1, 13, 0])]
    np.testing.assert_allclose(model.predict(corners), sums, rtol=1e-12)
    blend = model.predict(np.array([[0.7 + 0.3 * 0.05] * LAYERS]))  # three tenths of the way between two nodes
    np.testing.assert_allclose(blend, [0.7 * functions[:, 0].sum() + 0.3 * functions[:, 1].sum()], rtol=1e-9)
    outside = model.predict(np.array([[0.1] * LAYERS, [9.0] * LAYERS]))
    np.testing.assert_allclose(outside, functions[:, [0, -1]].sum(axis=0), rtol=1e-12)
    assert abs(model.predict(np.ones((1, LAYERS)))[0]) < 10 * math.sqrt(JITTER) * model.noise


@pytest.mark.parametrize("nodes", [[1.0], [1.0, 1.05], [0.95, 1.0]])
def test_grids_of_one_and_two_nodes(nodes: list[float]) -> None:
    model = AdditiveModel(2, np.array(nodes), LENGTH)
    factors = np.random.default_rng(0).uniform(min(nodes), max(nodes), (40, 2))
    slope = 1.0 if max(nodes) > 1 else -1.0
    model.fit(factors, slope * (factors - 1).sum(axis=1), [0, 1] * 20)
    other = next((node for node in nodes if node != 1), 1.0)
    assert model.best().tolist() == [other, other]
    expected = 2 * abs(other - 1)
    assert model.predict(np.full((1, 2), other))[0] == pytest.approx(expected, abs=0.3 * expected + 1e-4)
    assert set(model.sample(np.random.default_rng(0)).tolist()) <= set(nodes)


@pytest.mark.parametrize("length", [1e-3, 0.6, 5.0, 1e6])
@pytest.mark.parametrize("step", [0.05, 0.002])
def test_any_smoothness_and_step_has_a_posterior(length: float, step: float) -> None:
    nodes = np.round(1 + step * np.arange(-round(0.3 / step), round(0.35 / step) + 1), 10)
    model = AdditiveModel(1, nodes, length)
    factors = drawn(100, 1)
    model.fit(factors, -((factors[:, 0] - 1.1) ** 2), (np.arange(100) // 10).tolist())
    assert np.isfinite(model.posterior.mean).all()
    assert np.isfinite(model.posterior.evidence)
    assert 0.7 <= model.best(1.0)[0] <= 1.35


# Scores as they come ------------------------------------------------------------------------------------------------

FACTORS = drawn(40)
SLOPE = (FACTORS - 1).sum(axis=1)
AWKWARD = {
    "all 0": np.zeros(40),
    "constant": np.full(40, -0.3),
    "constant but for one": np.append(np.zeros(39), -1.0),
    "tiny": 1e-200 * SLOPE,
    "equal but for rounding": 0.3 + 1e-17 * SLOPE + np.resize([0.0, 5.6e-17], 40),
    "huge outliers": np.where(FACTORS[:, 0] < 0.95, -1e9, 0.1 * SLOPE),
    "huge": 1e12 * SLOPE,
    "whole numbers": np.round(SLOPE),
    "every second failed": np.where(np.arange(40) % 2 == 0, math.nan, SLOPE),
    "infinite": np.where(FACTORS[:, 0] < 0.9, -math.inf, SLOPE),
    "two": np.append([0.1, -0.2], np.full(38, math.nan)),
}


@pytest.mark.parametrize("groups", [np.arange(40) // 4, np.zeros(40, dtype=int), np.arange(40)], ids=["4", "40", "1"])
@pytest.mark.parametrize("scores", AWKWARD.values(), ids=AWKWARD.keys())
def test_nothing_breaks(scores: Array, groups: Array) -> None:
    model = AdditiveModel(LAYERS, NODES, LENGTH)
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        for _ in range(3):
            model.fit(FACTORS, scores, groups.tolist())
    assert model.noise > 0
    assert np.isfinite(model.predict(FACTORS)).all()
    for proposal in (model.best(), model.best(1.0), model.sample(np.random.default_rng(0), 0.5)):
        assert set(proposal.tolist()) <= set(NODES.tolist())


@pytest.mark.parametrize("scores", [[math.nan] * 4, [0.3, math.nan, math.inf, math.nan]])
def test_from_fewer_than_two_scores_nothing_is_learnt(scores: list[float]) -> None:
    model = AdditiveModel(LAYERS, NODES, LENGTH)
    model.fit(FACTORS[:4], np.array(scores), [0, 0, 1, 1])
    assert model.noise == 0
    assert model.predict(FACTORS).tolist() == [0.0] * 40
    assert model.best().tolist() == [1.0] * LAYERS


def test_failed_scores_are_as_if_they_had_never_been() -> None:
    groups = np.arange(40) // 4
    scores = scored(FACTORS, groups)
    failed = np.arange(40) % 3 == 0
    one, other = (AdditiveModel(LAYERS, NODES, LENGTH) for _ in range(2))
    one.fit(FACTORS, np.where(failed, math.nan, scores), groups.tolist())
    other.fit(FACTORS[~failed], scores[~failed], groups[~failed].tolist())
    assert one.posterior.mean.tolist() == other.posterior.mean.tolist()


def test_equal_scores_of_0_favour_the_model_as_it_is() -> None:
    model = AdditiveModel(LAYERS, NODES, LENGTH)
    model.fit(FACTORS, np.zeros(40), [0] * 40)
    assert model.best().tolist() == [1.0] * LAYERS


@pytest.mark.parametrize("scale", [1e-6, 0.37, 2.0, 1e6])
def test_the_unit_of_the_scores_changes_nothing(scale: float) -> None:
    """Noise, amplitudes and the noise's growth all go with it: predictions are scaled but for rounding (1e-9)."""
    groups = np.arange(40) // 4
    scores = scored(FACTORS, groups)
    one, other = (AdditiveModel(LAYERS, NODES, LENGTH) for _ in range(2))
    one.fit(FACTORS, scores, groups.tolist())
    other.fit(FACTORS, scale * scores, groups.tolist())
    expected = scale * one.predict(FACTORS)
    np.testing.assert_allclose(other.predict(FACTORS), expected, atol=1e-9 * np.abs(expected).max())
    for caution in (0.0, 0.5, 1.0):
        assert other.best(caution).tolist() == one.best(caution).tolist()


@every_grouping
def test_the_noise_is_the_spread_within_groups(groups: Array) -> None:
    values = scored(drawn(60), groups)
    labels = np.unique(groups, return_inverse=True)[1]
    alone = labels.max() + 1 > 30
    assert _spread_within(values, labels) == pytest.approx(spread_by_loop(values, np.zeros(60) if alone else labels))
    shifted = values + (0 if alone else 5.0 * labels)  # the groups' own levels are no noise
    assert _spread_within(shifted, labels) == pytest.approx(_spread_within(values, labels))


# What it finds ------------------------------------------------------------------------------------------------------

PEAKS = np.array([0.9, 1.15, 1.0, 1.1, 0.85, 1.2])


def landscape(factors: Array) -> Array:
    """Additive, 0 at factors of 1; below 0.95 the fourth layer spoils everything."""
    smooth = (8 * ((PEAKS - 1) ** 2 - (factors - PEAKS) ** 2)).sum(axis=-1)
    return smooth - 4 * np.clip((0.97 - factors[..., 3]) / 0.04, 0, 1)


def learnt(seed: int, count: int = 1500) -> AdditiveModel:
    """From single noisy scores, sixteen to a shared offset; the noise grows with the loss."""
    rng = np.random.default_rng(seed)
    factors = rng.uniform(0.75, 1.3, (count, 6))
    groups, level = np.arange(count) // 16, landscape(factors)
    noise = (0.25 + 0.5 * np.maximum(0, -level)) * rng.standard_normal(count)
    model = AdditiveModel(6, NODES, LENGTH)
    model.fit(factors, level + noise + 0.3 * rng.standard_normal(groups.max() + 1)[groups], groups.tolist())
    return model


@pytest.mark.parametrize("seed", range(3))
def test_it_recovers_an_additive_landscape_with_a_cliff(seed: int) -> None:
    model = learnt(seed)
    probes = drawn(500, 6, 99)
    safe = probes[:, 3] > 1
    assert np.corrcoef(model.predict(probes)[safe], landscape(probes)[safe])[0, 1] > 0.85
    assert model.predict(probes[probes[:, 3] < 0.93]).max() < -1.2
    assert landscape(model.best(0.5)) > 0.4 * landscape(PEAKS)
    for caution in (0.0, 1.0):
        assert landscape(model.best(caution)) > 0  # the model as it is


def test_caution_moves_towards_1() -> None:
    model = learnt(0, 300)
    distances = [float(np.abs(model.best(caution) - 1).sum()) for caution in (0.0, 0.5, 1.0, 2.0, 100.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > distances[2] > distances[-1] == 0


@pytest.mark.parametrize("seed", range(3))
def test_one_catastrophic_layer_does_not_hide_what_the_others_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = drawn(600, 6, 50 + seed)
    scores = landscape(factors) + 0.1 * rng.standard_normal(600)
    scores[factors[:, 3] < 0.97] -= 10
    model = AdditiveModel(6, NODES, LENGTH)
    model.fit(factors, scores, (np.arange(600) // 16).tolist())
    assert model.best()[3] >= 1
    assert landscape(model.best(0.5)) > 0  # the model as it is


# Limits -------------------------------------------------------------------------------------------------------------


def lossy(factors: Array, groups: Array, seed: int = 5) -> Array:
    """What two constraints lose, [N, 2], with noise: the first all that the score gains by factors above 1."""
    rng = np.random.default_rng(seed)
    up = np.clip(factors - 1, 0, None).sum(axis=1)
    return np.column_stack([up, -up]) + 0.05 * rng.standard_normal((len(factors), 2))


@every_grouping
def test_losses_are_learnt_as_the_score_is(groups: Array) -> None:
    """Exactly as a model would whose score they are, with that model's weights and amplitude."""
    factors = drawn(60)
    scores = scored(factors, groups)
    model, twin = AdditiveModel(LAYERS, NODES, LENGTH), AdditiveModel(LAYERS, NODES, LENGTH)
    model.fit(factors, scores, groups.tolist(), np.column_stack([scores, 3 * scores]), [0.05, 0.3])
    twin.fit(factors, scores, groups.tolist())
    np.testing.assert_allclose(model.posterior.mean, twin.posterior.mean, atol=1e-9)
    assert model.predict(model.best()[None])[0] <= 0.05 + 1e-6 < twin.predict(twin.best()[None])[0]


def test_the_optimum_is_expected_to_keep_its_limits() -> None:
    factors = drawn(400)
    groups = np.arange(400) // 8
    scores, losses = scored(factors, groups), lossy(factors, groups)
    free, bound = AdditiveModel(LAYERS, NODES, LENGTH), AdditiveModel(LAYERS, NODES, LENGTH)
    free.fit(factors, scores, groups.tolist())
    bound.fit(factors, scores, groups.tolist(), losses, [0.1, 1.0])
    assert free.best().sum() - LAYERS > 0.2  # it goes up in every layer
    assert 0.02 < bound.best().sum() - LAYERS < 0.15
    samples = [model.sample(np.random.default_rng(0), 0.3).sum() - LAYERS for model in (free, bound)]
    assert samples[1] < samples[0]
    assert bound.best(1.0).sum() < free.best(1.0).sum()


def test_limits_that_do_not_bind_change_nothing() -> None:
    factors = drawn(200)
    groups = np.arange(200) // 8
    scores = scored(factors, groups)
    free, bound = AdditiveModel(LAYERS, NODES, LENGTH), AdditiveModel(LAYERS, NODES, LENGTH)
    free.fit(factors, scores, groups.tolist())
    bound.fit(factors, scores, groups.tolist(), lossy(factors, groups), [9.0, 9.0])
    for caution in (0.0, 0.5):
        np.testing.assert_array_equal(free.best(caution), bound.best(caution))


def test_a_candidate_whose_losses_are_unknown_is_left_out() -> None:
    factors = drawn(60)
    groups = np.arange(60) // 4
    scores, losses = scored(factors, groups), lossy(factors, groups)
    model, twin = AdditiveModel(LAYERS, NODES, LENGTH), AdditiveModel(LAYERS, NODES, LENGTH)
    losses[7] = math.nan
    known = np.arange(60) != 7
    model.fit(factors, scores, groups.tolist(), losses, [0.1, 1.0])
    twin.fit(factors[known], scores[known], groups[known].tolist(), losses[known], [0.1, 1.0])
    np.testing.assert_array_equal(model.posterior.mean, twin.posterior.mean)
    np.testing.assert_array_equal(model.best(), twin.best())
