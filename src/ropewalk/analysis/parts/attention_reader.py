"""Reads what every layer of a model attends to on a prompt: the model's own forward with an attention that keeps count.

Transformers lets a config name the function that gets each layer's queries and keys after rotation, norms and shared
heads, and another one that makes its masks. Both are ours for the length of a reading. So any model that goes through
that interface can be read, with factors or without; the first reading of a model is compared with its own forward, and
one that says something else is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from ropewalk.analysis.parts.attention_statistics import LayerAttention, Rows, attend
from ropewalk.engine.forward import float32_head, forget_longest
from ropewalk.engine.rope_schemes import has_length_dependent_rope
from ropewalk.engine.rotary_tables import kept_base
from ropewalk.engine.scorer import evaluation_mode
from ropewalk.engine.self_check import largest_difference, tolerance
from ropewalk.errors import UnsupportedModelError
from ropewalk.layers import decoder_layers, input_device, is_rotary, scored_model, text_config
from ropewalk.patch import rotary_layers
from ropewalk.rotary import LayerwiseRotary

NAME = "ropewalk_reading"  # as configs call this attention
SCORE_TERMS = ("s_aux", "position_bias", "attention_bias")  # arguments by which a model adds to its scores

_COLLECTOR: ContextVar[_Collector] = ContextVar("collector")
_CHECKED: WeakSet[nn.Module] = WeakSet()


@dataclass(frozen=True)
class Reading:
    """What a model does on one prompt of T tokens.

    layers: by index, the layers that attend through the interface, all rotary ones among them. rotations: by index of
    a rotary layer, complex [T, pairs]: the rotation of each pair of dimensions between two tokens that are so many
    tokens apart, as applied, factors included, times the scheme's own attention scaling. log_likelihood: mean nats a
    token of the scored ones.
    """

    layers: dict[int, LayerAttention]
    rotations: dict[int, NDArray[np.complex128]]
    log_likelihood: float


def read_attention(model: Any, ids: Sequence[int], first: int) -> Reading:
    """Read one prompt under whatever factors the model carries now; `ids[first:]` are the scored tokens.

    Raises `UnsupportedModelError` for a model whose attention can't be read, with the reason.
    """
    plain = scored_model(model)
    needed = rotary_layers(plain)
    with torch.no_grad(), evaluation_mode(plain), float32_head(plain), kept_base(plain):
        collector = _Collector(decoder_layers(plain))
        with _reading(plain, collector):
            try:
                found = _log_likelihood(plain, ids, first)
            except torch.cuda.OutOfMemoryError:
                raise
            except UnsupportedModelError as error:
                raise _refusal(plain, str(error)) from None
            except Exception as error:
                raise _refusal(plain, f"its forward fails with {type(error).__name__}: {error}") from error
        missing = [layer for layer in needed if layer not in collector.found]
        if missing:
            raise _refusal(plain, f"layers {missing} don't attend through transformers' attention interface")
        if plain not in _CHECKED:
            _check(plain, ids, first, found)
            _CHECKED.add(plain)
    return Reading(collector.found, collector.rotations(needed), found)


@dataclass
class _Collector:
    """What the layers of one forward pass said so far."""

    layers: nn.ModuleList
    found: dict[int, LayerAttention] = field(default_factory=dict)
    tables: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._owner = {module: index for index, layer in enumerate(self.layers) for module in layer.modules()}

    def take(self, module: nn.Module, read: LayerAttention) -> None:
        """What a module that attended looked at."""
        layer = self._owner.get(module)
        if layer is None:
            return  # an encoder of another kind of input
        if layer in self.found:
            raise UnsupportedModelError(f"layer {layer} attends more than once in a forward pass")
        self.found[layer] = read

    def given(self, module: nn.Module, _: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A hook before a module: the rotary tables that it is given."""
        if kwargs.get("position_embeddings") is not None:
            self.tables[self._owner[module]] = kwargs["position_embeddings"]

    def made(self, module: nn.Module, _: tuple[Any, ...], tables: Any) -> None:
        """A hook behind a rotary module that a layer owns: the tables that it makes."""
        self.tables[self._owner[module]] = tables

    def hooks(self) -> Iterator[Any]:
        for module, layer in self._owner.items():
            if isinstance(module, LayerwiseRotary) or (is_rotary(module) and module not in self._wrapped()):
                yield module.register_forward_hook(self.made)
            elif module is not self.layers[layer] and "position_embeddings" in _parameters(module):
                yield module.register_forward_pre_hook(self.given, with_kwargs=True)

    def _wrapped(self) -> set[nn.Module]:
        """Rotary modules whose tables a wrapper replaces."""
        return {module.base for module in self._owner if isinstance(module, LayerwiseRotary)}

    def rotations(self, needed: Sequence[int]) -> dict[int, NDArray[np.complex128]]:
        return {layer: rotations(self.tables[layer]) for layer in needed if layer in self.tables}


