"""Verdict and log-likelihood of an answer, from the statistics of its places and against real greedy generation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ropewalk.engine.head import TokenStats
from ropewalk.engine.scorer import Scorer
from ropewalk.engine.scoring import HostStats, answer_score, targets
from ropewalk.prompts import PromptRenderer, RenderedPrompt
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from scored_prompts import TinyTokenizer, oracle, prompt_of, prompts_of_records, with_greedy_answer
from tiny import tiny_model

PROMPT = prompt_of([3, 4, 10, 11, 12, 13, 14])  # two tokens, then five that are scored
RIGHT = [10, 11, 12, 13, 14]


def stats(greedy: list[int], margins: list[float], logs: list[float]) -> HostStats:
    return HostStats.of(TokenStats(torch.tensor(greedy), torch.tensor(margins), torch.tensor(logs)))


def scored(greedy: list[int], terminator: str = '"', log: float = -0.5) -> Any:
    prompt = prompt_of(PROMPT.ids, terminator=terminator)
    margins = [3.0 - place / 10 for place in range(len(greedy))]
    found = stats([99, *greedy, 99], [0.0, *margins, 0.0], [-9.0, log, *[-1.0] * (len(greedy) - 1), -9.0])
    return answer_score(prompt, found, slice(1, 1 + len(greedy)), range(30))


def test_what_is_asked_for_at_each_place() -> None:
    assert targets(PROMPT) == (*RIGHT, 0)
    assert targets(prompt_of(PROMPT.ids, terminator="")) == tuple(RIGHT)


def test_the_answer_and_then_its_end_must_be_the_likeliest() -> None:
    whole = scored([*RIGHT, 29])
    assert (whole.verdict, whole.matches, whole.tokens) == (True, 5, 5)
    assert whole.log_likelihood == pytest.approx(-0.9)  # the end's own place has no part in it
    assert whole.margin == pytest.approx(2.5)  # but may turn the verdict
    assert not scored([*RIGHT, 30]).verdict
    assert scored([*RIGHT, 30]).matches == 5


def test_nothing_need_end_an_answer_without_a_closing() -> None:
    found = scored(RIGHT, terminator="")
    assert found.verdict
    assert found.margin == pytest.approx(2.6)


@pytest.mark.parametrize("place", range(5))
def test_one_other_token_is_wrong(place: int) -> None:
    greedy = [*RIGHT, 29]
    greedy[place] = 77
    assert (scored(greedy).verdict, scored(greedy).matches) == (False, 4)


@pytest.mark.parametrize("log", [math.nan, -math.inf])
def test_what_is_not_a_number_is_wrong_and_shown(log: float) -> None:
    found = scored([*RIGHT, 29], log=log)
    assert not found.verdict
    assert not math.isfinite(found.log_likelihood)


def test_statistics_come_to_the_host_in_float64() -> None:
    found = stats([1], [0.5], [-1.5])
    assert found.margin.dtype == found.log_probability.dtype == np.float64
    assert (found.greedy.tolist(), found.margin.tolist(), found.log_probability.tolist()) == ([1], [0.5], [-1.5])


def test_the_terminator_decides_between_verdicts() -> None:
    """With 12 prompts answered greedily, some end with one of the 30 ids that begin with the closing, some do not."""
    model = tiny_model()
    prompts = [with_greedy_answer(model, prompt) for prompt in prompts_of_records(3)]
    unended = [prompt_of(prompt.ids, terminator="") for prompt in prompts]
    (found,) = Scorer(model, TinyTokenizer(), [*prompts, *unended]).score([None])
    ended = [one.verdict for one in found[:12]]
    assert all(one.verdict for one in found[12:])
    assert 0 < sum(ended) < len(ended)
    assert ended == [one.verdict for one in oracle(model, prompts)]


def test_a_longer_answer_does_not_count() -> None:
    """The model that goes on where the answer ends ("12345" for "1234") is wrong."""
    model = tiny_model()
    whole = with_greedy_answer(model, prompts_of_records(1)[0])

    class EndsElsewhere(TinyTokenizer):
        def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
            return ["5" if index == whole.ids[-1] else '"' for index in ids]

    begun = [RenderedPrompt(whole.example, whole.ids[:-1], whole.first, terminator) for terminator in ("", '"')]
    (found,) = Scorer(model, EndsElsewhere(), begun).score([None])
    assert [one.verdict for one in found] == [True, False]
    assert [one.matches for one in found] == [4, 4]


def test_verdicts_are_those_of_real_greedy_generation(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    """Six prompts of SmolLM2, most of them with an answer it gives. A near tie may turn either way in bfloat16."""
    model, tokenizer = demo_model_and_tokenizer
    renderer = PromptRenderer(tokenizer, chat_template=False)
    examples = make_task("kv", TaskOptions(keys=3, positions=3, limit=2)).examples("search")
    prompts = [renderer.render(example) for example in examples]
    scorer = Scorer(model, tokenizer, prompts)
    (scores,) = scorer.score([None])
    assert scorer.reason is None
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
