"""Where a model keeps its decoder layers and its rotary modules."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ropewalk.errors import UnsupportedModelError

# Names under which architectures keep their decoder layers; tried before any other list of the right length.
LAYER_LISTS = ("layers", "h", "blocks", "block", "decoder_layers")


@dataclass(frozen=True)
class RotarySite:
    """A place in the model that holds a rotary module.

    parent, name: `getattr(parent, name)` is the module. layer: index of the decoder layer that owns it, None for one
    that serves all layers.
    """

    parent: nn.Module
    name: str
    layer: int | None

    @property
    def module(self) -> nn.Module:
        """The module that stands there now."""
        module: nn.Module = getattr(self.parent, self.name)
        return module


def text_config(model: nn.Module) -> Any:
    """The config of the text decoder (a multimodal model keeps one inside its own)."""
    config = getattr(model, "config", None)
    if config is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no `config`; expected a transformers causal language model"
        )
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def text_decoder(model: nn.Module) -> nn.Module:
    """The module whose forward runs through the decoder layers, e.g. LlamaModel. Raises `UnsupportedModelError`."""
    return _find_layers(model)[0]


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers, first layer first. Raises `UnsupportedModelError` if there is no such list."""
    return _find_layers(model)[1]


def rotary_sites(model: nn.Module) -> list[RotarySite]:
    """Every rotary module of the text decoder, the shared ones first.

    A rotary module is one with an `inv_freq` (or `<layer type>_inv_freq`) buffer whose forward takes `position_ids`.
    """
    decoder, layers = _find_layers(model)
    shared = [RotarySite(parent, name, None) for parent, name in _rotary_children(decoder, skip=layers)]
    owned = [
        RotarySite(parent, name, index)
        for index, layer in enumerate(layers)
        for parent, name in _rotary_children(layer, skip=None)
    ]
    return shared + owned


def undecorated_forward(module: nn.Module) -> Callable[..., Any]:
    """The plain function under `@torch.no_grad()` and `@dynamic_rope_update`: it reads nothing off the positions."""
    plain: Callable[..., Any] = inspect.unwrap(type(module).forward)
    return plain


def is_rotary(module: nn.Module) -> bool:
    """True for a module that turns positions into rotary tables."""
    if not any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False)):
        return False
    return "position_ids" in inspect.signature(undecorated_forward(module)).parameters


def _find_layers(model: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    config = text_config(model)
    # longcat_flash counts its two attentions a layer in num_hidden_layers and its layers in num_layers.
    counts = [getattr(config, name, None) for name in ("num_hidden_layers", "num_layers")]
    get_decoder = getattr(model, "get_decoder", None)
    root = get_decoder() if callable(get_decoder) else model
    for start in (root, model):
        found = _search(start, counts) if isinstance(start, nn.Module) else None
        if found is not None:
            return found
    raise UnsupportedModelError(
        f"{type(model).__name__} has no list of decoder layers of length num_hidden_layers = {counts[0]}; "
        "expected a decoder-only language model"
    )


def _search(root: nn.Module, counts: list[int | None]) -> tuple[nn.Module, nn.ModuleList] | None:
    """Breadth first, for experts and branches are lists too but lie deeper."""
    queue = deque([root])
    while queue:
        module = queue.popleft()
        lists = {
            name: child
            for name, child in module.named_children()
            if isinstance(child, nn.ModuleList) and len(child) in counts and not any(is_rotary(m) for m in child)
        }
        for name in (*LAYER_LISTS, *lists):
            if name in lists:
                return module, lists[name]
        queue.extend(child for child in module.children() if not isinstance(child, nn.ModuleList))
    return None


def _rotary_children(root: nn.Module, skip: nn.ModuleList | None) -> Iterator[tuple[nn.Module, str]]:
    """(parent, name) of each rotary module under `root`; a module that two parents share is met twice."""
    for name, child in root.named_children():
        if child is skip:
            continue
        if is_rotary(child):
            yield root, name
        else:
            yield from _rotary_children(child, skip)
