"""Keys and values of all layers, for generation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KeyValueCache:
    """Keys and values of every layer, [R, key-value heads, tokens, head size]; valid only for the factors it was made
    with, for keys are kept as they were rotated.

    room: tokens that will follow those of the prompts.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def begin(self, k: Tensor, v: Tensor) -> None:
        """The next layer's keys and values of the prompts."""
        self.keys.append(nn.functional.pad(k, (0, 0, 0, self.room)))
        self.values.append(nn.functional.pad(v, (0, 0, 0, self.room)))

    def write(self, layer: int, k: Tensor, v: Tensor, places: Tensor) -> None:
        """One token a row, k and v [R, key-value heads, 1, head size], at `places`, int64 [R]."""
        rows = torch.arange(len(places), device=places.device)
        self.keys[layer][rows, :, places] = k[:, :, 0]
        self.values[layer][rows, :, places] = v[:, :, 0]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]
