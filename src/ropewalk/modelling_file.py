"""The modelling file of a remote-code export, as the rest of ropewalk has to know it: its factors must act once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ropewalk.factors import CONFIG_KEY
from ropewalk.layers import text_decoder

MODELING = "modeling_ropewalk.py"


def own_auto_map(auto_map: Mapping[str, Any]) -> dict[str, Any]:
    """A config's `auto_map` without the entries that an export of ropewalk made."""
    own = f"{MODELING.removesuffix('.py')}."
    return {name: place for name, place in auto_map.items() if not str(place).rpartition("--")[2].startswith(own)}


def release_own_code(model: nn.Module) -> list[float | None] | None:
    """Take out the factors that an export's modelling file put into a model, lest they scale a second time.

    Returns them; None for any other model.
    """
    brought: Any = text_decoder(model).__dict__.pop(CONFIG_KEY, None)
    if brought is None:
        return None
    brought.remove()
    return list(brought.values)
