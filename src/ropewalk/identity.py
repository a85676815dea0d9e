"""Which model is this? A fingerprint that survives dtype, device, patching and re-saving, but not other weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.elsewhere import holders_of
from ropewalk.layers import decoder_layers, text_config, text_decoder

SHAPE_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)
EMBEDDING_ROWS = 16


def model_identity(model: nn.Module) -> dict[str, Any]:
    """Name, model_type, num_layers and fingerprint of a model, as stored in `factors.json`.

    The fingerprint is a SHA-256 over model_type, shape fields, the norm weights of the decoder and 16 rows of the
    embedding, all rounded to bfloat16: equal for one checkpoint loaded in float32 or bfloat16 on any device, different
    for another initialisation or a fine-tune that touches these weights. (Adapters merged into the linear layers alone
    do not change it.) Weights on the `meta` device count as far as accelerate can hand them out.
    """
    holders = holders_of(model)
    if holders is not None:
        return dict(holders.facts.identity)
    config = text_config(model)
    path = getattr(model.config, "_name_or_path", "") or ""
    return {
        "name": PurePath(path).name or str(config.model_type),
        "model_type": str(config.model_type),
        "num_layers": len(decoder_layers(model)),
        "fingerprint": _fingerprint(model, config),
    }


def base_scheme(model: nn.Module) -> dict[str, Any]:
    """The `rope_parameters` of the text config as plain JSON: what the factors multiply. Empty if there are none."""
    parameters = getattr(text_config(model), "rope_parameters", None) or {}
    scheme: dict[str, Any] = json.loads(json.dumps(dict(parameters), default=_plain))
    return scheme


def _fingerprint(model: nn.Module, config: Any) -> str:
    shape = {name: getattr(config, name, None) for name in SHAPE_FIELDS}
    digest = hashlib.sha256(json.dumps([config.model_type, shape], sort_keys=True, default=str).encode())
    for name, sample in _samples(model):
        digest.update(name.encode())
        bits = sample.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16)
        digest.update(bits.numpy().tobytes())
    return "sha256:" + digest.hexdigest()


def _samples(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, weights) of the embedding's sampled rows and of every norm in the decoder."""
    get_embeddings = getattr(model, "get_input_embeddings", None)
    embeddings = get_embeddings() if callable(get_embeddings) else None
    weight = _weight(embeddings, "weight") if isinstance(embeddings, nn.Module) else None
    if weight is not None:
        yield "embedding", weight[[weight.shape[0] * step // EMBEDDING_ROWS for step in range(EMBEDDING_ROWS)]]
    for path, module in text_decoder(model).named_modules():
        if "norm" not in path.lower():
            continue
        for name, _ in module.named_parameters(recurse=False):
            parameter = _weight(module, name)
            if parameter is not None and parameter.dim() == 1 and parameter.is_floating_point():
                yield f"{path}.{name}", parameter


def _weight(module: nn.Module, name: str) -> Tensor | None:
    """The weight, from where accelerate keeps it if it is offloaded; None if it can't be had.

    One that is split over processes (`tp_plan`) is put together again: every process has to ask for it.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        return None
    if hasattr(weight, "full_tensor"):
        whole: Tensor = weight.full_tensor()
        return whole
    if weight.device.type != "meta":
        return weight
    offloaded = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
    kept = offloaded[name] if offloaded is not None else None
    return kept if isinstance(kept, Tensor) else None


def _plain(value: Any) -> Any:
    return dict(value) if hasattr(value, "keys") else str(value)
