"""Is the own layer loop right for this model? Real prompts, scored by it and by `model.forward`, with factors and
without. The check is by result, for no list of architectures is complete.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ropewalk.engine.decoder import Decoder
from ropewalk.engine.forward import ForwardScorer, float32_head
from ropewalk.engine.generation import Request, generate
from ropewalk.engine.head import Head
from ropewalk.engine.layer_loop import LayerLoop
from ropewalk.engine.memory import Budget
from ropewalk.engine.scoring import AnswerScore
from ropewalk.factors import ScalingFactors
from ropewalk.patch import patched
from ropewalk.prompts import RenderedPrompt
from ropewalk.tasks.base import Example

SHORTEST = 512  # tokens of a prompt that the check reads, from its end; it costs six passes over so many
STEPS = 8  # tokens of the generation that is checked
# The lead of one logit over another is rounded more than a mean over an answer: SmolLM2 in bfloat16 said another token
# than `model.generate` where the best one led by up to 0.41.
LOGITS_OVER_MEANS = 10
_PROBE = Example("probe@0", "probe", 0, (), ())
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4}
# bfloat16 and float16, whose rounding follows the shape of the batch: on SmolLM2 in bfloat16 single answers differ by
# up to 0.017 between two shapes, while a wrong layer, window or position shifts them by tenths.
_LOW_PRECISION_TOLERANCE = 0.05


def tolerance(dtype: torch.dtype) -> float:
    """How far two computations of one log-likelihood (mean nats per answer token) may differ by rounding."""
    return _TOLERANCES.get(dtype, _LOW_PRECISION_TOLERANCE)


def probe_loop(decoder: Decoder, prompts: Sequence[RenderedPrompt], terminators: dict[str, Sequence[int]]) -> LayerLoop:
    """A loop over a few of the prompts, cut short, in one batch: what the check reads."""
    chosen = _few(prompts, decoder)
    return LayerLoop(decoder, chosen, terminators, Budget(2 * sum(len(prompt.ids) for prompt in chosen)))


def difference_from_forward(model: Any, loop: LayerLoop, rotary_layers: Sequence[int]) -> float | None:
    """How far the loop's log-likelihoods are from `model.forward`'s, under no factors and under different ones a layer.

    The largest |a - b| / max(1, |b|): what a damaged model finds very unlikely is rounded more. Infinite where only one
    of two is a number, None where none is. The model carries no factors before and after.
    """
    decoder, chosen = loop.decoder, loop.prompts
    factors = probe_factors(len(decoder.layers), rotary_layers)
    ours: list[dict[int, AnswerScore]] = [{}, {}]
    with loop.ready():
        for numbers, by_candidate in loop.score([[None] * len(decoder.layers), factors.values]):
            for scores, found in zip(by_candidate, ours, strict=True):
                found.update(zip(numbers, scores, strict=True))
    plain = ForwardScorer(
        model, chosen, loop.terminators, Budget(1)
    )  # each prompt by itself: nothing shared, no padding
    theirs = [_scores(plain)]
    with patched(model, factors):
        theirs.append(_scores(plain))
    return largest_difference(
        [one[number].log_likelihood for one in ours for number in range(len(chosen))],
        [one[number].log_likelihood for one in theirs for number in range(len(chosen))],
    )


def generation_fault(
    model: Any, decoder: Decoder, tokenizer: Any, prompts: Sequence[Sequence[int]], rotary_layers: Sequence[int]
) -> str | None:
    """What is wrong with the loop's generation, or None: its tokens must be those that `model.forward` finds likeliest.

    Where the likeliest token leads by less than the rounding of a logit, another one may be said.
    """
    chosen = [list(prompt[-size:]) for prompt, size in zip(prompts, (SHORTEST, SHORTEST // 2), strict=False)]
    factors = probe_factors(len(decoder.layers), rotary_layers)
    head = Head(decoder.head, decoder.final_cap)
    with head.in_float32():
        texts = generate(decoder, head, tokenizer, chosen, factors.values, Request(STEPS, (), frozenset()))
    for prompt, answer in zip(chosen, texts.tokens, strict=True):
        whole = RenderedPrompt(_PROBE, (*prompt, *answer), len(prompt), "")
        with patched(model, factors), float32_head(model):
            stats = ForwardScorer(model, [whole], {"": ()}, Budget(1)).stats([0])
        leads = stats.margin[stats.greedy != np.array(answer)]
        wrong = int((leads > LOGITS_OVER_MEANS * tolerance(model.dtype)).sum())
        if wrong:
            return f"{wrong} of {STEPS} generated tokens are not those of model.forward"
    return None


def probe_factors(num_layers: int, rotary_layers: Sequence[int]) -> ScalingFactors:
    """Different in neighbouring layers, every third exactly 1, null where there is no rotary position."""
    cycle = (0.9, 1.0, 1.15)
    return ScalingFactors([cycle[layer % 3] if layer in rotary_layers else None for layer in range(num_layers)])


def largest_difference(some: Sequence[float], others: Sequence[float]) -> float | None:
    """The largest |a - b| / max(1, |b|); infinite where only one is a number, None where all pairs are not numbers."""
    pairs = [(a, b) for a, b in zip(some, others, strict=True) if math.isfinite(a) or math.isfinite(b)]
    if not pairs:
        return None
    both = (math.isfinite(a) and math.isfinite(b) for a, b in pairs)
    return max(abs(a - b) / max(1.0, abs(b)) if fine else math.inf for (a, b), fine in zip(pairs, both, strict=True))


def _scores(scorer: ForwardScorer) -> dict[int, AnswerScore]:
    return {number: score for numbers, scores in scorer.score() for number, score in zip(numbers, scores, strict=True)}


def _few(prompts: Sequence[RenderedPrompt], decoder: Decoder) -> list[RenderedPrompt]:
    """The longest prompt with its neighbour (they may share a row) and the shortest one, cut from the front.

    Windows still have to cut something off, and where the base follows the length nothing is cut at all.
    """
    longest = max(range(len(prompts)), key=lambda number: len(prompts[number].ids))
    neighbour = longest + 1 if longest + 1 < len(prompts) else max(0, longest - 1)
    shortest = min(range(len(prompts)), key=lambda number: len(prompts[number].ids))
    chosen = sorted({longest, neighbour, shortest})
    if decoder.tables.length_dependent:
        return [prompts[number] for number in chosen]
    windows = [spec.window for spec in decoder.layers if spec.window is not None]
    size = max(SHORTEST, *(2 * window for window in windows)) if windows else SHORTEST
    cut = {number: len(prompts[number].ids) - size for number in chosen}
    if 0 < cut[longest] < prompts[neighbour].first:
        cut[neighbour] = cut[longest]  # by the same amount, so that they still begin alike
    return [_shortened(prompts[number], cut[number]) for number in chosen]


def _shortened(prompt: RenderedPrompt, cut: int) -> RenderedPrompt:
    cut = max(0, min(cut, prompt.first - 1))
    return dataclasses.replace(prompt, ids=prompt.ids[cut:], first=prompt.first - cut)
