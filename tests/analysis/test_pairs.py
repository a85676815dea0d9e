"""Factors on some rotary pairs: the formula in float64, and all pairs are what `apply` gives, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ropewalk.analysis.parts.pairs import PairwiseRotary, pairs_scaled, rotary_frequencies
from ropewalk.errors import FactorsError
from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors
from ropewalk.layers import rotary_sites
from ropewalk.patch import apply, factors_of, patched, remove
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from tiny import logits, prompt, tiny_model

FACTORS = ScalingFactors([0.8, 1.2, 1.0, 1.1])
NEVER = 1e-9  # of a wavelength: every pair turns less than once in it
SCALED: dict[str, Any] = {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0}}
DYNAMIC: dict[str, Any] = {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", SCALED),
    ("llama", DYNAMIC | {"max_position_embeddings": 64}),  # shorter than the prompt
    ("gemma3_text", {"head_dim": 16}),  # a base for each layer type
    ("cohere", {}),  # columns of a pair beside each other
    ("glm", {"head_dim": 16}),  # half of the head only
    ("gpt_neox", {}),
]

LONG = prompt(2, 80)

each_model = pytest.mark.parametrize(("kind", "config"), MODELS)


@each_model
def test_all_pairs_are_what_apply_gives_and_none_is_the_model_as_it_is(kind: str, config: dict[str, Any]) -> None:
    model = tiny_model(kind, **config)
    vanilla = logits(model, LONG)
    with patched(model, FACTORS):
        whole = logits(model, LONG)
    with pairs_scaled(model, FACTORS, "slow", NEVER):
        assert torch.equal(logits(model, LONG), whole)
    with pairs_scaled(model, FACTORS, "fast", NEVER):
        assert torch.equal(logits(model, LONG), vanilla)
    with pairs_scaled(model, FACTORS, "slow", 30.0):
        some = logits(model, LONG)
    assert not torch.equal(some, whole)
    assert not torch.equal(some, vanilla)
    assert torch.equal(logits(model, LONG), vanilla)


@pytest.mark.parametrize("pairs", ["slow", "fast"])
def test_the_tables_are_those_of_the_formula(pairs: Any) -> None:
    model = tiny_model("llama")
    (site,) = rotary_sites(model)
    rotary = PairwiseRotary(site.module, 4, None, pairs, 50.0)
    rotary.set_factors(FACTORS.values)
    positions = np.arange(0, 4000, 7)
    tables = rotary(torch.empty(0, dtype=torch.float32), torch.tensor(positions)[None])
    theta = 10_000.0 ** (-np.arange(8) / 8)
    slow = 2 * np.pi / theta > 50.0
    assert 0 < slow.sum() < 8
    chosen = slow if pairs == "slow" else ~slow
    for layer, factor in enumerate(FACTORS):
        angles = np.where(chosen, positions[:, None] / float(factor or 1), positions[:, None]) * theta
        angles = np.concatenate([angles, angles], axis=1)
        cos, sin = tables[layer]
        tolerance = 4 * np.finfo(np.float32).eps * positions.max()
        np.testing.assert_allclose(cos[0].double(), np.cos(angles), atol=tolerance)
        np.testing.assert_allclose(sin[0].double(), np.sin(angles), atol=tolerance)


def test_frequencies_are_those_of_the_base() -> None:
    np.testing.assert_allclose(rotary_frequencies(tiny_model("llama")), 10_000.0 ** (-np.arange(8) / 8), rtol=1e-6)


def test_factors_that_were_applied_are_back_afterwards_and_no_others_go_in() -> None:
    model = tiny_model("llama")
    apply(model, FACTORS)
    before = logits(model)
    with pairs_scaled(model, ScalingFactors([1.3, 1.0, 1.0, 1.0]), "slow", 30.0):
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)
    assert factors_of(model) == FACTORS
    remove(model)
    with pytest.raises(FactorsError), pairs_scaled(model, ScalingFactors([1.1]), "slow", 30.0):
        raise AssertionError("factors of another model")


def test_an_evaluator_by_the_models_forward_scores_what_is_in_place(loaded: tuple[Any, Any]) -> None:
    """The check that keeps a figure honest: all pairs chosen scores as the factors themselves do."""
    model, tokenizer = loaded
    task = make_task("kv", TaskOptions(positions=2, keys=3, limit=2))
    evaluator = Evaluator(model, tokenizer, task, task.examples("test"), chat_template=False, own_loop=False)
    vanilla, whole = evaluator.score(None), evaluator.score(FACTORS)
    with pairs_scaled(model, FACTORS, "slow", NEVER):
        same = evaluator.score(None)
    with pairs_scaled(model, FACTORS, "slow", 30.0):
        some = evaluator.score(None)
    np.testing.assert_array_equal(same.log_likelihoods, whole.log_likelihoods)
    assert (some.log_likelihoods != whole.log_likelihoods).any()
    assert (some.log_likelihoods != vanilla.log_likelihoods).any()


@pytest.mark.slow
def test_a_real_models_pairs_are_those_of_its_base_and_all_of_them_are_what_apply_gives(
    demo_model_and_tokenizer: tuple[Any, Any],
) -> None:
    model, tokenizer = demo_model_and_tokenizer
    ids = torch.tensor([tokenizer("one two three four five six seven eight " * 30)["input_ids"]])
    factors = ScalingFactors(1.0 + 0.01 * (layer % 7 - 3) for layer in range(30))
    np.testing.assert_allclose(rotary_frequencies(model), 1e5 ** (-np.arange(32) / 32), rtol=1e-6)
    vanilla = logits(model, ids)
    with patched(model, factors):
        whole = logits(model, ids)
    with pairs_scaled(model, factors, "slow", NEVER):
        assert torch.equal(logits(model, ids), whole)
    with pairs_scaled(model, factors, "fast", NEVER):
        assert torch.equal(logits(model, ids), vanilla)
    with pairs_scaled(model, factors, "slow", 241.0):
        assert not torch.equal(logits(model, ids), whole)
    assert torch.equal(logits(model, ids), vanilla)
