"""Prompts of random tokens for the tiny models, and a plain float64 oracle of their scores."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ropewalk.engine.scoring import AnswerScore
from ropewalk.factors import ScalingFactors
from ropewalk.patch import patched, unpatched
from ropewalk.prompts import RenderedPrompt
from ropewalk.tasks.base import Example

ANSWER = 5  # tokens
ENDS = range(30)  # ids of the tokens that end an answer


class TinyTokenizer:
    """As much of a tokenizer as the engine asks for: the vocabulary of the tiny models, a text is its ids in words."""

    eos_token_id: int | None = None

    def __len__(self) -> int:
        return 128

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return ['"' if index in ENDS else "x" for index in ids]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def prompt_of(ids: Sequence[int], name: str = "r@0", terminator: str = '"') -> RenderedPrompt:
    """A prompt whose last `ANSWER` tokens are scored."""
    record, _, place = name.partition("@")
    return RenderedPrompt(Example(name, record, int(place), (), ("x",)), tuple(ids), len(ids) - ANSWER, terminator)


def prompts_of_records(records: int, positions: int = 4, prefix: int = 40, seed: int = 3) -> list[RenderedPrompt]:
    """The prompts of a record begin with the same `prefix` tokens (one more with each record), then differ."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tokens: int) -> list[int]:
        return torch.randint(3, 128, (tokens,), generator=generator).tolist()

    found = []
    for record in range(records):
        head = draw(prefix + record)
        for place in range(positions):
            # The first token after the prefix is never the same by chance.
            found.append(prompt_of([*head, 3 + place, *draw(11 + place % 3)], f"r{record}@{place}"))
    return found


def prompt_of_length(tokens: int, terminator: str = '"') -> RenderedPrompt:
    """A prompt of so many tokens, another one for each length."""
    generator = torch.Generator().manual_seed(tokens)
    return prompt_of(torch.randint(3, 128, (tokens,), generator=generator).tolist(), f"l{tokens}@0", terminator)


def with_greedy_answer(model: PreTrainedModel, prompt: RenderedPrompt) -> RenderedPrompt:
    """The same prompt with the answer that the model gives by itself."""
    ids = torch.tensor([prompt.ids[: prompt.first]])
    with torch.no_grad():
        for _ in range(ANSWER):
            ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return prompt_of(ids[0].tolist(), prompt.example.id, prompt.terminator)


def oracle(
    model: PreTrainedModel, prompts: Sequence[RenderedPrompt], dtype: torch.dtype = torch.float64
) -> list[AnswerScore]:
    """One prompt at a time, all logits. dtype: grouped products of experts know no float64."""
    found = []
    fresh: Any = copy.deepcopy(model).to(dtype)
    remembers = "dynamic" in str(model.config)  # dynamic NTK keeps the base of the longest prompt it has seen
    for prompt in prompts:
        exact = copy.deepcopy(fresh) if remembers else fresh
        with torch.no_grad():
            logits = exact(input_ids=torch.tensor([prompt.ids]), use_cache=False).logits[0].double()
        steps = logits[prompt.first - 1 :]
        answer = prompt.ids[prompt.first :]
        greedy = steps.argmax(-1).tolist()
        matches = sum(said == wanted for said, wanted in zip(greedy, answer, strict=False))
        logs = [float(steps[step].log_softmax(-1)[token]) for step, token in enumerate(answer)]
        used = steps if prompt.terminator else steps[: len(answer)]
        sorted_steps = used.sort(-1, descending=True).values
        found.append(
            AnswerScore(
                verdict=matches == len(answer) and (not prompt.terminator or greedy[len(answer)] in ENDS),
                log_likelihood=sum(logs) / len(logs),
                margin=float((sorted_steps[:, 0] - sorted_steps[:, 1]).min()),
                tokens=len(answer),
                matches=matches,
            )
        )
    return found


def oracles(
    model: PreTrainedModel,
    prompts: Sequence[RenderedPrompt],
    candidates: Sequence[ScalingFactors | None],
    dtype: torch.dtype = torch.float64,
) -> list[list[AnswerScore]]:
    """The oracle under each candidate."""
    found = []
    for factors in candidates:
        with unpatched(model) if factors is None else patched(model, factors):
            found.append(oracle(model, prompts, dtype))
    return found


def assert_equal_scores(found: Sequence[AnswerScore], expected: Sequence[AnswerScore], tolerance: float) -> None:
    """Equal in all that is discrete, and within `tolerance` in the rest."""
    for name in ("verdict", "tokens", "matches"):
        assert [getattr(one, name) for one in found] == [getattr(one, name) for one in expected], name
    for name in ("log_likelihood", "margin"):
        expected_numbers = [getattr(one, name) for one in expected]
        assert [getattr(one, name) for one in found] == pytest.approx(expected_numbers, abs=tolerance), name


@contextmanager
def out_of_memory(owner: Any, name: str, tokens: int) -> Iterator[list[int]]:
    """`owner.name` fails, as a full GPU would, for more than `tokens` tokens; the list holds the sizes that failed.

    The method's first argument is a `Batch`, its second the levels of the candidate tree.
    """
    failed: list[int] = []
    method = getattr(owner, name)

    def limited(batch: Any, levels: Any, *rest: Any) -> Any:
        size = batch.ids.numel() * len(levels[-1].factors)
        if size > tokens:
            failed.append(size)
            raise torch.cuda.OutOfMemoryError("out of memory, on purpose")
        return method(batch, levels, *rest)

    setattr(owner, name, limited)
    try:
        yield failed
    finally:
        delattr(owner, name)
