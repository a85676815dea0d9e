"""`Scorer` as a whole: the model is left as it was, progress adds up, and odd models and prompts are scored right."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ropewalk.engine import scorer as scorer_module
from ropewalk.engine.generation import Request
from ropewalk.engine.layer_loop import LayerLoop
from ropewalk.engine.scorer import Scorer, evaluation_mode
from ropewalk.engine.self_check import difference_from_forward, tolerance
from ropewalk.errors import DataError, FactorsError, UnsupportedModelError
from ropewalk.factors import ScalingFactors
from ropewalk.patch import apply, factors_of
from ropewalk.prompts import PromptRenderer, RenderedPrompt
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, TaskOptions
from scored_prompts import TinyTokenizer, assert_equal_scores, oracles, prompt_of_length, prompts_of_records
from tiny import logits, prompt, tiny_model

FACTORS = ScalingFactors([1.2, 0.9, 0.95, 1.1])
OTHER = ScalingFactors.uniform(1.3, 4)
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
ALL = Request(8, (), frozenset())


def any_prompts(seed: int) -> list[RenderedPrompt]:
    """2 to 256 tokens, scored from anywhere on, with a closing or without."""
    draw = random.Random(seed)
    lengths = [2, 2, 3, 256, 255, 64, 65, *(draw.randint(2, 256) for _ in range(8))]
    found = []
    for length in lengths:
        ids = tuple(draw.randint(3, 127) for _ in range(length))
        first = draw.choice([1, length - 1, draw.randint(1, length - 1)])
        found.append(RenderedPrompt(Example("r@0", "r", 0, (), ()), ids, first, draw.choice(["", '"'])))
    return found


@pytest.mark.parametrize(
    ("model_type", "config"), [("llama", {}), ("gemma3_text", {"head_dim": 16, "sliding_window": 16})]
)
def test_any_lengths_and_spans_in_one_call(model_type: str, config: dict[str, Any]) -> None:
    model = tiny_model(model_type, **config).double()
    prompts = [*any_prompts(0), *prompts_of_records(1)]
    scorer = Scorer(model, TinyTokenizer(), prompts, 600)
    found = scorer.score([None, FACTORS, None])
    assert scorer.reason is None
    assert found[0] == found[2]
    for own, expected in zip(found, oracles(model, prompts, [None, FACTORS]), strict=False):
        assert_equal_scores(own, expected, 1e-9)


@pytest.mark.parametrize("tokens", [1, 50, 400, 10_000, None])
def test_the_size_of_batches_changes_no_score(tokens: int | None) -> None:
    model = tiny_model().double()
    prompts = [*prompts_of_records(2), prompt_of_length(12), prompt_of_length(120)]
    expected = oracles(model, prompts, [None, FACTORS])
    found = Scorer(model, TinyTokenizer(), prompts, tokens).score([None, FACTORS])
    for own, wanted in zip(found, expected, strict=True):
        assert_equal_scores(own, wanted, 1e-9)


@pytest.mark.parametrize("own_loop", [True, False])
def test_two_calls_give_the_same_bits(own_loop: bool) -> None:
    model = tiny_model(max_position_embeddings=64, rope_parameters=DYNAMIC)
    scorer = Scorer(model, TinyTokenizer(), any_prompts(1), 400, own_loop=own_loop)
    once = scorer.score([None, FACTORS])
    assert scorer.score([None, FACTORS]) == once
    scorer.score([OTHER])
    assert scorer.score([None, FACTORS]) == once
    assert scorer.reason == (None if own_loop else "it was asked for")


def test_a_model_in_training_is_scored_without_dropout_and_stays_as_it_was() -> None:
    model: Any = tiny_model(attention_dropout=0.5)
    expected = Scorer(model, TinyTokenizer(), prompts_of_records(1)).score([None, FACTORS])
    model.train()
    model.model.layers[1].eval()
    before = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    assert Scorer(model, TinyTokenizer(), prompts_of_records(1)).score([None, FACTORS]) == expected
    assert [module.training for module in model.modules()] == before
    assert [parameter.requires_grad for parameter in model.parameters()] == gradients
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("own_loop", [True, False])
@pytest.mark.parametrize("carried", [None, OTHER])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_is_left_as_it_was(own_loop: bool, carried: ScalingFactors | None, dtype: torch.dtype) -> None:
    """Also its rotary base: dynamic NTK keeps the base of the longest prompt it has met."""
    model: Any = tiny_model(max_position_embeddings=64, rope_parameters=DYNAMIC).to(dtype)
    if carried is not None:
        apply(model, carried)
    fresh = copy.deepcopy(model)
    config, generation_config = model.config.to_dict(), model.generation_config
    scorer = Scorer(model, TinyTokenizer(), [*prompts_of_records(1), prompt_of_length(200)], own_loop=own_loop)
    scorer.score([None, FACTORS])
    scorer.generate([list(prompt_of_length(90).ids)], ALL, FACTORS)
    assert model.config.to_dict() == config
    assert model.generation_config is generation_config
    assert factors_of(model) == carried
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in fresh.modules()]
    for ids in (prompt(tokens=100), prompt(tokens=70)):  # the second one keeps the base of the first
        assert torch.equal(logits(model, ids), logits(fresh, ids))


def test_carried_factors_change_no_score() -> None:
    model = tiny_model()
    clean = Scorer(model, TinyTokenizer(), prompts_of_records(1)).score([None, FACTORS])
    apply(model, OTHER)
    assert Scorer(model, TinyTokenizer(), prompts_of_records(1)).score([None, FACTORS]) == clean


@pytest.mark.parametrize("own_loop", [True, False])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_of_16_bits_are_scored_as_float64_would(own_loop: bool, bias: bool, dtype: torch.dtype) -> None:
    """Within rounding; margins are never zero, for the head computes in float32."""
    model: Any = tiny_model().to(dtype)
    if bias:
        model.lm_head = torch.nn.Linear(64, 128, bias=True).to(dtype)
    prompts = [*prompts_of_records(2), *any_prompts(2)]
    scorer = Scorer(model, TinyTokenizer(), prompts, own_loop=own_loop)
    (found,) = scorer.score([None])
    assert (scorer.reason is None) is own_loop
    (expected,) = oracles(model, prompts, [None], dtype)
    gaps = [abs(one.log_likelihood - other.log_likelihood) for one, other in zip(found, expected, strict=True)]
    assert max(gaps) < tolerance(dtype)
    assert all(one.margin > 0 for one in found)


@pytest.mark.parametrize("own_loop", [True, False])
def test_progress_names_every_prompt_once_for_each_candidate(own_loop: bool) -> None:
    model = tiny_model()
    done: list[int] = []
    candidates = [None, FACTORS, OTHER, FACTORS]
    scorer = Scorer(model, TinyTokenizer(), any_prompts(3), 300, own_loop=own_loop)
    scorer.score(candidates, lambda numbers, count: done.extend(list(numbers) * count))
    assert sorted(done) == sorted(list(range(len(any_prompts(3)))) * len(candidates))


def test_no_prompts_are_refused() -> None:
    with pytest.raises(DataError, match="no prompts to score"):
        Scorer(tiny_model(), TinyTokenizer(), [])


def test_no_candidates_give_no_scores() -> None:
    assert Scorer(tiny_model(), TinyTokenizer(), prompts_of_records(1)).score([]) == []


def test_factors_of_another_model_are_refused_before_anything_is_scored() -> None:
    scorer = Scorer(tiny_model(), TinyTokenizer(), prompts_of_records(1))
    done: list[object] = []
    with pytest.raises(FactorsError, match="5"):
        scorer.score([None, ScalingFactors.uniform(1.2, 5)], lambda *call: done.append(call))
    assert done == []
    with pytest.raises(UnsupportedModelError, match="no rotary position to scale"):
        Scorer(tiny_model("gpt2"), TinyTokenizer(), prompts_of_records(1)).score([None, OTHER])


def test_compiling_is_for_much_work_on_a_gpu_alone() -> None:
    scorer = Scorer(tiny_model(), TinyTokenizer(), prompts_of_records(1), candidates=10**15)
    assert not scorer._compiled
    scorer.device = torch.device("cuda")
    assert scorer._pays(10**15)
    assert not scorer._pays(1)


def test_modes_are_back_after_an_error() -> None:
    model: Any = tiny_model().train()
    model.model.norm.eval()
    before = [module.training for module in model.modules()]

    def interrupted() -> None:
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [module.training for module in model.modules()] == before


def test_the_real_models_loop_and_forward_agree(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    """SmolLM2 in its own dtype: the check's tolerance holds for every prompt, verdicts differ in near ties only."""
    model, tokenizer = demo_model_and_tokenizer
    renderer = PromptRenderer(tokenizer, chat_template=False)
    task = make_task("kv", TaskOptions(keys=4, positions=4, limit=1))
    prompts = [renderer.render(example) for example in task.examples("search")]
    own, plain = (Scorer(model, tokenizer, prompts, own_loop=own_loop) for own_loop in (True, False))
    pairs = list(zip(own.score([None])[0], plain.score([None])[0], strict=True))
    assert own.reason is None
    assert all(abs(a.log_likelihood - b.log_likelihood) < tolerance(model.dtype) for a, b in pairs)
    assert all(a.verdict == b.verdict or min(a.margin, b.margin) < 0.25 for a, b in pairs)


def test_a_model_is_checked_once_for_all_scorers_that_ask_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(model: Any, loop: LayerLoop, layers: Sequence[int]) -> float | None:
        calls.append(max(len(prompt.ids) for prompt in loop.prompts))
        return difference_from_forward(model, loop, layers)

    monkeypatch.setattr(scorer_module, "difference_from_forward", counted)
    model = tiny_model()
    short, long = ([prompt_of_length(tokens)] for tokens in (20, 60))
    for prompts in (short, short, long, short, prompts_of_records(1)):
        Scorer(model, TinyTokenizer(), prompts).score([None])
    assert calls == [20, 60, max(len(prompt.ids) for prompt in prompts_of_records(1))]  # the last one has tails
    Scorer(tiny_model(seed=1), TinyTokenizer(), short).score([None])
    assert len(calls) == 4
