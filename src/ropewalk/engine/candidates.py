"""Which layers several candidates share: those below the first one where their factors differ are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Factors = Sequence[float | None]


@dataclass(frozen=True)
class Level:
    """One layer of the tree. factors: the layer's factor in each of its groups, [groups].

    parents: the group of the layer below that each group goes on from; None where the groups are the same.
    """

    factors: tuple[float, ...]
    parents: tuple[int, ...] | None


@dataclass(frozen=True)
class CandidateTree:
    """Candidates grouped at each layer by their factors up to there.

    levels: one a layer, the first layer first. leaves: for each candidate its group in the last layer.
    """

    levels: tuple[Level, ...]
    leaves: tuple[int, ...]

    @property
    def width(self) -> int:
        """Groups in the last layer: the different candidates."""
        return len(self.levels[-1].factors)

    @property
    def layers_computed(self) -> int:
        """Layers computed for one prompt; without sharing it would be candidates times layers."""
        return sum(len(level.factors) for level in self.levels)


def candidate_tree(candidates: Sequence[Factors]) -> CandidateTree:
    """The tree of candidates, each with one factor a layer; None (no factor) counts as 1."""
    rows = [tuple(1.0 if value is None else float(value) for value in candidate) for candidate in candidates]
    levels: list[Level] = []
    groups = [0] * len(rows)
    before = 1
    for layer in range(len(rows[0])):
        keys = [(group, row[layer]) for group, row in zip(groups, rows, strict=True)]
        found = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        parents = tuple(group for group, _ in found)
        levels.append(Level(tuple(factor for _, factor in found), None if len(found) == before else parents))
        groups, before = [found[key] for key in keys], len(found)
    return CandidateTree(tuple(levels), tuple(groups))
