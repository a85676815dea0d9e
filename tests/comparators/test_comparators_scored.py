"""Scores and answers under every comparator: by the layer loop where it may, and by model.forward."""

from __future__ import annotations

import pytest
import torch
from compared import chunked, every_comparator, generated, made
from transformers import PreTrainedModel

from ropewalk.engine.generation import Request
from ropewalk.engine.scorer import Scorer
from ropewalk.errors import RopewalkError
from scored_prompts import TinyTokenizer, prompts_of_records
from tiny import logits


@every_comparator
@pytest.mark.parametrize("own_loop", [True, False])
def test_it_can_be_scored(name: str, own_loop: bool, model: PreTrainedModel) -> None:
    """By the layer loop if it may, and by model.forward: what the prompt, read first, makes of the answer."""
    prompts = prompts_of_records(1)[:3]
    method = made(name)
    Scorer(model, TinyTokenizer(), prompts, 600).score([None])  # so that the loop holds itself for checked
    scorer = Scorer(model, TinyTokenizer(), prompts, 600, own_loop=own_loop)
    with method.on(model):
        if own_loop and not method.engine:
            with pytest.raises(RopewalkError, match=f"{name} is on this model, which the layer loop can't run"):
                scorer.score([None])
            return
        (scored,) = scorer.score([method.factors(model)])
        if method.factors(model) is not None:
            return  # the model carries none outside of the scorer
        for score, rendered in zip(scored, prompts, strict=True):
            ids, first = torch.tensor([rendered.ids]), rendered.first
            answer = chunked(model, ids, [first, ids.shape[1] - first])[0, first - 1 : -1].log_softmax(-1)
            chosen = answer.gather(-1, ids[0, first:, None])
            assert score.log_likelihood == pytest.approx(float(chosen.mean()), abs=1e-6)


@every_comparator
def test_it_can_generate(name: str, model: PreTrainedModel) -> None:
    """In a batch of several lengths what each prompt alone is answered."""
    prompts, method = [row.ids for row in prompts_of_records(1)[:3]], made(name)
    scorer = Scorer(model, TinyTokenizer(), prompts_of_records(1), 600, own_loop=method.engine)
    with method.on(model):
        found = scorer.generate(prompts, Request(5, (), frozenset()), method.factors(model))
        for text, ids in zip(found, prompts, strict=True):
            alone = generated(model, torch.tensor([ids]))[0, len(ids) :].tolist()
            assert text == " ".join(map(str, alone[:5]))


@pytest.mark.parametrize("own_loop", [True, False])
def test_uniform_is_scored_as_factors(own_loop: bool, model: PreTrainedModel) -> None:
    prompts, method = prompts_of_records(1)[:3], made("uniform")
    scorer = Scorer(model, TinyTokenizer(), prompts, 600, own_loop=own_loop)
    with method.on(model):
        (scored,) = scorer.score([method.factors(model)])
        for score, rendered in zip(scored, prompts, strict=True):
            ids = torch.tensor([rendered.ids])
            chosen = logits(model, ids).log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
            assert score.log_likelihood == pytest.approx(float(chosen[rendered.first - 1 :].mean()), abs=1e-6)
