"""The decay by distance in theory: RoFormer's bound of each layer under its factor, from the frequencies alone.

The bound is that of `ropewalk analyze decay`; the rotations are made here, without reading a prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MOST_DISTANCES = 2048  # beyond, a curve is flat, and a move of the pointer would wait for it
Frequencies = tuple[float, ...]  # radians a token of each rotary pair, the fastest first


def layer_frequencies(model: Any) -> dict[int, Frequencies]:
    """Radians a token of each rotary pair, by rotary layer, from the angles of the model's own tables at position 1."""
    import torch

    from ropewalk.analysis.parts.attention_reader import rotations
    from ropewalk.engine.rotary_tables import kept_base
    from ropewalk.layers import input_device, text_config, undecorated_forward
    from ropewalk.patch import rotary_layers, unpatched
    from ropewalk.rotary import Installation

    kinds = getattr(text_config(model), "layer_types", None)
    found: dict[int, Frequencies] = {}
    with torch.no_grad(), unpatched(model), kept_base(model):
        rotaries = {rotary.layer: rotary for rotary in Installation(model).rotaries}
        first = torch.ones(1, 1, dtype=torch.long, device=input_device(model))
        for layer in rotary_layers(model):
            rotary = rotaries.get(layer) or rotaries[None]
            by_kind = "layer_type" in inspect.signature(undecorated_forward(rotary.base)).parameters
            more = {"layer_type": kinds[layer]} if by_kind and kinds else {}
            tables = rotary.base(torch.empty(0, device=first.device), first, **more)
            found[layer] = tuple(np.angle(rotations(tables)[0]).tolist())
    return found


def distances(tokens: int) -> list[int]:
    """Where the classes of distance begin for prompts of so many tokens."""
    from ropewalk.analysis.parts.attention_statistics import distance_starts

    return [int(start) for start in distance_starts(min(max(tokens, 4), MOST_DISTANCES))]


@lru_cache(maxsize=4096)  # most layers keep their factor while one is moved
def bound(frequencies: Frequencies, factor: float, tokens: int) -> Array:
    """RoFormer's bound by class of distance, as a share of that at distance 0, [distances]."""
    from ropewalk.analysis.parts.readings import roformer_bound

    positions = np.arange(min(max(tokens, 4), MOST_DISTANCES)) / factor
    return roformer_bound(np.exp(1j * positions[:, None] * np.array(frequencies)))


def decay(by_layer: Mapping[int, Frequencies], values: Sequence[float | None], tokens: int) -> list[list[float]]:
    """The bound by distance of each rotary layer, in their order, [layers, distances]."""
    curves = [bound(own, values[layer] or 1.0, tokens) for layer, own in by_layer.items()]
    return np.round(np.array(curves), 5).tolist()  # type: ignore[no-any-return]
