"""Checkpoints whose weights are quantised: what can't be loaded here is refused by the quantiser's name, in one line.

Scaling factors act on rotary tables alone, so they work on whatever transformers can load. There is nothing to do for
any one quantiser; the check of every layer (verify.py) runs on the quantised model itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ropewalk.errors import PrerequisiteError, RopewalkError, UnsupportedModelError

PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def quantiser(config: Any) -> str | None:
    """The name of what the checkpoint of this config was quantised with, such as "awq"; None without."""
    given = getattr(config, "quantization_config", None)
    if given is None:
        return None
    entries = given if isinstance(given, dict) else given.to_dict()
    name = str(getattr(entries.get("quant_method"), "value", entries.get("quant_method") or "no quant_method"))
    bits = [bits for bits in ("8bit", "4bit") if entries.get(f"load_in_{bits}")]
    return " ".join([name, *bits])


@contextmanager
def refused_by_name(name: str, config: Any) -> Iterator[None]:
    """Load in this block: what the quantiser lacks here (a package, a GPU, a kernel) becomes one line with its name.

    Raises `UnsupportedModelError` for one that transformers doesn't know: it would load the numbers as they are.
    """
    method = quantiser(config)
    if method is None:
        yield
        return
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as KNOWN

    if method not in KNOWN and not method.startswith("bitsandbytes"):
        raise UnsupportedModelError(
            f"{name}: its weights are quantised by {method}, which this transformers does not read; it knows "
            f"{', '.join(sorted(KNOWN))}"
        )
    try:
        yield
    except (RopewalkError, SafetensorError, torch.OutOfMemoryError):
        raise
    except (ImportError, RuntimeError, NotImplementedError, ValueError, AttributeError, TypeError) as error:
        if "ignore_mismatched_sizes" in str(error):
            raise
        text = " ".join(str(error).split())[:300]
        raise PrerequisiteError(
            f"{name}: its weights are quantised ({method}), and that can't be loaded here: {text}"
        ) from error


def unify_dtype(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Give plain weights of several dtypes one: what transformers dequantised may differ from what was never quantised.

    dtype: None takes that of the first weight. Parameters alone: a rotary module's buffers stay float32.
    """
    weights = dict(model.named_parameters())
    kinds = {weight.dtype for weight in weights.values()}
    if len(kinds) < 2 or not kinds <= set(PLAIN) or any(type(one) is not nn.Parameter for one in weights.values()):
        return
    lists = [getattr(model, f"_keep_in_fp32_modules{kind}", None) or () for kind in ("", "_strict")]
    kept = {part for names in lists for part in names}
    target = dtype or next(iter(weights.values())).dtype
    for name, weight in weights.items():
        if not any(part in name for part in kept):
            weight.data = weight.data.to(target)
