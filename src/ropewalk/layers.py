"""Where a model keeps its decoder layers and its rotary modules."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
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


def inner_model(model: nn.Module) -> nn.Module:
    """The transformers model inside a PeftModel, adapter layers included; any other model is its own."""
    get_base = getattr(model, "get_base_model", None)
    inner: nn.Module = get_base() if callable(get_base) else model
    return inner


def scored_model(model: nn.Module) -> nn.Module:
    """`inner_model`, whose forward and layers give what the PeftModel gives.

    Raises `UnsupportedModelError` for an adapter that acts outside of them, at the PeftModel's own forward.
    """
    inner = inner_model(model)
    if inner is model:
        return model
    config: Any = model.active_peft_config
    if config.is_prompt_learning or getattr(config, "alora_invocation_tokens", None):
        raise UnsupportedModelError(
            f"its adapter is a {type(config).__name__}, which acts on the prompt before the layers: ropewalk can apply "
            "factors to such a model but not score its prompts; use an adapter inside the layers, such as LoRA"
        )
    return inner


def input_device(model: nn.Module) -> torch.device:
    """Where the model takes its token ids, also if accelerate keeps the embedding's weights elsewhere."""
    get_embeddings = getattr(model, "get_input_embeddings", None)
    embeddings = get_embeddings() if callable(get_embeddings) else None
    execution = getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None)
    if execution is not None:
        return torch.device(execution)
    weights = [*(embeddings.parameters() if embeddings is not None else ()), *model.parameters()]
    return next((weight.device for weight in weights if weight.device.type != "meta"), torch.device("cpu"))


def is_plain_linear(module: Any) -> bool:
    """True for a Linear whose own weight is what it multiplies with: not quantised, split, offloaded or adapted."""
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter and not module.weight.is_meta


def is_split(model: nn.Module) -> bool:
    """True for weights of which each of several processes has a part (`tp_plan`): all of them must do the same."""
    return any(hasattr(weight, "full_tensor") for weight in model.parameters())


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