def _parameters(module: nn.Module) -> Mapping[str, Any]:
    return inspect.signature(module.forward).parameters


def rotations(tables: Any) -> NDArray[np.complex128]:
    """Rotations, complex [T, pairs], fastest pair first, from (cos, sin) [..., T, rotary dim] or from
    complex tables [..., T, pairs].

    cos and sin hold each pair twice, side by side or in two halves.
    """
    if isinstance(tables, Tensor):
        flat = tables.reshape(-1, *tables.shape[-2:])[0]
        return np.asarray(flat.to(torch.complex128).cpu().numpy())
    cos, sin = (table.reshape(-1, *table.shape[-2:])[0].double().cpu().numpy() for table in tables)
    both = cos + 1j * sin
    half = both.shape[1] // 2
    return np.asarray(both[:, :half] if np.array_equal(both[:, :half], both[:, half:]) else both[:, ::2])


@contextmanager
def _reading(model: nn.Module, collector: _Collector) -> Iterator[None]:
    """All attention of `model` goes to the collector; afterwards its configs are as they were."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _mask)
    configs = {id(config): config for module in model.modules() if (config := getattr(module, "config", None))}
    before = {
        key: config._attn_implementation_internal
        for key, config in configs.items()
        if hasattr(config, "_attn_implementation_internal")
    }
    handles = list(collector.hooks())
    token = _COLLECTOR.set(collector)
    try:
        for key in before:
            configs[key]._attn_implementation_internal = NAME
        yield
    finally:
        for key, implementation in before.items():
            configs[key]._attn_implementation_internal = implementation
        _COLLECTOR.reset(token)
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Visible:
    """What stands in the place of a mask: which keys a query sees, asked for block by block."""

    sees: Callable[..., Any]
    keys: int
    device: torch.device

    def rows(self, start: int, stop: int) -> Tensor:
        """Seen or not, bool [stop - start, keys]."""
        queries = torch.arange(start, stop, device=self.device)[:, None]
        keys = torch.arange(self.keys, device=self.device)[None]
        zero = torch.zeros(1, 1, dtype=torch.int64, device=self.device)  # of the batch, and of the heads
        seen: Tensor = self.sees(zero, zero, queries, keys)
        return seen.expand(stop - start, self.keys)


def _mask(*, kv_length: int, mask_function: Callable[..., Any], device: torch.device, **_: Any) -> _Visible:
    """A mask function of transformers' interface."""
    return _Visible(mask_function, kv_length, device)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **more: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers' interface: [1, H, T, D] in, [1, T, H, D] out."""
    added = [name for name in SCORE_TERMS if more.get(name) is not None]
    if added:
        raise UnsupportedModelError(f"it adds {added[0]} to its scores")
    if attention_mask is not None and not isinstance(attention_mask, _Visible):
        raise UnsupportedModelError("it makes a mask of its own, which would be of all queries and keys")
    scale = more.get("scaling")
    out, read = attend(
        query[0],
        key[0],
        value[0],
        _causal(query) if attention_mask is None else attention_mask.rows,
        float(query.shape[-1] ** -0.5 if scale is None else scale),
        more.get("softcap"),
    )
    _COLLECTOR.get().take(module, read)
    return out.transpose(0, 1)[None].contiguous(), None


def _causal(query: Tensor) -> Rows:
    return _Visible(lambda _batch, _head, asking, key: key <= asking, query.shape[2], query.device).rows


def _log_likelihood(model: Any, ids: Sequence[int], first: int) -> float:
    """Mean nats a scored token, from the model's own forward pass."""
    if has_length_dependent_rope(model):
        forget_longest(model)
    given = torch.tensor([list(ids)], device=input_device(model))
    places = list(range(first - 1, len(ids) - 1))  # a tensor would follow the input to its device, not the last layer's
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(input_ids=given, logits_to_keep=places, use_cache=False).logits[0]
    else:
        logits = model(input_ids=given, use_cache=False).logits[0, places]
    chosen = torch.log_softmax(logits.double(), dim=-1).gather(1, given[0, first:, None])
    return float(chosen.mean())


def _check(model: Any, ids: Sequence[int], first: int, found: float) -> None:
    """Raise `UnsupportedModelError` where the model's own attention says something else."""
    expected = _log_likelihood(model, ids, first)
    difference = largest_difference([found], [expected])
    if difference is not None and difference > tolerance(model.dtype):
        raise _refusal(
            model,
            f"with softmax(q·k) the log-likelihood is {found:.4f} nats a token, the model's own is {expected:.4f}: its "
            "attention does more",
        )


def _refusal(model: nn.Module, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"the attention of model type {text_config(model).model_type!r} can't be read: {why}")
