"""Teacher forcing: verdict and log-likelihood of the answer in one forward pass over prompt and answer.

Right padding without a mask: causality hides what comes later, and scaled-dot-product attention keeps its causal fast
path. Logits are computed at the answer's tokens alone, in float32 whatever the model's dtype: bf16 logits tie.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.engine.batching import extension, has_length_dependent_rope, make_batches
from ropewalk.engine.shared_prefix import (
    NotShareableError,
    PrefixBatch,
    largest_difference,
    padded,
    prefix_batches,
    repeated,
    tolerance,
)
from ropewalk.errors import DataError
from ropewalk.identity import base_scheme
from ropewalk.prompts import RenderedPrompt, terminator_ids

CPU_TOKENS = 2048
CUDA_TOKENS = 65536
CUDA_MIN_PREFIX = 2048  # shorter prompts are faster in one large batch


@dataclass(frozen=True)
class AnswerScore:
    """Teacher-forced score of one answer.

    verdict: greedy decoding would give exactly these tokens and then the terminator. log_likelihood: mean natural
    log-probability per answer token (NaN if the model gave NaN). margin: smallest gap between the best two logits over
    the scored steps: how near the verdict was to turning. tokens: answer tokens.
    """

    verdict: bool
    log_likelihood: float
    margin: float
    tokens: int


class AnswerScorer:
    """Scores a fixed list of prompts under whatever factors the model carries at the time of the call.

    Batches and groups are made once and are the same for every candidate. tokens_per_batch: None picks a size for the
    device; on CUDA a batch that does not fit is halved, and the smaller size is kept.

    shared_prefix_reason: why prompts that begin alike are computed one by one all the same; None if what they share is
    computed once. The first group is scored both ways (see `_check_sharing`), so it is final after the first `score`.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompts: Sequence[RenderedPrompt], tokens_per_batch: int | None = None
    ) -> None:
        if not prompts:
            raise DataError("no prompts to score: the task gave no examples")
        self.model = model
        self.prompts = list(prompts)
        self.device = model.get_input_embeddings().weight.device
        self.tokens_per_batch = tokens_per_batch or (CUDA_TOKENS if self.device.type == "cuda" else CPU_TOKENS)
        self.shared_prefix_reason: str | None = None
        self._equal_lengths = has_length_dependent_rope(base_scheme(model))
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._terminators = {text: terminator_ids(tokenizer, text) for text in {p.terminator for p in self.prompts}}
        self._check_lengths()
        self._sharing, self._alone = self._find_shared()
        self._sharing_checked = False

    def score(self, on_progress: Callable[[int], None] | None = None) -> list[AnswerScore]:
        """One score a prompt, in the order given. `on_progress` is told how many prompts were just done."""
        scores: dict[int, AnswerScore] = {}
        report = on_progress or (lambda count: None)
        with torch.no_grad(), _evaluation_mode(self.model), _float32_head(self.model):
            if not self._sharing_checked:
                self._check_sharing()
            for shared in list(self._sharing):
                try:
                    scores.update(zip(shared.indices, self._score_shared(shared), strict=True))
                except torch.cuda.OutOfMemoryError:
                    # For good, so that the next candidate's scores of these prompts come about in the same way.
                    self._sharing.remove(shared)
                    self._alone = sorted([*self._alone, *shared.indices])
                    continue
                report(len(shared.indices))
            for batch, results in self._score_plain(self._alone):
                scores.update(zip(batch, results, strict=True))
                report(len(batch))
            if self._equal_lengths:
                self._forget_longest()
        return [scores[index] for index in range(len(self.prompts))]

    def _find_shared(self) -> tuple[list[PrefixBatch], list[int]]:
        everything = list(range(len(self.prompts)))
        if self._equal_lengths:
            self.shared_prefix_reason = "the rotary base follows the length of what is computed at once"
            return [], everything
        minimum = CUDA_MIN_PREFIX if self.device.type == "cuda" else 1
        sharing, alone = prefix_batches(self.prompts, self.tokens_per_batch, min_prefix=minimum)
        if not sharing:
            self.shared_prefix_reason = "the prompts share too few tokens"
        return sharing, alone

    def _check_sharing(self) -> None:
        """Score the first group both ways; give up sharing for good where that fails or the results differ.

        The check is by result, for no list of architectures is complete. Where nothing is finite it says nothing and
        is made again at the next call.
        """
        if not self._sharing:
            return
        group = self._sharing[0].groups[0]
        plain = {
            index: score
            for batch, scores in self._score_plain(group.indices)
            for index, score in zip(batch, scores, strict=True)
        }
        try:
            shared = self._score_shared(PrefixBatch((group,), group.prefix))
        except torch.cuda.OutOfMemoryError:
            return
        except NotShareableError as error:
            self._stop_sharing(str(error))
            return
        except Exception as error:  # plain scoring has just worked, so it is the cache that this model can't do
            self._stop_sharing(f"it fails with a repeated cache ({type(error).__name__}: {error})")
            return
        difference = largest_difference(
            [score.log_likelihood for score in shared], [plain[index].log_likelihood for index in group.indices]
        )
        allowed = tolerance(self.model.dtype)
        if difference is not None and difference > allowed:
            self._stop_sharing(
                f"with a repeated cache log-likelihoods differ by {difference:.2g} nats a token, "
                f"expected at most {allowed:g}"
            )
        self._sharing_checked = difference is not None

    def _stop_sharing(self, reason: str) -> None:
        self.shared_prefix_reason = reason
        self._sharing, self._alone = [], list(range(len(self.prompts)))

    def _score_shared(self, shared: PrefixBatch) -> list[AnswerScore]:
        """The prefixes once, their cache repeated, then all that follows them as one batch."""
        heads = [list(self.prompts[group.indices[0]].ids[: shared.prefix]) for group in shared.groups]
        last = {"logits_to_keep": 1} if self._keeps_logits else {}
        cache = self.model(input_ids=padded(heads, self.device), use_cache=True, **last).past_key_values
        return self._score_batch(shared.indices, shared.prefix, repeated(cache, shared.sources))

    def _score_plain(self, indices: Sequence[int]) -> Iterator[tuple[list[int], list[AnswerScore]]]:
        """Each batch with its scores, longest prompts first."""
        waiting = self._batches(indices)
        while waiting:
            try:
                scores = self._score_batch(waiting[0])
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                waiting = self._halve(waiting)
                continue
            yield waiting.pop(0), scores

    def _batches(self, indices: Sequence[int]) -> list[list[int]]:
        chosen = [self.prompts[index] for index in indices]
        batches = make_batches(chosen, self.tokens_per_batch, equal_lengths=self._equal_lengths)
        return [[indices[place] for place in batch] for batch in batches]

    def _halve(self, waiting: list[list[int]]) -> list[list[int]]:
        """Smaller batches for what is left; re-raises the error being handled when one prompt alone is too much."""
        if len(waiting[0]) == 1:
            raise
        longest = len(self.prompts[waiting[0][0]].ids)
        self.tokens_per_batch = longest * (len(waiting[0]) // 2)
        return self._batches([index for batch in waiting for index in batch])

    def _score_batch(self, batch: Sequence[int], done: int = 0, cache: Any = None) -> list[AnswerScore]:
        """Scores of one batch. done: tokens of every prompt that `cache` holds already."""
        prompts = [self.prompts[index] for index in batch]
        input_ids = padded([prompt.ids[done:] for prompt in prompts], self.device)
        # The logits at index t predict the token at t + 1: from before the first answer token to the terminator.
        spans = [range(prompt.first - 1 - done, len(prompt.ids) - done) for prompt in prompts]
        kept = sorted({index for span in spans for index in span})
        if self._equal_lengths:
            self._forget_longest()
        logits = self._logits(input_ids, torch.tensor(kept, device=self.device), cache)
        place = {index: column for column, index in enumerate(kept)}
        return [
            self._score_row(logits[row, place[span[0]] : place[span[-1]] + 1], prompt)
            for row, (span, prompt) in enumerate(zip(spans, prompts, strict=True))
        ]

    def _forget_longest(self) -> None:
        """Dynamic NTK keeps the base of the longest sequence it has met until one of trained length comes by.

        So one of a single token does: a score must follow neither the batches before it nor the candidates before it.
        """
        self.model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.device), use_cache=False)

    def _logits(self, input_ids: Tensor, kept: Tensor, cache: Any) -> Tensor:
        past = {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}
        if self._keeps_logits:
            return self.model(input_ids=input_ids, logits_to_keep=kept, **past).logits  # type: ignore[no-any-return]
        return self.model(input_ids=input_ids, **past).logits[:, kept]  # type: ignore[no-any-return]

    def _score_row(self, logits: Tensor, prompt: RenderedPrompt) -> AnswerScore:
        """logits: [answer tokens + 1, vocabulary]."""
        answer = torch.tensor(prompt.ids[prompt.first :], device=logits.device)
        count = prompt.num_scored
        logits = logits if logits.dtype == torch.float64 else logits.float()
        best = logits.topk(2, dim=-1)
        chosen = logits[:count].log_softmax(-1).gather(-1, answer[:, None])
        greedy = best.indices[:, 0].tolist()
        ends = greedy[count] in self._terminators[prompt.terminator] if prompt.terminator else True
        steps = best.values[: count + 1 if prompt.terminator else count]
        return AnswerScore(
            verdict=greedy[:count] == answer.tolist() and ends and bool(torch.isfinite(chosen).all()),
            log_likelihood=float(chosen.double().mean()),
            margin=float((steps[:, 0] - steps[:, 1]).min()),
            tokens=count,
        )

    def _check_lengths(self) -> None:
        text_config = self.model.config.get_text_config()
        limit = getattr(text_config, "max_position_embeddings", None)
        if limit:
            limit = int(limit * extension(base_scheme(self.model)))
        too_long = [prompt for prompt in self.prompts if limit and len(prompt.ids) > limit]
        if too_long:
            names = ", ".join(f"{prompt.example.id} ({len(prompt.ids)} tokens)" for prompt in too_long[:3])
            raise DataError(
                f"{len(too_long)} of {len(self.prompts)} prompts are longer than the model's {limit} tokens: {names}"
                f"{', …' if len(too_long) > 3 else ''}. Use fewer --keys"
            )


@contextmanager
def _evaluation_mode(model: Any) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]  # not all need be in the same mode
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _float32_head(model: Any) -> Iterator[None]:
    """Let the output layer compute in float32, so that what the model does to its logits afterwards (soft caps,
    scales) sees float32 too. Layers of another kind (quantised, parallel, offloaded) or precision are left alone.
    """
    head = model.get_output_embeddings()
    precise = (torch.float32, torch.float64)
    if type(head) is not nn.Linear or head.weight.is_meta or head.weight.dtype in precise:
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
