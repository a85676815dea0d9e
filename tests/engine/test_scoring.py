"""Teacher-forced scores against a plain float64 oracle, against real generation, and on broken models."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ropewalk.engine.scoring import AnswerScore, AnswerScorer
from ropewalk.errors import DataError
from ropewalk.prompts import PromptRenderer, RenderedPrompt
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from scored_prompts import TinyTokenizer, oracle, prompt_of, prompts_of_records, with_greedy_answer
from tiny import tiny_model


def score(model: PreTrainedModel, prompts: Sequence[RenderedPrompt], **options: Any) -> list[AnswerScore]:
    return AnswerScorer(model, TinyTokenizer(), prompts, **options).score()


def different_prompts(model: PreTrainedModel) -> list[RenderedPrompt]:
    """Of many lengths, half of them with the answer that the model gives, so that both verdicts occur."""
    some = [prompt_of(prompt.ids[start:]) for start, prompt in enumerate(prompts_of_records(2))]
    return [with_greedy_answer(model, prompt) if index % 2 else prompt for index, prompt in enumerate(some)]


def assert_equal_scores(found: Sequence[AnswerScore], expected: Sequence[AnswerScore], tolerance: float) -> None:
    assert [one.verdict for one in found] == [one.verdict for one in expected]
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    for name in ("log_likelihood", "margin"):
        assert [getattr(one, name) for one in found] == pytest.approx(
            [getattr(one, name) for one in expected], abs=tolerance
        )


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt_neox", "cohere2"])
@pytest.mark.parametrize("terminator", ['"', ""])
def test_scores_equal_a_plain_float64_oracle(model_type: str, terminator: str) -> None:
    model = tiny_model(model_type)
    prompts = [prompt_of(prompt.ids, terminator=terminator) for prompt in different_prompts(model)]
    expected = oracle(model, prompts)
    assert any(one.verdict for one in expected) or terminator
    assert_equal_scores(score(copy.deepcopy(model).double(), prompts), expected, 1e-9)
    assert_equal_scores(score(model, prompts), expected, 1e-4)


def test_the_terminator_decides_between_verdicts() -> None:
    """With 12 prompts answered greedily, some end with one of the 30 ids that begin with the closing, some do not."""
    model = tiny_model()
    prompts = [with_greedy_answer(model, prompt) for prompt in prompts_of_records(6)]
    ended = [one.verdict for one in score(model, prompts)]
    unended = [one.verdict for one in score(model, [prompt_of(prompt.ids, terminator="") for prompt in prompts])]
    assert all(unended)
    assert 0 < sum(ended) < len(ended)
    assert ended == [one.verdict for one in oracle(model, prompts)]


def test_a_longer_answer_does_not_count() -> None:
    """The model that goes on where the answer ends ("12345" for "1234") is wrong."""
    model = tiny_model()
    whole = with_greedy_answer(model, prompts_of_records(1)[0])
    begun = RenderedPrompt(whole.example, whole.ids[:-1], whole.first, "")
    assert score(model, [begun])[0].verdict

    class EndsElsewhere(TinyTokenizer):
        def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
            return ["5" if index == whole.ids[-1] else '"' for index in ids]

    assert (
        not AnswerScorer(model, EndsElsewhere(), [RenderedPrompt(whole.example, begun.ids, begun.first, '"')])
        .score()[0]
        .verdict
    )


@pytest.mark.parametrize("tokens", [1, 60, 150, 10_000])
def test_the_size_of_batches_changes_no_score(tokens: int) -> None:
    model = tiny_model()
    prompts = different_prompts(model)
    assert_equal_scores(score(model, prompts, tokens_per_batch=tokens), score(model, prompts), 1e-5)


def test_dynamic_ntk_scores_do_not_depend_on_neighbours_or_history() -> None:
    """The prompts are longer than the trained 24 tokens, and each of another length: each has a base of its own."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model = tiny_model(max_position_embeddings=24, rope_parameters=rope)
    frequencies = model.model.rotary_emb.inv_freq.clone()
    fresh = copy.deepcopy(model)
    prompts = different_prompts(model)
    expected = oracle(fresh, prompts)
    scorer = AnswerScorer(model, TinyTokenizer(), prompts)
    assert scorer.shared_prefix_reason == "the rotary base follows the length of what is computed at once"
    for _ in range(2):
        assert_equal_scores(scorer.score(), expected, 1e-4)
        assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)
    with torch.no_grad():
        model(input_ids=torch.full((1, 90), 5), use_cache=False)
    assert not torch.equal(model.model.rotary_emb.inv_freq, frequencies)
    assert_equal_scores(scorer.score(), expected, 1e-4)
    with pytest.raises(DataError, match="longer than the model's 96 tokens"):
        score(model, [prompt_of([3] * 97)])


def test_nan_weights_give_failures_and_no_crash() -> None:
    model = tiny_model()
    prompts = different_prompts(model)
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[0, 0] = math.nan
    scores = score(model, prompts)
    assert all(math.isnan(one.log_likelihood) and not one.verdict for one in scores)


