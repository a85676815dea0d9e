"""Greedy generation, batched: by the own layer loop with a cache of keys and values, or by `model.generate`.

Plain argmax of float32 logits: no repetition penalty or other processor that a checkpoint's generation config names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ropewalk.engine.batch import Batch, placed
from ropewalk.engine.candidates import Factors, candidate_tree
from ropewalk.engine.decoder import Decoder
from ropewalk.engine.forward import float32_head, forget_longest
from ropewalk.engine.head import Head
from ropewalk.engine.kv_cache import KeyValueCache
from ropewalk.engine.memory import Budget
from ropewalk.engine.rope_schemes import has_length_dependent_rope
from ropewalk.layers import input_device


@dataclass(frozen=True)
class Request:
    """What every prompt of a call has in common. stop: texts that end an answer, beside the end of the turn."""

    max_new_tokens: int
    stop: tuple[str, ...]
    end_ids: frozenset[int]


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a turn, by the checkpoint's generation config and by the tokenizer."""
    config = getattr(model, "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    known = named if isinstance(named, (list, tuple)) else [named]
    return frozenset(int(token) for token in (*known, tokenizer.eos_token_id) if token is not None)


class Texts:
    """The growing answers of some rows: their tokens, their text up to the first stop, and whether they are done."""

    def __init__(self, tokenizer: Any, request: Request, rows: int) -> None:
        self.tokenizer, self.request = tokenizer, request
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.done = [False] * rows

    def add(self, row: int, token: int) -> None:
        """The next token of a row that is not done."""
        if token in self.request.end_ids:
            self.done[row] = True
            return
        self.tokens[row].append(token)
        full = len(self.tokens[row]) >= self.request.max_new_tokens
        self.done[row] = full or any(stop in self._decoded(row) for stop in self.request.stop)

    def text(self, row: int) -> str:
        """What the row says before the first stop."""
        text = self._decoded(row)
        return min((text.split(stop)[0] for stop in self.request.stop), key=len, default=text)

    def all(self) -> list[str]:
        """Every row's text."""
        return [self.text(row) for row in range(len(self.tokens))]

    def _decoded(self, row: int) -> str:
        return str(self.tokenizer.decode(self.tokens[row], skip_special_tokens=True))


def by_loop(
    decoder: Decoder,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    factors: Factors,
    request: Request,
    budget: Budget,
) -> Iterator[tuple[list[int], list[str]]]:
    """Batch by batch the numbers of its prompts and their texts. The model carries no factors; `factors` are used."""
    head = Head(decoder.head, decoder.final_cap)
    with head.in_float32():

        def run(batch: list[int]) -> list[str]:
            texts = generate(decoder, head, tokenizer, [prompts[number] for number in batch], factors, request)
            return texts.all()

        yield from in_batches(prompts, request, budget, run)


def by_model(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], request: Request, budget: Budget
) -> Iterator[tuple[list[int], list[str]]]:
    """The same by the model's own `generate`, left-padded, under whatever factors it carries.

    Where the rotary base follows the length of the batch, a batch is of one length, and none knows of those before it.
    """
    by_length = has_length_dependent_rope(model)

    def run(batch: list[int]) -> list[str]:
        if by_length:
            forget_longest(model)
        return _model_generate(model, tokenizer, [prompts[number] for number in batch], request)

    with float32_head(model):
        yield from in_batches(prompts, request, budget, run, equal_lengths=by_length)


def in_batches(
    prompts: Sequence[Sequence[int]],
    request: Request,
    budget: Budget,
    run: Callable[[list[int]], list[str]],
    *,
    equal_lengths: bool = False,
) -> Iterator[tuple[list[int], list[str]]]:
    """Longest prompts first; a batch that runs out of memory is halved, and nothing that is done is done again."""
    waiting = sorted(range(len(prompts)), key=lambda number: (-len(prompts[number]), number))
    while waiting:
        longest = len(prompts[waiting[0]]) + request.max_new_tokens
        batch = waiting[: max(1, budget.tokens // longest)]
        if equal_lengths:
            batch = [number for number in batch if len(prompts[number]) == len(prompts[batch[0]])]
        try:
            texts = run(batch)
        except torch.cuda.OutOfMemoryError:
            texts = None
        if texts is None:
            torch.cuda.empty_cache()
            budget.halve(longest * len(batch), smallest=longest)
            continue
        waiting = waiting[len(batch) :]
        yield batch, texts


def generate(
    decoder: Decoder,
    head: Head,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    factors: Factors,
    request: Request,
) -> Texts:
    """One batch of prompts to the end of its last answer; `head` must be in float32."""
    device = decoder.head.weight.device
    levels, cache = placed(candidate_tree([factors]), device), KeyValueCache(request.max_new_tokens)
    batch = _prompt_batch(decoder, prompts, request, device)
    logits = head.logits(decoder.hidden(batch, levels, cache)[0, :, 0])
    texts = Texts(tokenizer, request, len(prompts))
    rows, keys = list(range(len(prompts))), list(batch.keys)
    positions = torch.tensor([len(prompt) for prompt in prompts], device=device)
    while True:
        tokens = logits.argmax(-1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not texts.done[row]:
                texts.add(row, token)
        active = [place for place, row in enumerate(rows) if not texts.done[row]]
        if not active:
            return texts
        if len(active) <= len(rows) // 2:  # the cache is copied, so not for every row that ends
            kept = torch.tensor(active, device=device)
            cache.keep(kept)
            tokens, positions = tokens[kept], positions[kept]
            rows, keys = [rows[place] for place in active], [keys[place] for place in active]
        logits = head.logits(decoder.step(tokens, positions, keys, levels, cache))
        positions = positions + 1


def _prompt_batch(decoder: Decoder, prompts: Sequence[Sequence[int]], request: Request, device: torch.device) -> Batch:
    width = max(len(prompt) for prompt in prompts)
    lengths = [len(prompt) for prompt in prompts]
    places = torch.arange(width, device=device)
    last = torch.tensor(lengths, device=device)
    ids: Tensor = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=device)
    return Batch(
        ids=ids,
        positions=places[None],
        segments=torch.where(places < last[:, None], 0, -1),
        stem=width,
        # The base belongs to the whole sequence: prompt and the budget of its answer.
        keys=tuple(decoder.tables.length_key(length + request.max_new_tokens) for length in lengths),
        scored=last[:, None] - 1,
    )


def _model_generate(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], request: Request) -> list[str]:
    from transformers import GenerationConfig

    width, device = max(len(prompt) for prompt in prompts), input_device(model)
    ids = torch.tensor([[*[0] * (width - len(prompt)), *prompt] for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=request.max_new_tokens,
        eos_token_id=sorted(request.end_ids) or None,
        pad_token_id=min(request.end_ids, default=0),
    )
    texts = Texts(tokenizer, request, len(prompts))

    def done(sequences: Tensor, _scores: Any, **_: Any) -> Tensor:
        for row, token in enumerate(sequences[:, -1].tolist()):
            if not texts.done[row]:
                texts.add(row, token)
        return torch.tensor(texts.done, device=sequences.device)

    with plain_generation_config(model):
        model.generate(input_ids=ids, attention_mask=mask, generation_config=config, stopping_criteria=[done])
    return texts.all()


@contextmanager
def plain_generation_config(model: Any) -> Iterator[None]:
    """Hide the checkpoint's generation config for a while: `generate` takes from it whatever a call leaves at its
    default, a repetition penalty among them.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = own
