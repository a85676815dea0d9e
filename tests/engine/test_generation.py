"""Greedy generation: by the own loop as by `model.generate`, whatever stands beside a prompt in its batch."""

from __future__ import annotations

import copy
import types
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ropewalk.engine import generation
from ropewalk.engine.generation import Request, Texts, end_ids
from ropewalk.engine.kv_cache import KeyValueCache
from ropewalk.engine.scorer import Scorer
from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.layers import undecorated_forward
from ropewalk.patch import patched
from scored_prompts import TinyTokenizer, out_of_memory, prompt_of
from tiny import tiny_model

FACTORS = ScalingFactors([1.2, 0.9, 0.95, 1.1])
WINDOW = {"head_dim": 16, "sliding_window": 16}
ALL = Request(16, (), frozenset())  # nothing but the budget ends an answer
LENGTHS = (5, 17, 40, 63)


def asked(lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(3, 128, (length,), generator=generator).tolist() for length in lengths]


def scorer(model: PreTrainedModel, tokens: int | None = 300, **options: Any) -> Scorer:
    return Scorer(model, TinyTokenizer(), [prompt_of([*ids, *[1] * 5]) for ids in asked()], tokens, **options)


def said(texts: Sequence[str]) -> list[list[int]]:
    return [[int(word) for word in text.split()] for text in texts]


def cut(answer: Sequence[int], request: Request) -> list[int]:
    """An answer to its budget as it would be with the request's end ids."""
    end = next((place for place, token in enumerate(answer) if token in request.end_ids), len(answer))
    return list(answer[:end])


def greedy(model: PreTrainedModel, ids: Sequence[int], tokens: int) -> list[int]:
    """The plain oracle: the whole sequence again for every token."""
    path = torch.tensor([ids])
    with torch.no_grad():
        for _ in range(tokens):
            path = torch.cat([path, model(input_ids=path, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return path[0, len(ids) :].tolist()


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("llama", {}),
        ("mistral", {"sliding_window": 16}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("gemma2", WINDOW),
        ("gemma3_text", WINDOW | {"layer_types": ["sliding_attention", "full_attention"] * 2}),
        ("phi3", {"sliding_window": 20}),
        ("smollm3", {}),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}),
    ],
)
def test_the_loop_says_what_the_model_says(model_type: str, config: dict[str, Any]) -> None:
    """Prompts of 5 to 63 tokens together, against `model.generate` of one at a time, with factors and without."""
    model = tiny_model(model_type, **config).double()
    factors = FACTORS if model_type != "smollm3" else ScalingFactors([1.2, 0.9, 0.95, None])
    own, plain = scorer(model), scorer(model, 1, own_loop=False)
    for candidate in (None, factors):
        answers = said(own.generate(asked(), ALL, candidate))
        assert answers == said(plain.generate(asked(), ALL, candidate))
        assert [len(answer) for answer in answers] == [16] * len(LENGTHS)
    assert own.reason is None


@pytest.mark.parametrize("own_loop", [True, False])
def test_factors_are_applied_and_what_the_model_carries_is_not(own_loop: bool) -> None:
    model = tiny_model().double()
    prompt = asked()[3]
    with patched(model, FACTORS):
        expected = greedy(model, prompt, 16)
        found = scorer(model, own_loop=own_loop)
        assert said(found.generate([prompt], ALL, FACTORS)) == [expected]
        assert said(found.generate([prompt], ALL)) != [expected]
    assert said(found.generate([prompt], ALL)) == [greedy(model, prompt, 16)]


def test_dynamic_ntk_has_one_base_for_prompt_and_answer() -> None:
    """`model.generate` grows the base while it writes, so that old keys are of another base than new ones."""
    scheme = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    model = tiny_model(rope_parameters=scheme, max_position_embeddings=64).double()
    own = scorer(model)
    answers = said(own.generate(asked(), ALL))
    assert own.reason is None
    for prompt, answer in zip(asked(), answers, strict=True):
        fixed: Any = copy.deepcopy(model)
        rotary = fixed.model.rotary_emb
        rotary(torch.zeros(1, dtype=torch.float64), torch.tensor([[len(prompt) + 15]]))
        rotary.forward = types.MethodType(undecorated_forward(rotary), rotary)
        assert answer == greedy(fixed, prompt, 16)


def test_dynamic_ntk_follows_no_neighbour_in_the_models_own_generation_either() -> None:
    """Two prompts of one length share a batch; the base that it grew to is forgotten before the next."""
    scheme = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = tiny_model(rope_parameters=scheme, max_position_embeddings=64).double()
    prompts = asked((120, 70, 70, 90, 20))
    alone = [scorer(copy.deepcopy(model), own_loop=False).generate([one], ALL)[0] for one in prompts]
    assert scorer(model, 10_000, own_loop=False).generate(prompts, ALL) == alone
    assert scorer(model, 10_000, own_loop=False).generate(prompts, ALL) == alone


@pytest.mark.parametrize("own_loop", [True, False])
@pytest.mark.parametrize("tokens", [1, 120, 10_000])
def test_neighbours_change_no_text(own_loop: bool, tokens: int) -> None:
    model = tiny_model().double()
    assert said(scorer(model, tokens, own_loop=own_loop).generate(asked(), ALL)) == [
        greedy(model, prompt, 16) for prompt in asked()
    ]


