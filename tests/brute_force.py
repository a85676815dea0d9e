"""Scaling written in by hand, with nothing of ropewalk: a copy of the rotary module for each layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tiny import logits


@contextmanager
def by_brute_force(model: Any, factors: Sequence[float]) -> Iterator[None]:
    """In the block, layer i of a model without factors rotates by tables of inv_freq / factors[i]."""
    decoder = model.get_decoder() if not hasattr(model, "get_base_model") else model.get_base_model().get_decoder()
    handles = [
        layer.register_forward_pre_hook(_own_tables(decoder.rotary_emb, factor), with_kwargs=True)
        for layer, factor in zip(decoder.layers, factors, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def brute_force_logits(model: Any, factors: Sequence[float], ids: torch.Tensor | None = None) -> torch.Tensor:
    """float [rows, tokens, vocabulary] of the model with such factors, without gradients or cache."""
    with by_brute_force(model, factors):
        return logits(model, ids)


def _own_tables(rotary: nn.Module, factor: float) -> Callable[..., Any]:
    own: Any = copy.deepcopy(rotary)
    own.inv_freq = own.inv_freq / factor

    def hook(_layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return args, kwargs | {"position_embeddings": own(hidden, kwargs["position_ids"])}

    return hook