def test_progress_counts_every_prompt_and_order_is_kept() -> None:
    model = tiny_model()
    prompts = [*prompts_of_records(3), *different_prompts(model)]
    counts: list[int] = []
    scores = AnswerScorer(model, TinyTokenizer(), prompts, 200).score(counts.append)
    assert sum(counts) == len(prompts)
    assert len(counts) > 1
    assert_equal_scores(scores, oracle(model, prompts), 1e-4)


def test_modes_of_modules_are_as_before_and_no_hook_is_left() -> None:
    model = tiny_model().to(torch.bfloat16)
    model.train()
    model.model.layers[1].eval()
    before = [module.training for module in model.modules()]
    score(model, prompts_of_records(1))
    assert [module.training for module in model.modules()] == before
    assert not model.lm_head._forward_hooks


def test_logits_of_a_bfloat16_model_are_float32() -> None:
    """bfloat16 logits near 10 are 1/16 apart, so best and second best would often tie: no margin would be small."""
    model = tiny_model().to(torch.bfloat16)
    margins = [one.margin for one in score(model, prompts_of_records(4))]
    assert any(margin > 0 and (margin * 256) % 1 for margin in margins)
    assert all(margin > 0 for margin in margins)


def test_prompts_longer_than_the_model_are_named() -> None:
    prompts = [prompt_of([3] * 300, "long@1"), *prompts_of_records(1)]
    with pytest.raises(DataError, match=r"1 of 5 prompts are longer than .* 256 tokens: long@1 \(300 tokens\)"):
        score(tiny_model(), prompts)


def test_no_prompts_are_refused() -> None:
    with pytest.raises(DataError, match="no prompts to score"):
        score(tiny_model(), [])


class OutOfMemory:
    """A forward hook that fails as a full device does, for passes of more than `tokens` tokens."""

    def __init__(self, model: PreTrainedModel, fails: Callable[[dict[str, Any]], bool]) -> None:
        self.fails, self.count = fails, 0
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if self.fails(kwargs):
            self.count += 1
            raise torch.cuda.OutOfMemoryError("out of memory, on purpose")


def test_batches_that_do_not_fit_are_halved_for_good() -> None:
    model = tiny_model()
    prompts = different_prompts(model)
    expected = oracle(model, prompts)
    memory = OutOfMemory(model, lambda kwargs: kwargs["input_ids"].numel() > 130)
    scorer = AnswerScorer(model, TinyTokenizer(), prompts, 10_000)
    assert_equal_scores(scorer.score(), expected, 1e-4)
    failures = memory.count
    assert failures > 0
    assert_equal_scores(scorer.score(), expected, 1e-4)
    assert memory.count == failures


def test_one_prompt_that_does_not_fit_is_an_error() -> None:
    model = tiny_model()
    OutOfMemory(model, lambda kwargs: True)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        score(model, different_prompts(model))


def test_groups_that_do_not_fit_fall_back_to_plain_batches_for_good() -> None:
    model = tiny_model()
    prompts = prompts_of_records(3)
    expected = oracle(model, prompts)
    memory = OutOfMemory(model, lambda kwargs: kwargs.get("past_key_values") is not None)
    scorer = AnswerScorer(model, TinyTokenizer(), prompts)
    counts: list[int] = []
    assert_equal_scores(scorer.score(counts.append), expected, 1e-4)
    assert sum(counts) == len(prompts)
    failures = memory.count
    assert_equal_scores(scorer.score(), expected, 1e-4)
    assert memory.count == failures


def test_verdicts_are_those_of_real_greedy_generation(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    """Twelve prompts of SmolLM2, most of them with an answer it gives. A near tie may turn either way in bfloat16."""
    model, tokenizer = demo_model_and_tokenizer
    renderer = PromptRenderer(tokenizer, chat_template=False)
    examples = make_task("kv", TaskOptions(keys=3, positions=3, limit=4)).examples("search")
    prompts = [renderer.render(example) for example in examples]
    scores = AnswerScorer(model, tokenizer, prompts).score()
    disagreements = []
    for prompt, found in zip(prompts, scores, strict=True):
        given = torch.tensor([prompt.ids[: prompt.first]])

        def has_gone_astray(ids: torch.Tensor, scores: Any, wanted: tuple[int, ...] = prompt.ids) -> bool:
            return ids[0, : len(wanted)].tolist() != list(wanted[: ids.shape[1]])

        with torch.no_grad():
            output = model.generate(
                given,
                attention_mask=torch.ones_like(given),
                do_sample=False,
                max_new_tokens=prompt.num_scored + 1,
                pad_token_id=0,
                stopping_criteria=[has_gone_astray],
            )
        said = output[0, prompt.first :].tolist()
        ends = len(said) > prompt.num_scored and tokenizer.decode(said[-1:]).startswith('"')
        right = said[: prompt.num_scored] == list(prompt.ids[prompt.first :]) and ends
        if right != found.verdict:
            disagreements.append((prompt.example.id, found.margin))
    assert all(margin < 0.1 for _, margin in disagreements), disagreements
    assert len(disagreements) <= 1
    assert sum(found.verdict for found in scores) > 0
