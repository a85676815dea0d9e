"""How many floating-point operations a scoring of prompts executes: the numerator of MFU.

A product of [M, K] and [K, N] is 2·M·N·K. With h hidden units, H query and G key/value heads of size d, and i units in
the gated MLP, a token costs in each layer

    linear(token)       = 2·h·(H·d) (queries) + 2·h·(2·G·d) (keys, values) + 2·(H·d)·h (output) + 3·2·h·i (MLP)
    attention(token p)  = 4·H·d·(p + 1)

the latter for scores and weighted sum over itself and the p tokens before it: causal attention is halved. The last
layer needs keys and values of every token but queries, attention, output and MLP only of those whose logits are looked
at, and the head (2·h·V) is needed there alone. Norms, rotations, softmax and embeddings are not counted. What prompts
share (a stem) or candidates share (the layers below the first difference of their factors) counts once; padding never
counts. Layers with windows are not modelled.

    MFU = executed_flops(...) / seconds / FLOP/s of a large matrix product measured in the same run
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from ropewalk.prompts import RenderedPrompt

Attention = Literal["causal", "full", "none"]


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that determine its FLOPs."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Self:
        """From a transformers config of the llama kind (gated MLP, full attention)."""
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(
            config.hidden_size,
            config.num_hidden_layers,
            heads,
            getattr(config, "num_key_value_heads", None) or heads,
            head_dim,
            config.intermediate_size,
            config.vocab_size,
        )

    @property
    def kv_flops(self) -> int:
        """Of one token's keys and values in one layer."""
        return 4 * self.hidden * self.kv_heads * self.head_dim

    @property
    def rest_flops(self) -> int:
        """Of one token's queries, attention output and MLP in one layer."""
        return 4 * self.hidden * self.heads * self.head_dim + 6 * self.hidden * self.intermediate


@dataclass(frozen=True)
class Segment:
    """Tokens `start` to `stop` of one sequence, computed after the ones before them (which are cached or shared).

    kept: how many of them, at the end, go through the last layer whole. scored: how many go through the head.
    """

    start: int
    stop: int
    kept: int
    scored: int


def whole(tokens: int, scored: int | None = None) -> Segment:
    """A plain forward pass: no part of the last layer saved; `scored` tokens (None: all) go through the head."""
    return Segment(0, tokens, tokens, tokens if scored is None else scored)


def prompt_segment(prompt: RenderedPrompt, start: int = 0) -> Segment:
    """A prompt from token `start` on; kept are its answer's tokens and the one before them."""
    kept = prompt.num_scored + 1
    return Segment(start, len(prompt.ids), kept, kept)


def row_segments(row: Any, prompts: Sequence[RenderedPrompt]) -> list[Segment]:
    """Of one row of the engine (`ropewalk.engine.rows.Row`): its stem, and each tail that branches off."""
    places = {place for _, span in row.spans for place in span}
    inner = sum(place < row.stem for place in places)
    found = [Segment(0, row.stem, inner, inner)]
    for number, span in row.spans:
        stop, kept = len(prompts[number].ids), sum(place >= row.stem for place in span)
        if row.has_tails:
            found.append(Segment(row.stem, stop, kept, kept))
    return found


def executed_flops(
    shape: Shape, segments: Sequence[Segment], groups: Sequence[int] | None = None, *, attention: Attention = "causal"
) -> int:
    """FLOPs of the segments, see the module. groups: by layer, how many different candidates there are up to it.

    attention: "full" counts every query against every key, as attention without a causal kernel executes it; "none"
    counts the products with weights alone.
    """
    repeats = [1] * shape.layers if groups is None else list(groups)
    total = 0
    for segment in segments:
        tokens = segment.stop - segment.start
        inner = tokens * (shape.kv_flops + shape.rest_flops) + _attention(shape, segment, tokens, attention)
        last = tokens * shape.kv_flops + segment.kept * shape.rest_flops
        last += _attention(shape, segment, segment.kept, attention)
        head = 2 * segment.scored * shape.hidden * shape.vocabulary
        total += sum(repeats[:-1]) * inner + repeats[-1] * (last + head)
    return total


def _attention(shape: Shape, segment: Segment, queries: int, kind: Attention) -> int:
    """Of the segment's last `queries` tokens over all tokens up to each (or over all tokens)."""
    if kind == "none":
        return 0
    last, first = segment.stop, segment.stop - queries
    pairs = (last * (last + 1) - first * (first + 1)) // 2 if kind == "causal" else queries * last
    return 4 * shape.heads * shape.head_dim * pairs


def candidate_groups(candidates: Sequence[Sequence[float | None]]) -> list[int]:
    """By layer: how many different beginnings the candidates' factors have up to and with this layer."""
    layers = len(candidates[0])
    return [len({tuple(candidate[: layer + 1]) for candidate in candidates}) for layer in range(layers)]
