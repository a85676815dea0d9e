"""How many tokens a batch may hold: from the memory that is free, by a stated formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ropewalk.errors import RopewalkError
from ropewalk.layers import is_split, text_config

CPU_TOKENS = 8192
"""Enough rows to divide them evenly among the cores (side_by_side.py), which hold a row or so each at a time."""
CUDA_TOKENS = 131_072
FREE_SHARE = 0.7  # the rest is for the head, the masks and the allocator's gaps
SMALLEST = 1


@dataclass
class Budget:
    """Tokens of one batch, all its candidates and its padding counted. Halved when memory runs out, for good.

    shared: by processes that have parts of one model, of which none may halve alone.
    """

    tokens: int
    shared: bool = False

    def halve(self, failed: int, *, smallest: int) -> None:
        """After a batch of `failed` tokens did not fit. Raises `RopewalkError` if it was the smallest."""
        if self.shared:
            raise RopewalkError(
                f"a batch of {failed} tokens does not fit into the memory of one of the model's GPUs; give it more GPUs"
            )
        if failed <= smallest:
            raise RopewalkError(
                f"a batch of {failed} tokens, the smallest possible one, does not fit into the GPU's memory; "
                "use shorter prompts, a smaller --dtype or another GPU"
            )
        self.tokens = max(smallest, failed // 2)


def bytes_per_token(model: Any) -> int:
    """Activations of one token at the peak of a layer, in bytes.

    The MLP's gate, up, and their product (3 I), the residual, the norm, the attention's output (3 H), the projections
    and their rotated copies (2 (q + 2 k)) in the model's dtype, and three float32 copies of the hidden state inside
    a norm (12 H).
    """
    config = text_config(model)
    hidden = config.hidden_size
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or hidden // heads
    projected = (heads + 2 * (getattr(config, "num_key_value_heads", None) or heads)) * size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    inner = inner if isinstance(inner, int) else max(inner)
    return int((3 * inner + 3 * hidden + 2 * projected) * model.dtype.itemsize + 12 * hidden)


def cache_bytes_per_token(model: Any) -> int:
    """Keys and values of one token in all layers, in bytes; twice, for a moment, when rows are dropped."""
    config = text_config(model)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = (getattr(config, "num_key_value_heads", None) or heads) * size
    return int(2 * 2 * config.num_hidden_layers * kept * model.dtype.itemsize)


def budget(model: Any, device: torch.device, tokens_per_batch: int | None = None, *, cached: bool = False) -> Budget:
    """tokens_per_batch, or as many as the device takes: min(CUDA_TOKENS, 0.7 * free memory / bytes a token) on CUDA.

    cached: keys and values of all layers are kept as well, as in generation.
    """
    if tokens_per_batch is not None:
        return Budget(tokens_per_batch)
    if device.type != "cuda":
        return Budget(CPU_TOKENS * 2 if cached else CPU_TOKENS)  # single tokens are slow in small batches
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    each = bytes_per_token(model) + (cache_bytes_per_token(model) if cached else 0)
    tokens = max(SMALLEST, min(CUDA_TOKENS, int(FREE_SHARE * free / each)))
    if is_split(model):  # its processes have to form the same batches
        least = torch.tensor(tokens, device=device)
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        return Budget(int(least), shared=True)
    return Budget(tokens)
