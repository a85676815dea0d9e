"""Scaling by brute force, independent of ropewalk: each layer's tables are computed anew from inv_freq / s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def brute_force(decoder: nn.Module, layers: Sequence[nn.Module], factors: Sequence[float | None]) -> Iterator[None]:
    """Within the block, layer i's rotary modules run with inv_freq / factors[i], one call a layer."""
    in_layers = {id(module) for layer in layers for module in layer.modules()}
    shared = [m for m in decoder.modules() if _has_frequencies(m) and id(m) not in in_layers]
    calls: dict[int, tuple[Any, ...]] = {}
    handles = [module.register_forward_hook(_remember(calls), with_kwargs=True) for module in shared]
    undo: list[tuple[nn.Module, dict[str, torch.Tensor]]] = []
    for layer, factor in zip(layers, factors, strict=True):
        handles.append(layer.register_forward_pre_hook(_recompute(calls, factor or 1.0), with_kwargs=True))
        for module in layer.modules():
            if _has_frequencies(module):
                undo.append((module, _scale(module, factor or 1.0)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, kept in undo:
            _restore(module, kept)


def _has_frequencies(module: nn.Module) -> bool:
    return any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))


def _key(value: Any) -> int | None:
    """A rotary module's output is recognised by its first tensor."""
    if isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor):
        value = value[0]
    return id(value) if isinstance(value, torch.Tensor) else None


def _remember(calls: dict[int, tuple[Any, ...]]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        # The output is kept, so that no other tensor can get its id.
        calls[_key(output)] = (module, args, kwargs, output)

    return hook


def _recompute(calls: dict[int, tuple[Any, ...]], factor: float) -> Any:
    def again(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: again(item) for key, item in value.items()}
        if _key(value) not in calls:
            return value
        module, args, kwargs, _ = calls[_key(value)]
        kept = _scale(module, factor)
        try:
            return module.forward(*args, **kwargs)
        finally:
            _restore(module, kept)

    def hook(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        return tuple(again(value) for value in args), {key: again(value) for key, value in kwargs.items()}

    return hook


def _scale(module: nn.Module, factor: float) -> dict[str, Any]:
    """Divide the frequencies in place; returns what `_restore` needs."""
    kept: dict[str, Any] = {}
    for name, buffer in module.named_buffers(recurse=False):
        if name.endswith("inv_freq"):
            kept[name] = buffer.clone()
            buffer.copy_((buffer.double() / factor).to(buffer.dtype))
    if hasattr(module, "rope_init_fn"):
        # phimoe computes its frequencies in every call.
        initial = kept["rope_init_fn"] = module.rope_init_fn
        module.rope_init_fn = lambda *args, **kwargs: (
            initial(*args, **kwargs)[0] / factor,
            initial(*args, **kwargs)[1],
        )
    return kept


def _restore(module: nn.Module, kept: dict[str, Any]) -> None:
    for name, value in kept.items():
        if isinstance(value, torch.Tensor):
            getattr(module, name).copy_(value)
        else:
            setattr(module, name, value)
