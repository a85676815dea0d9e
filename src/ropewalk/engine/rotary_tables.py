"""Tables of cos and sin for the own layer loop: any factors, any positions, and each row's base by its own length."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.engine.rope_schemes import LENGTH_DEPENDENT_ROPE, has_length_dependent_rope, rope_schemes
from ropewalk.layers import rotary_sites, undecorated_forward

Tables = tuple[Tensor, Tensor]


class RotaryTables:
    """The rotary module of a model that carries no factors, asked for tables at p / s.

    Positions are divided in float64 and rounded to float32 once; the module's own forward does the rest, so every rope
    type is the model's own (arXiv 2503.04355, equation 4, over any base scheme).
    """

    def __init__(self, model: nn.Module) -> None:
        sites = rotary_sites(model)
        if len(sites) != 1 or sites[0].layer is not None:
            raise ValueError(f"it has {len(sites)} rotary modules, expected one that serves all layers")
        self.module = sites[0].module
        self._plain = undecorated_forward(self.module)
        self.by_layer_type = "layer_type" in inspect.signature(self._plain).parameters
        schemes = rope_schemes(model)
        self.length_dependent = any(scheme.get("rope_type") in LENGTH_DEPENDENT_ROPE for scheme in schemes)
        self._longrope_limits = {
            scheme.get("original_max_position_embeddings")
            for scheme in schemes
            if scheme.get("rope_type") == "longrope"
        }
        self._all_longrope = self.length_dependent and all(
            scheme.get("rope_type") not in LENGTH_DEPENDENT_ROPE or scheme.get("rope_type") == "longrope"
            for scheme in schemes
        )
        self._trained_length = int(getattr(self.module, "original_max_seq_len", 0))

    def length_key(self, length: int) -> int:
        """A length that gives the same base as `length`; 0 where the base is the one of short prompts."""
        if not self.length_dependent:
            return 0
        if self._all_longrope and len(self._longrope_limits) == 1:
            (limit,) = self._longrope_limits
            return length if limit is None else (int(limit) + 1 if length > int(limit) else 0)
        return length if length > self._trained_length else 0

    def at(
        self, positions: Tensor, factors: Tensor, keys: Sequence[int], like: Tensor, layer_type: str | None
    ) -> Tables:
        """Tables cos and sin, each [groups, rows or 1, tokens, rotary dim], in the dtype of `like`.

        positions: int64 [rows or 1, tokens]. factors: float64 [groups]. keys: `length_key` of each row.
        """
        divided = (positions.double()[None] / factors[:, None, None]).float()
        distinct = sorted(set(keys))
        if len(distinct) == 1:
            return self._tables(divided, distinct[0], like, layer_type)
        divided = divided.expand(-1, len(keys), -1)
        found: Tables | None = None
        for key in distinct:
            rows = torch.tensor([row for row, own in enumerate(keys) if own == key], device=like.device)
            part = self._tables(divided[:, rows], key, like, layer_type)
            if found is None:
                found = tuple(table.new_empty(len(factors), len(keys), *table.shape[2:]) for table in part)  # type: ignore[assignment]
            for whole, piece in zip(found, part, strict=True):  # type: ignore[arg-type]
                whole[:, rows] = piece
        return found  # type: ignore[return-value]

    def _tables(self, divided: Tensor, key: int, like: Tensor, layer_type: str | None) -> Tables:
        """divided: float32 [groups, rows, tokens]."""
        more: dict[str, Any] = {"layer_type": layer_type} if self.by_layer_type else {}
        if self.length_dependent:
            self._choose_base(key, like, more)
        cos, sin = self._plain(self.module, like, position_ids=divided.flatten(0, 1), **more)
        shape = divided.shape
        return cos.view(*shape, -1), sin.view(*shape, -1)

    def _choose_base(self, key: int, like: Tensor, more: dict[str, Any]) -> None:
        """The module keeps the base of the longest sequence it has met until a short one comes by: so one does."""
        for length in (1, key) if key else (1,):
            self.module(like, position_ids=torch.tensor([[length - 1]], device=like.device), **more)


@contextmanager
def kept_base(model: nn.Module) -> Iterator[None]:
    """Afterwards the rotary modules have the base they had before: dynamic NTK keeps that of the longest sequence it
    has met, and what the model says to others would follow what was scored in between.
    """
    modules = [site.module for site in rotary_sites(model)] if has_length_dependent_rope(model) else []
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in modules]
    values = [
        {name: buffer.clone() for name, buffer in buffers.items() if buffer is not None} for *_, buffers in before
    ]
    try:
        yield
    finally:
        for (module, state, buffers), copies in zip(before, values, strict=True):
            for name, copy in copies.items():
                buffers[name].copy_(copy)  # type: ignore[union-attr]
            module._buffers.update(buffers)
            for name in [name for name in vars(module) if name.endswith("max_seq_len_cached") and name not in state]:
                delattr(module, name)
            vars(module).update({name: value for name, value in state.items() if not name.startswith("_")})
