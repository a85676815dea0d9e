"""Prompts for the real model, and its plain greedy answers: `model.generate` and nothing of the engine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from ropewalk.haystack import generated_sentences
from ropewalk.prompts import PromptRenderer, RenderedPrompt
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from ropewalk.tasks.mdqa import DOCUMENT, INSTRUCTION, QUERY


def kv_prompts(tokenizer: Any, count: int, keys: int, *, chat_template: bool = True) -> list[RenderedPrompt]:
    """`count` prompts of generated records, with gold pairs at every place. Few keys, so that the model is right
    about half the time.
    """
    renderer = PromptRenderer(tokenizer, chat_template=chat_template)
    task = make_task("kv", TaskOptions(keys=keys, positions=keys, limit=16 * count // keys))
    prompts = [renderer.render(example) for example in task.examples("search")]
    return [prompts[number] for number in _of_common_lengths([prompt.first for prompt in prompts], count)]


def question_prompts(tokenizer: Any, count: int) -> list[list[int]]:
    """Token ids of `count` questions about three generated documents, dressed as those of mdqa."""
    prompts = [_question(tokenizer, index) for index in range(8 * count)]
    return [prompts[number] for number in _of_common_lengths([len(prompt) for prompt in prompts], count)]


def _of_common_lengths(lengths: Sequence[int], count: int) -> list[int]:
    """The first `count` numbers of the most common lengths: `model.generate` takes many of them at once, unpadded."""
    kept: list[int] = []
    for length, _ in Counter(lengths).most_common():
        kept += [number for number, own in enumerate(lengths) if own == length][: count - len(kept)]
    return sorted(kept)


def _question(tokenizer: Any, index: int) -> list[int]:
    documents = [
        DOCUMENT.format(number=number + 1, title=f"Day {number}", text="".join(_day(index, number)).strip())
        for number in range(3)
    ]
    sentence = _day(index, index % 3)[1].strip()
    query = QUERY.format(question=f'which document says "{sentence}", and who is in it?')
    content = "\n\n".join([INSTRUCTION, "\n".join(documents), query])
    turn = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _day(index: int, number: int) -> list[str]:
    return generated_sentences(f"question {index}, document {number}", 30)


def greedy_ids(model: Any, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """What `model.generate` adds to each prompt, up to the end of its turn; prompts of equal length run together.

    So nothing is padded. The model is in its own precision throughout, its output layer too.
    """
    config = model.generation_config
    assert config.repetition_penalty in (None, 1.0)
    end = config.eos_token_id
    ends = set(end) if isinstance(end, list) else {end}
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        by_length[len(prompt)].append(number)
    found: dict[int, list[int]] = {}
    for numbers in by_length.values():
        ids = torch.tensor([list(prompts[number]) for number in numbers])
        answers = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=tokens,
            pad_token_id=min(ends),
        )[:, ids.shape[1] :].tolist()
        for number, answer in zip(numbers, answers, strict=True):
            stop = next((place for place, token in enumerate(answer) if token in ends), len(answer))
            found[number] = answer[:stop]
    return [found[number] for number in range(len(prompts))]


def plain_logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """float32 [tokens, vocabulary] of one prompt by itself: the layers as they are, the output layer in float32."""
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([list(ids)]), use_cache=False).last_hidden_state[0]
        return hidden.float() @ model.lm_head.weight.float().T
