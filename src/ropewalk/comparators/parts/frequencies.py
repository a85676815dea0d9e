"""Methods that only change a model's frequencies: `inv_freq` and the factor on cos and sin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.layers import rotary_sites, text_config


def plain_rotary_refusal(model: nn.Module) -> str | None:
    """Why the model is not one with one rotary module of the plain scheme; None if it is."""
    sites = rotary_sites(model)
    if not sites:
        return "it has no rotary position"
    if len(sites) > 1:
        return f"it has {len(sites)} rotary modules, expected one that serves all layers"
    scheme = getattr(sites[0].module, "rope_type", None)
    if scheme != "default" or not hasattr(sites[0].module, "inv_freq"):
        return f"its rope type is {scheme!r}, and the formula is for the plain one ('default')"
    parameters = getattr(text_config(model), "rope_parameters", None) or {}
    if not isinstance(parameters.get("rope_theta"), (int, float)):
        return "its config names no single rope_theta"
    return None


def plain_rotary(model: nn.Module) -> tuple[nn.Module, float, int]:
    """Rotary module, base and rotary dimensions of a model without `plain_rotary_refusal`."""
    (site,) = rotary_sites(model)
    inv_freq: Tensor = site.module.inv_freq  # type: ignore[assignment]
    return site.module, float(text_config(model).rope_parameters["rope_theta"]), 2 * inv_freq.numel()


def frequencies_of(base: float, dimensions: int) -> Tensor:
    """float64 [dimensions / 2]: base^(−2i / dimensions)."""
    exponent = torch.arange(0, dimensions, 2, dtype=torch.float64) / dimensions
    return torch.pow(torch.tensor(base, dtype=torch.float64), -exponent)


@contextmanager
def frequencies(
    model: nn.Module, inv_freq: Tensor, attention_scaling: float, parameters: Mapping[str, Any]
) -> Iterator[None]:
    """Other frequencies (float64 [rotary_dim / 2]) for the length of a `with` block.

    parameters: what the config says of them meanwhile (`rope_parameters`), so that nothing takes the model for vanilla.
    """
    rotary, _, _ = plain_rotary(model)
    config = text_config(model)
    before: Tensor = rotary.inv_freq  # type: ignore[assignment]
    scaling, said = rotary.attention_scaling, config.rope_parameters
    try:
        rotary.inv_freq = inv_freq.to(before.device, before.dtype)
        rotary.attention_scaling = attention_scaling  # type: ignore[assignment]
        config.rope_parameters = {**said, **parameters}
        yield
    finally:
        rotary.inv_freq = before
        rotary.attention_scaling = scaling
        config.rope_parameters = said
