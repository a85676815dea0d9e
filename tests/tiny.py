"""Tiny random models for the tests of the core, drawn wide so that attention is sharp."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_model(model_type: str = "llama", *, seed: int = 0, **config: Any) -> PreTrainedModel:
    """A four-layer model with weights of `seed`, in evaluation mode."""
    built = AutoConfig.for_model(model_type, **(SHAPE | config))
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(built).eval()


def prompt(rows: int = 2, tokens: int = 20) -> torch.Tensor:
    """int64 [rows, tokens] of token ids."""
    return torch.randint(3, 128, (rows, tokens), generator=torch.Generator().manual_seed(1))


def logits(model: PreTrainedModel, ids: torch.Tensor | None = None, **more: Any) -> torch.Tensor:
    """float [rows, tokens, vocabulary] without gradients or cache."""
    with torch.no_grad():
        return model(input_ids=prompt() if ids is None else ids, use_cache=False, **more).logits
