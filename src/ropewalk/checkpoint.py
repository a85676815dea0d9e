"""Model and tokenizer from a folder, a hub id or a GGUF file, with the scaling factors that the checkpoint carries."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import RopewalkError
from ropewalk.quiet import quiet_transformers

CONFIG_KEY = "rope_layer_factors"


def load_pretrained(
    path_or_hub_id: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    any_model: bool = False,
    apply_factors: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load (first working version; see the module)."""
    place = torch.device(device) if device else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(path_or_hub_id)
        model = AutoModelForCausalLM.from_pretrained(
            path_or_hub_id, dtype=dtype or default_dtype(place), use_safetensors=True
        )
    model.to(place).eval()
    factors = getattr(model.config, CONFIG_KEY, None)
    if factors is not None and apply_factors:
        from ropewalk.factors import ScalingFactors
        from ropewalk.patch import apply

        apply(model, ScalingFactors(factors), any_model=any_model)
    return model, tokenizer


def default_dtype(device: str | torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it (CUDA from Ampere on; CPUs with AVX512-BF16 or AMX), else float32."""
    place = torch.device(device)
    if place.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if place.type == "cpu":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    return torch.float32