@pytest.mark.parametrize("own_loop", [True, False])
def test_answers_end_by_themselves_at_different_times(monkeypatch: pytest.MonkeyPatch, own_loop: bool) -> None:
    """End tokens are chosen so that answers end at once, midway and never; the cache drops the rows that are done."""
    model = tiny_model().double()
    whole = [greedy(model, prompt, 16) for prompt in asked()]
    ends = frozenset({whole[0][0], whole[1][2], whole[2][9]})
    request = Request(16, (), ends)
    expected = [cut(answer, request) for answer in whole]
    assert len({len(answer) for answer in expected}) > 2
    kept: list[int] = []
    keep = KeyValueCache.keep

    def counted(cache: KeyValueCache, rows: torch.Tensor) -> None:
        kept.append(len(rows))
        keep(cache, rows)

    monkeypatch.setattr(KeyValueCache, "keep", counted)
    found = scorer(model, 10_000, own_loop=own_loop)
    assert said(found.generate(asked(), request)) == expected
    assert "" in found.generate(asked(), request)
    assert (len(kept) > 0 and all(rows <= len(LENGTHS) // 2 for rows in kept)) is own_loop


@pytest.mark.parametrize("own_loop", [True, False])
def test_a_text_stops_before_the_first_of_the_stop_texts(own_loop: bool) -> None:
    model = tiny_model().double()
    found = scorer(model, own_loop=own_loop)
    words = found.generate([asked()[2]], ALL)[0].split()
    late, early = f" {words[7]} ", f" {words[4]} "
    (text,) = found.generate([asked()[2]], Request(16, (late, early), frozenset()))
    assert text == " ".join(words)[: " ".join(words).index(early)]
    assert 1 <= len(text.split()) <= 4


@pytest.mark.parametrize("own_loop", [True, False])
@pytest.mark.parametrize("budget", [1, 2, 7])
def test_the_budget_is_kept(own_loop: bool, budget: int) -> None:
    model = tiny_model().double()
    answers = said(scorer(model, own_loop=own_loop).generate(asked(), Request(budget, (), frozenset())))
    assert answers == [greedy(model, prompt, budget) for prompt in asked()]


@pytest.mark.parametrize("own_loop", [True, False])
def test_a_prompt_may_be_one_token(own_loop: bool) -> None:
    model = tiny_model().double()
    found = scorer(model, own_loop=own_loop)
    assert said(found.generate([[7], asked()[1]], ALL)) == [greedy(model, prompt, 16) for prompt in ([7], asked()[1])]


@pytest.mark.parametrize("own_loop", [True, False])
def test_the_checkpoints_processors_are_not_used_and_stay(own_loop: bool) -> None:
    model = tiny_model().double()
    expected = [greedy(model, prompt, 16) for prompt in asked()]
    config: Any = model.generation_config
    config.repetition_penalty, config.no_repeat_ngram_size, config.max_length = 1.5, 2, 30
    found = scorer(model, own_loop=own_loop)
    assert said(found.generate(asked(), ALL)) == expected
    assert model.generation_config is config
    assert (config.repetition_penalty, config.no_repeat_ngram_size, config.max_length) == (1.5, 2, 30)
    assert not model.lm_head._forward_hooks


def test_progress_counts_every_prompt() -> None:
    done: list[int] = []
    scorer(tiny_model(), 100).generate(asked(), ALL, None, lambda numbers, count: done.extend(numbers))
    assert sorted(done) == list(range(len(LENGTHS)))


def test_no_prompts_give_no_texts() -> None:
    found = scorer(tiny_model())
    assert found.generate([], ALL) == []
    assert found.reason is None
    assert said(found.generate(asked(), ALL)) == said(scorer(tiny_model()).generate(asked(), ALL))


def test_batches_that_do_not_fit_are_halved_for_good() -> None:
    model = tiny_model().double()
    found = scorer(model, 10_000)
    expected = found.generate(asked(), ALL)
    assert found._loop is not None
    done: list[int] = []
    with out_of_memory(found._loop.decoder, "hidden", 120) as failed:
        assert found.generate(asked(), ALL, None, lambda numbers, count: done.extend(numbers)) == expected
        assert sorted(done) == list(range(len(LENGTHS)))
        failures = len(failed)
        assert failures > 0
        assert found.generate(asked(), ALL, FACTORS) != expected
        assert len(failed) == failures


def test_one_prompt_that_does_not_fit_is_an_error() -> None:
    found = scorer(tiny_model().double())
    found.generate(asked()[:1], ALL)
    assert found._loop is not None
    with (
        out_of_memory(found._loop.decoder, "hidden", 0),
        pytest.raises(RopewalkError, match="a batch of 79 tokens, the smallest possible one"),
    ):
        found.generate(asked(), ALL)


def test_what_ends_a_turn_is_named_by_model_and_tokenizer() -> None:
    model = tiny_model()
    tokenizer = TinyTokenizer()
    assert end_ids(model, tokenizer) == {2}
    model.generation_config.eos_token_id = [2, 5]
    tokenizer.eos_token_id = 7
    assert end_ids(model, tokenizer) == {2, 5, 7}
    model.generation_config.eos_token_id = None
    tokenizer.eos_token_id = None
    assert end_ids(model, tokenizer) == frozenset()
    assert end_ids(object(), tokenizer) == frozenset()


def test_texts_grow_to_their_ends() -> None:
    texts = Texts(TinyTokenizer(), Request(3, (" 9",), frozenset({2})), 4)
    for token in (5, 9):
        texts.add(0, token)
    texts.add(1, 2)
    for token in (5, 6, 7):
        texts.add(2, token)
    texts.add(3, 9)
    assert texts.done == [True, True, True, False]  # the stop text has a space before it
    assert texts.all() == ["5", "", "5 6 7", "9"]


def test_the_generation_config_is_back_after_an_error() -> None:
    model = tiny_model()
    own = model.generation_config

    def interrupted() -> None:
        with generation.plain_generation_config(model):
            assert model.generation_config is not own
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert model.generation_config is own
