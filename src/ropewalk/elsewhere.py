"""A model whose weights are in other processes: here it has its config and its modules, and knows who holds the rest.

What would have to be computed with the weights is asked of its holders: who the model is, which layers are rotary, on
what it runs, and every score (`ropewalk.answers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

_ATTRIBUTE = "_ropewalk_holders"


@dataclass(frozen=True)
class Facts:
    """What a holder says of the model it has.

    identity, base: of `ropewalk.identity`. layers: one `LayerReport` a layer. provenance: of `ropewalk.provenance`.
    digest: of samples of all weights, and of the tokenizer.
    """

    identity: Mapping[str, Any]
    base: Mapping[str, Any]
    layers: tuple[Any, ...]
    provenance: Mapping[str, Any]
    digest: str


class Holders(Protocol):
    """The processes that hold a model. memory_gib: the most that one of them has used."""

    facts: Facts
    memory_gib: float


def hand_over(model: Any, holders: Holders) -> None:
    """Let a model without weights be one that the holders have."""
    vars(model)[_ATTRIBUTE] = holders


def holders_of(model: Any) -> Any:
    """Who has the model's weights (`Holders`; where it can be scored, `answers.Answerers`); None: the model itself."""
    return vars(model).get(_ATTRIBUTE)
