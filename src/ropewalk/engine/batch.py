"""Rows and factors of one pass on the device, and the masks of the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ropewalk.engine.attention import visible
from ropewalk.engine.candidates import CandidateTree, Level


@dataclass(frozen=True)
class Batch:
    """Rows on the device. ids: int64 [R, T]. positions: int64 [R or 1, T]. segments: int64 [R, T], -1 is padding.

    stem: tokens from the left that are plain causal in every row; the rest needs masks. keys: length key of each row
    (rotary_tables.py). scored: int64 [R, S], places whose logits are wanted, padded with the last one of the row.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    stem: int
    keys: tuple[int, ...]
    scored: Tensor


class Views:
    """The masks of a batch in one pass, built once for all layers that ask for the same."""

    def __init__(self, batch: Batch) -> None:
        self.positions, self.segments = batch.positions.expand_as(batch.segments), batch.segments
        self.stem, self.of_scored = batch.stem, batch.scored
        self._found: dict[tuple[str, int | None, int], Tensor] = {}

    def tails(self, window: int | None, rows: int) -> Tensor:
        """Mask [rows, 1, T - stem, T] for what lies behind the stem; rows is a multiple of R."""
        return self._mask("tails", window, rows, lambda x: x[:, self.stem :])

    def scored(self, window: int | None, rows: int) -> Tensor:
        """Mask [rows, 1, S, T] for the scored places."""
        return self._mask("scored", window, rows, lambda x: x.gather(1, self.of_scored))

    def flat(self, rows: int) -> Tensor:
        """The scored places among rows * T tokens, int64 [rows * S]."""
        key = ("flat", None, rows)
        if key not in self._found:
            starts = torch.arange(rows, device=self.of_scored.device) * self.segments.shape[1]
            places = self.of_scored.repeat(rows // len(self.of_scored), 1) + starts[:, None]
            self._found[key] = places.flatten()
        return self._found[key]

    def _mask(self, name: str, window: int | None, rows: int, pick: Callable[[Tensor], Tensor]) -> Tensor:
        if window is not None and window >= self.segments.shape[1]:
            window = None
        key = (name, window, rows)
        if key not in self._found:
            mask = visible(pick(self.positions), pick(self.segments), self.positions, self.segments, window)
            self._found[key] = mask.repeat(rows // len(mask), 1, 1, 1)
        return self._found[key]


@dataclass(frozen=True)
class PlacedLevel:
    """A `Level` on the device. factors: float64 [groups]. parents: int64 [groups], None where groups are the same."""

    level: Level
    factors: Tensor
    parents: Tensor | None


def placed(tree: CandidateTree, device: torch.device) -> list[PlacedLevel]:
    """All levels in one transfer: one a layer would make the host wait for the device in each."""
    factors = torch.tensor([value for level in tree.levels for value in level.factors], dtype=torch.float64)
    parents = torch.tensor([value for level in tree.levels for value in level.parents or level.factors])
    sizes = [len(level.factors) for level in tree.levels]
    rows = zip(tree.levels, torch.split(factors.to(device), sizes), torch.split(parents.to(device), sizes), strict=True)
    return [PlacedLevel(level, own, None if level.parents is None else index.long()) for level, own, index in rows]
