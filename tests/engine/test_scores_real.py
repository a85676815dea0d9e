"""Scores on the real model in bfloat16: whatever the batch, the neighbours and the way, within the stated tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from real_prompts import kv_prompts, plain_logits
from ropewalk.engine.scorer import Scorer
from ropewalk.engine.scoring import AnswerScore
from ropewalk.engine.self_check import LOGITS_OVER_MEANS, tolerance
from ropewalk.evaluate import evaluate
from ropewalk.factors import ScalingFactors
from ropewalk.haystack import generated_sentences
from ropewalk.prompts import RenderedPrompt
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

LAYERS = 30
MOST_TURNED = 0.01
RISING = ScalingFactors(np.linspace(0.8, 1.3, LAYERS).tolist())
FALLING = ScalingFactors(np.linspace(1.2, 0.85, LAYERS).tolist())


def largest_gap(some: Sequence[AnswerScore], others: Sequence[AnswerScore]) -> float:
    return max(abs(one.log_likelihood - other.log_likelihood) for one, other in zip(some, others, strict=True))


def turned(some: Sequence[AnswerScore], others: Sequence[AnswerScore]) -> list[str]:
    """The verdicts that differ, with the smallest leads of both."""
    return [
        f"prompt {number}: {one.verdict} with a lead of {one.margin:.3f}, {other.verdict} with {other.margin:.3f}"
        for number, (one, other) in enumerate(zip(some, others, strict=True))
        if one.verdict != other.verdict
    ]


def test_the_size_of_a_few_batches_changes_little(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = demo_model_and_tokenizer
    prompts = kv_prompts(tokenizer, 4, 2)
    alone, together = (Scorer(model, tokenizer, prompts, tokens).score([None])[0] for tokens in (1, 1024))
    assert largest_gap(alone, together) < tolerance(model.dtype)
    assert turned(alone, together) == []


@pytest.mark.slow
def test_batches_and_other_candidates_change_little(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = demo_model_and_tokenizer
    prompts = [*kv_prompts(tokenizer, 12, 2), *kv_prompts(tokenizer, 12, 3, chat_template=False)]
    reference = Scorer(model, tokenizer, prompts, 1).score([None])[0]
    others = {
        f"{tokens} tokens a batch": Scorer(model, tokenizer, prompts, tokens).score([None])[0]
        for tokens in (1024, 4096)
    }
    others["beside two candidates"] = Scorer(model, tokenizer, prompts, 4096).score([RISING, None, FALLING])[1]
    report = []
    for name, scores in others.items():
        gap, off = largest_gap(reference, scores), turned(reference, scores)
        report += [f"{name}: log-likelihoods within {gap:.4f}, {len(off)} of {len(scores)} verdicts turned", *off]
    print(*report, sep="\n")
    assert all(largest_gap(reference, scores) < tolerance(model.dtype) for scores in others.values()), report
    assert sum(len(turned(reference, scores)) for scores in others.values()) <= MOST_TURNED * 3 * len(prompts), report


@pytest.mark.slow
def test_the_loop_scores_factors_as_model_forward_does(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    """With stems shared by the prompts of a record, and with the same prompts in an order in which none is shared."""
    model, tokenizer = demo_model_and_tokenizer
    records = _whole_records(kv_prompts(tokenizer, 60, 2))[:4]
    shared = [prompt for record in records for prompt in record]
    apart = [record[place] for place in range(2) for record in records]
    candidates = [None, RISING, FALLING]
    found = {}
    for name, prompts, own_loop in (("shared", shared, True), ("apart", apart, True), ("forward", shared, False)):
        scorer = Scorer(model, tokenizer, prompts, own_loop=own_loop)
        scores = scorer.score(candidates)
        assert (scorer.reason is None) is own_loop
        order = [prompts.index(prompt) for prompt in shared]
        found[name] = [one[number] for one in scores for number in order]
        if scorer._loop is not None:
            assert any(row.has_tails for row in scorer._loop.rows) is (name == "shared")
    gaps = {name: largest_gap(found[name], found["forward"]) for name in ("shared", "apart")}
    print(gaps, *turned(found["shared"], found["forward"]), *turned(found["apart"], found["forward"]), sep="\n")
    assert max(gaps.values()) < tolerance(model.dtype)
    by_candidate = np.array([one.log_likelihood for one in found["forward"]]).reshape(3, -1)
    effect = np.abs(by_candidate - by_candidate[:1])[1:].mean()
    rounding = np.abs(np.subtract(*([one.log_likelihood for one in found[name]] for name in ("shared", "forward"))))
    assert effect > 2 * rounding.mean()  # the factors do something
    for name in ("shared", "apart"):
        for one, other in zip(found[name], found["forward"], strict=True):
            assert one.verdict == other.verdict or min(one.margin, other.margin) < LOGITS_OVER_MEANS * tolerance(
                model.dtype
            )


def _whole_records(prompts: Sequence[RenderedPrompt]) -> list[list[RenderedPrompt]]:
    by_record: dict[str, list[RenderedPrompt]] = {}
    for prompt in prompts:
        by_record.setdefault(prompt.example.record, []).append(prompt)
    return [record for record in by_record.values() if len(record) == 2]


@pytest.mark.parametrize("own_loop", [True, False])
@pytest.mark.parametrize(
    ("window", "windows"), [(160, 1), pytest.param(512, 3, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_perplexity_is_that_of_all_logits(
    demo_model_and_tokenizer: tuple[Any, Any], tmp_path: Path, window: int, windows: int, own_loop: bool
) -> None:
    """Bucket by bucket the mean over its tokens of log softmax, and the share of tokens that are the likeliest."""
    model, tokenizer = demo_model_and_tokenizer
    text = "".join(generated_sentences("a text to read", 6 * window * windows))
    book = tmp_path / "book.txt"
    book.write_text(text)
    options = TaskOptions(positions=4, limit=windows, data=str(book), options={"window": str(window)})
    task = make_task("perplexity", options)
    (found,) = evaluate(model, tokenizer, task, [None], split="search", own_loop=own_loop)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    last = int(0.4 * len(ids)) - window  # the search's windows stand in the first 40 %
    starts = [0, *task.positions[1:], window]
    starts[0] = 1  # nothing stands before the first token
    for number in range(windows):
        own = ids[number * last // max(1, windows - 1) :][:window]
        logits = plain_logits(model, own).double()
        logs = logits.log_softmax(-1)
        for place, (start, stop) in enumerate(pairwise(starts)):
            likelihood = float(np.mean([float(logs[at - 1, own[at]]) for at in range(start, stop)]))
            accuracy = float(np.mean([int(logits[at - 1].argmax()) == own[at] for at in range(start, stop)]))
            assert found.log_likelihoods[number, place] == pytest.approx(likelihood, abs=tolerance(model.dtype))
            assert found.scores[number, place] == pytest.approx(accuracy, abs=2.5 / (stop - start))
            assert found.answer_tokens[number, place] == stop - start
