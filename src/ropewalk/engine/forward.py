"""Scores by `model.forward`, for models that the own layer loop does not fit: one candidate at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.comparators.base import comparator_on
from ropewalk.engine.head import token_stats
from ropewalk.engine.memory import Budget
from ropewalk.engine.rope_schemes import has_length_dependent_rope
from ropewalk.engine.rows import make_batches, pack
from ropewalk.engine.scoring import AnswerScore, HostStats, answer_score, targets
from ropewalk.layers import input_device, is_plain_linear
from ropewalk.prompts import RenderedPrompt


class ForwardScorer:
    """Scores fixed prompts under whatever factors the model carries at the time of the call.

    Right padding without a mask: causality hides what comes later. Models whose rotary base follows the length of the
    batch get batches of equal lengths only. Under a comparator that looks ahead each prompt is read alone, and its
    answer with the prompt's KV cache.
    """

    def __init__(
        self, model: Any, prompts: Sequence[RenderedPrompt], terminators: dict[str, Sequence[int]], budget: Budget
    ) -> None:
        self.model, self.prompts, self.terminators, self.budget = model, list(prompts), terminators, budget
        self.device = input_device(model)
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._equal_lengths = has_length_dependent_rope(model)
        comparator = comparator_on(model)
        self._prompt_first = comparator is not None and not comparator.causal
        self._rows = pack(self.prompts, 0, share=False)

    def score(self) -> Iterator[tuple[list[int], list[AnswerScore]]]:
        """Batch by batch the numbers of its prompts and their scores, longest prompts first."""
        with float32_head(self.model):
            waiting = self._batches(range(len(self.prompts)))
            while waiting:
                try:
                    scores = self._score(waiting[0])
                except torch.cuda.OutOfMemoryError:
                    scores = []
                if not scores:
                    torch.cuda.empty_cache()
                    longest = max(len(self.prompts[number].ids) for number in waiting[0])
                    self.budget.halve(longest * len(waiting[0]), smallest=longest)
                    waiting = self._batches([number for batch in waiting for number in batch])
                    continue
                yield waiting.pop(0), scores
            if self._equal_lengths:
                forget_longest(self.model)

    def _batches(self, numbers: Sequence[int]) -> list[list[int]]:
        if self._prompt_first:
            return [[number] for number in sorted(numbers, key=lambda number: -len(self.prompts[number].ids))]
        if not self._equal_lengths:
            batches = make_batches([self._rows[number] for number in numbers], self.budget.tokens)
            return [[numbers[place] for place in batch] for batch in batches]
        lengths = sorted({len(self.prompts[number].ids) for number in numbers}, reverse=True)
        found = []
        for length in lengths:
            alike = [number for number in numbers if len(self.prompts[number].ids) == length]
            batches = make_batches([self._rows[number] for number in alike], self.budget.tokens)
            found += [[alike[place] for place in batch] for batch in batches]
        return found

    def stats(self, batch: Sequence[int]) -> HostStats:
        """The statistics of all places that are looked at, one prompt after another; within `float32_head`."""
        prompts = [self.prompts[number] for number in batch]
        spans = self._spans(batch)
        width = max(len(prompt.ids) for prompt in prompts)
        rows = [[*prompt.ids, *[0] * (width - len(prompt.ids))] for prompt in prompts]
        kept = sorted({place for span in spans for place in span})
        if self._equal_lengths:
            forget_longest(self.model)
        ids, places = torch.tensor(rows, device=self.device), torch.tensor(kept, device=self.device)
        logits = self._answer_logits(ids, places, prompts[0].first) if self._prompt_first else self._logits(ids, places)
        column = {place: number for number, place in enumerate(kept)}
        flat = torch.cat([logits[row, [column[place] for place in span]] for row, span in enumerate(spans)])
        wanted = torch.tensor([token for prompt in prompts for token in targets(prompt)], device=self.device)
        return HostStats.of(token_stats(_precise, flat, wanted, flat.shape[-1]))

    def _score(self, batch: Sequence[int]) -> list[AnswerScore]:
        stats, spans = self.stats(batch), self._spans(batch)
        prompts = [self.prompts[number] for number in batch]
        ends = torch.tensor([len(span) for span in spans]).cumsum(0).tolist()
        return [
            answer_score(prompt, stats, slice(end - len(span), end), self.terminators[prompt.terminator])
            for prompt, span, end in zip(prompts, spans, ends, strict=True)
        ]

    def _spans(self, batch: Sequence[int]) -> list[tuple[int, ...]]:
        return [self._rows[number].spans[0][1] for number in batch]

    def _logits(self, ids: Tensor, kept: Tensor) -> Tensor:
        """[rows, kept, vocabulary]."""
        if self._keeps_logits:
            # A list: a tensor would be brought to the first layer's device, and be no index on the last one's.
            found = self.model(input_ids=ids, logits_to_keep=kept.tolist(), use_cache=False)
            return found.logits  # type: ignore[no-any-return]
        return self.model(input_ids=ids, use_cache=False).logits[:, kept]  # type: ignore[no-any-return]

    def _answer_logits(self, ids: Tensor, kept: Tensor, first: int) -> Tensor:
        """The same of one prompt, ids[:, :first], which is read before its answer."""
        few = {"logits_to_keep": 1} if self._keeps_logits else {}
        prompt = self.model(input_ids=ids[:, :first], use_cache=True, **few)
        answer = self.model(input_ids=ids[:, first:], past_key_values=prompt.past_key_values, use_cache=True)
        return torch.cat([prompt.logits[:, -1:], answer.logits], dim=1)[:, kept - (first - 1)]


def forget_longest(model: Any) -> None:
    """Dynamic NTK keeps the base of the longest sequence it has met until one of trained length comes by.

    So one of a single token does: a score must follow neither the batches before it nor the candidates before it.
    """
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=input_device(model)), use_cache=False)


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


@contextmanager
def float32_head(model: Any) -> Iterator[None]:
    """Let the output layer compute in float32, so that what the model does to its logits afterwards (soft caps,
    scales) sees float32 too. Layers of another kind (quantised, parallel, offloaded) or precision are left alone.
    """
    head = model.get_output_embeddings()
    precise = (torch.float32, torch.float64)
    if not is_plain_linear(head) or head.weight.dtype in precise:
        yield
        return
    weight = head.weight.float()
    bias = None if head.bias is None else head.bias.float()

    def forward(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        return nn.functional.linear(inputs[0].float(), weight, bias)

    handle = head.register_forward_hook(forward)
    try:
        yield
    finally:
        handle.remove()
