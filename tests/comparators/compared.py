"""Methods with options that show on small prompts, and what the suites of this folder do with a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from ropewalk.comparators import comparator_class, comparator_names
from ropewalk.comparators.base import Comparator

# Options under which a prompt of 20 tokens shows what a method does.
COMPARED: dict[str, dict[str, Any]] = {
    "self-extend": {"group": 3, "window": 5},
    "ms-poe": {"first_layer": 0},
    "yarn": {"factor": 4.0, "trained_length": 64},
}
PROMPT_ONLY = {"query-first"}
every_comparator = pytest.mark.parametrize("name", comparator_names())


def made(name: str, **options: Any) -> Comparator:
    return comparator_class(name)(**(COMPARED.get(name, {}) | options))


def generated(model: PreTrainedModel, ids: torch.Tensor, **more: Any) -> torch.Tensor:
    mask = more.pop("attention_mask", torch.ones_like(ids))
    with torch.no_grad():
        return model.generate(ids, attention_mask=mask, max_new_tokens=6, min_new_tokens=6, do_sample=False, **more)


def chunked(model: PreTrainedModel, ids: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    """Logits of the prompt read piece by piece into one KV cache."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        parts = [model(input_ids=part, past_key_values=cache, use_cache=True).logits for part in ids.split(cuts, 1)]
    return torch.cat(parts, dim=1)
