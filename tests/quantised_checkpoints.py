"""Quantised copies of a tiny checkpoint, written by hand, and the plain weights that they stand for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Written = dict[str, torch.Tensor]
Quantise = Callable[[str, torch.Tensor], tuple[Written, torch.Tensor]]

BLOCK = 32


def fp8_by_block(name: str, weight: torch.Tensor) -> tuple[Written, torch.Tensor]:
    """As DeepSeek-V3 and Qwen3-FP8: float8 with a scale for each block of 32 x 32."""
    blocks = weight.view(weight.shape[0] // BLOCK, BLOCK, weight.shape[1] // BLOCK, BLOCK)
    scale = blocks.abs().amax((1, 3)) / 448
    whole = scale[:, None, :, None]
    small = (blocks / whole).to(torch.float8_e4m3fn)
    plain = (small.float() * whole).view_as(weight)
    return {f"{name}.weight": small.view_as(weight), f"{name}.weight_scale_inv": scale}, plain


def fp8_by_row(name: str, weight: torch.Tensor) -> tuple[Written, torch.Tensor]:
    """compressed-tensors, float-quantized: a scale for each output channel."""
    scale = weight.abs().amax(1, keepdim=True) / 448
    small = (weight / scale).to(torch.float8_e4m3fn)
    return {f"{name}.weight": small, f"{name}.weight_scale": scale}, small.float() * scale


def int4_by_group(name: str, weight: torch.Tensor) -> tuple[Written, torch.Tensor]:
    """compressed-tensors, pack-quantized: eight numbers in an int32, a scale for each 32 inputs."""
    groups = weight.view(weight.shape[0], -1, BLOCK)
    scale = groups.abs().amax(-1) / 7
    small = (groups / scale[..., None]).round().clamp(-8, 7)
    shifts = 4 * torch.arange(8)
    packed = ((small.view(weight.shape[0], -1, 8).long() + 8) << shifts).sum(-1)
    written = {
        f"{name}.weight_packed": (packed - (packed >= 2**31) * 2**32).to(torch.int32),
        f"{name}.weight_scale": scale,
        f"{name}.weight_shape": torch.tensor(weight.shape),
    }
    return written, (small * scale[..., None]).view_as(weight)


def compressed_tensors(kind: str, weights: dict[str, Any]) -> dict[str, Any]:
    scheme = {
        "targets": ["Linear"],
        "weights": weights | {"symmetric": True, "dynamic": False},
        "input_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": kind,
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": ["lm_head"],
    }


KINDS: dict[str, tuple[Quantise, dict[str, Any]]] = {
    "fp8": (fp8_by_block, {"quant_method": "fp8", "weight_block_size": [BLOCK] * 2, "activation_scheme": "dynamic"}),
    "compressed-tensors, float8": (
        fp8_by_row,
        compressed_tensors("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    ),
    "compressed-tensors, int4": (
        int4_by_group,
        compressed_tensors("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": BLOCK}),
    ),
}


def write_quantised(kind: str, source: Path, out: Path) -> dict[str, torch.Tensor]:
    """Write the copy; returns the weights that a plain model needs to be the same."""
    quantise, entry = KINDS[kind]
    shutil.copytree(source, out)
    written, plain = {}, {}
    for name, weight in load_file(out / "model.safetensors").items():
        plain[name] = weight
        if name.endswith("_proj.weight"):
            own, plain[name] = quantise(name.removesuffix(".weight"), weight)
            written |= own
        else:
            written[name] = weight
    save_file(written, out / "model.safetensors", metadata={"format": "pt"})
    edit_config(out, quantization_config=entry)
    return plain


def edit_config(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
