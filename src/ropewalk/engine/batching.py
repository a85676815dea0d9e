"""Which prompts share a forward pass: a pure function of the prompts, so every candidate sees the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ropewalk.prompts import RenderedPrompt

LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def has_length_dependent_rope(base: dict[str, Any]) -> bool:
    """True if the rope parameters choose their frequencies from the sequence length (dynamic NTK, longrope).

    base: a config's `rope_parameters`, flat or one per layer type.
    """
    nested = [value for value in base.values() if isinstance(value, dict)]
    return any(scheme.get("rope_type") in LENGTH_DEPENDENT_ROPE for scheme in [base, *nested])


def extension(base: dict[str, Any]) -> float:
    """How many times its `max_position_embeddings` a model takes: dynamic NTK gives the length before extension."""
    return float(base.get("factor", 1.0)) if base.get("rope_type") == "dynamic" else 1.0


def make_batches(
    prompts: Sequence[RenderedPrompt], tokens_per_batch: int, *, equal_lengths: bool = False
) -> list[list[int]]:
    """Indices of prompts, batch by batch, longest first, each at most `tokens_per_batch` tokens with its padding.

    Longest first, so that running out of memory happens at once. A prompt longer than the budget has a batch to
    itself. equal_lengths: never pad, for models whose rotary base follows the length of the batch: a prompt's score
    must not depend on its neighbours.
    """
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index].ids), index))
    batches: list[list[int]] = []
    for index in order:
        longest = len(prompts[batches[-1][0]].ids) if batches else 0
        fits = batches and (len(batches[-1]) + 1) * longest <= tokens_per_batch
        if fits and (not equal_lengths or longest == len(prompts[index].ids)):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
