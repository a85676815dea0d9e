"""`LayerwiseRotary`: cos/sin tables of every layer from one call of the model's own rotary module.

Layer l divides the position by its factor s_l: angle = f_base(p / s_l) (arXiv 2503.04355, equation 4). Two parts work
together: a wrapper in the place of the rotary module, which returns one entry a layer, and one around each decoder
layer's forward, which picks its own. There is no state between the two, so checkpoint recompute, reordering and
`torch.compile` are all safe.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk import rotary_formula
from ropewalk.layers import RotarySite, decoder_layers, rotary_sites, undecorated_forward

Entry = Tensor | tuple[Tensor, ...]

# Rope types whose frequencies are chosen once, when the model is built.
FIXED_BASE = {"default", "linear", "llama3", "yarn"}


class PerLayer(list[Any]):
    """What the wrapper returns: one entry (cos and sin, or whatever the rotary module returns) a layer."""


def own_entry(forward: Callable[..., Any], layer: int, *args: Any, **kwargs: Any) -> Any:
    """Call a decoder layer's `forward` with its own entry in the place of every `PerLayer`.

    It stands, as a partial, in the place of the layer's forward and runs in every layer for every token. A hook would
    take torch's longer way of calling a module, which is felt where the host is what holds a token up.
    """
    if type(kwargs.get("position_embeddings")) is PerLayer:
        kwargs["position_embeddings"] = kwargs["position_embeddings"][layer]
        return forward(*args, **kwargs)
    return forward(
        *[_picked(value, layer) for value in args], **{key: _picked(value, layer) for key, value in kwargs.items()}
    )


def _picked(value: Any, layer: int) -> Any:
    """The layer's entry of a `PerLayer`, also within a dict by layer type; any other value as it is."""
    if isinstance(value, PerLayer):
        return value[layer]
    if isinstance(value, dict) and any(isinstance(item, PerLayer) for item in value.values()):
        return {key: item[layer] if isinstance(item, PerLayer) else item for key, item in value.items()}
    return value


class LayerwiseRotary(nn.Module):
    """Stands in the place of a rotary module and computes the tables of all layers at once.

    base: the model's own rotary module; attributes that are unknown here are looked up there.
    num_layers: decoder layers of the model.
    layer: None for a module that serves all layers, which returns a `PerLayer`; else the decoder layer that owns the
    module, and the forward returns that layer's tables alone.

    One ordinary call with the true positions serves every layer whose factor is exactly 1, to the bit, and lets dynamic
    rope types choose their base from the true length; where neither is wanted it is left out. One batched call of the
    undecorated forward with the positions p / s then serves all DISTINCT other factors, or the same formula in fewer
    operations where `rotary_formula` knows it. Positions are divided in float64 and rounded to float32 once.

    The factors are a [F] tensor of the distinct values and a row number for each layer. Factors that differ between
    the rows of a batch would be a [F, B] tensor in the same place; nothing else here would change.
    """

    base: nn.Module

    def __init__(self, base: nn.Module, num_layers: int, layer: int | None = None) -> None:
        super().__init__()
        self.base = base
        self.num_layers = num_layers
        self.layer = layer
        self._plain = undecorated_forward(base)
        parameters = list(inspect.signature(self._plain).parameters)
        self._position_argument = parameters.index("position_ids") - 1
        self._follows_length = not has_fixed_base(base)
        self._has_formula = not self._follows_length and rotary_formula.agrees(base, self._plain)
        self.set_factors([None] * num_layers)
        self._register_load_state_dict_pre_hook(_add_base_to_keys)  # type: ignore[no-untyped-call]

    def set_factors(self, factors: Sequence[float | None]) -> None:
        """One factor a layer from now on; None is 1. Costs microseconds and touches no layer."""
        own = [1.0 if value is None else float(value) for value in factors]
        if self.layer is not None:
            own = [own[self.layer]]
        distinct = list(dict.fromkeys(value for value in own if value != 1.0))
        row_of = {value: row for row, value in enumerate(distinct)}
        # Not a buffer: `.to(bfloat16)` would round it, and it belongs in no checkpoint.
        self._divisors = torch.tensor(distinct, dtype=torch.float64, device="cpu").view(-1, 1, 1)
        self._rows = tuple(row_of.get(value, -1) for value in own)
        self._needs_ordinary = self._follows_length or -1 in self._rows
        device = next((buffer.device for buffer in self.base.buffers()), torch.device("cpu"))
        if device.type == "cuda":  # now, for else the first token waits for it, and a compiled model waits every time
            self.place(device)

    def place(self, device: torch.device) -> None:
        """Keep the factors on this device from now on: a graph that is captured there may not fetch them."""
        if device.type != "mps":  # without float64
            self._divisors = self._divisors.to(device)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Same arguments as the base module. Returns `PerLayer`, or one entry for a module owned by a layer."""
        ordinary = self.base(*args, **kwargs) if self._needs_ordinary else None
        scaled = self._scaled_entries(args, kwargs) if len(self._divisors) else []
        entries = [ordinary if row < 0 else scaled[row] for row in self._rows]
        return PerLayer(entries) if self.layer is None else entries[0]

    def _scaled_entries(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Entry]:
        """Entries of the distinct factors, from one call with positions [..., F * B, T]."""
        position_ids = self.positions(args, kwargs)
        if self._has_formula and position_ids.dim() == 2 and position_ids.device == self._divisors.device:
            positions = (position_ids / self._divisors).float()
            like: Tensor = kwargs["x"] if "x" in kwargs else args[0]
            cos, sin = rotary_formula.tables(self.base, positions, like.dtype)
            return list(zip(cos.unbind(0), sin.unbind(0), strict=True))
        positions, batch = self._divide(position_ids)
        tables = self.tables_at(positions, args, kwargs)
        flat = position_ids.dim() == 1
        count = len(self._divisors)
        if isinstance(tables, Tensor):
            return list(_split(tables, count, batch, flat))
        return list(zip(*(_split(table, count, batch, flat) for table in tables), strict=True))

    def positions(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The position_ids among the arguments of a call."""
        position_ids: Tensor = kwargs["position_ids"] if "position_ids" in kwargs else args[self._position_argument]
        return position_ids

    def tables_at(self, positions: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the undecorated forward gives for other, also fractional, positions and else the same arguments."""
        if "position_ids" in kwargs:
            kwargs = {**kwargs, "position_ids": positions}
        else:
            index = self._position_argument
            args = (*args[:index], positions, *args[index + 1 :])
        if "_hf_hook" in self.base.__dict__:
            # accelerate fetches offloaded buffers in the decorated forward only.
            from accelerate.utils import align_module_device

            with align_module_device(self.base):
                return self._plain(self.base, *args, **kwargs)
        return self._plain(self.base, *args, **kwargs)

    def _divide(self, position_ids: Tensor) -> tuple[Tensor, int]:
        """float32 positions / s, [..., F * B, T], from int positions [..., B, T] (leading axes: mrope's three)."""
        divisors = self._divisors
        # Apple's GPUs have no float64; dividing on the CPU there is exact and the table is small.
        exact_device = torch.device("cpu") if position_ids.device.type == "mps" else position_ids.device
        if divisors.device != exact_device:
            divisors = divisors.to(exact_device)
            if exact_device.type != "meta" and not torch.compiler.is_compiling():
                self._divisors = divisors
        positions = position_ids if position_ids.device == exact_device else position_ids.to(exact_device)
        positions = positions.unsqueeze(0) if positions.dim() == 1 else positions
        divided = (positions.unsqueeze(-3) / divisors).float().flatten(-3, -2)
        return divided if exact_device == position_ids.device else divided.to(position_ids.device), positions.shape[-2]

    def __getattr__(self, name: str) -> Any:
        modules: Mapping[str, nn.Module] = self.__dict__.get("_modules", {})
        if name in modules:
            return modules[name]
        # Private names stay apart: accelerate, for one, marks the modules that it hooks with them.
        if "base" in modules and not name.startswith("_"):
            return getattr(modules["base"], name)
        return super().__getattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        # A function under a decorator can't be pickled by name.
        return {key: value for key, value in self.__dict__.items() if key != "_plain"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._plain = undecorated_forward(self.base)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The base module's entries under the names they have without the wrapper."""
        return self.base.state_dict(*args, **kwargs)


def has_fixed_base(base: nn.Module) -> bool:
    """True for a rotary module of transformers whose frequencies do not change with the sequence's length."""
    kinds = getattr(base, "rope_type", None)
    named = set(kinds.values()) if isinstance(kinds, Mapping) else {kinds}
    return type(base).__module__.startswith("transformers.models.") and named <= FIXED_BASE


def _split(table: Tensor, count: int, batch: int, flat: bool) -> tuple[Tensor, ...]:
    """[..., F * B, T, D] into F tables [..., B, T, D]; [T, D] each if the positions had no batch axis."""
    tables = torch.split_with_sizes(table, [batch] * count, -3)
    return tuple(part.squeeze(-3) for part in tables) if flat else tuple(tables)


def _add_base_to_keys(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load the names that `state_dict` gave: a checkpoint does not know of the wrapper."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        if not key.startswith(prefix + "base."):
            state_dict[prefix + "base." + key.removeprefix(prefix)] = state_dict.pop(key)


def _restore_forward(layer: nn.Module) -> None:
    """Give the layer its forward back, also to a copy of a layer, which has brought the partial along."""
    given = layer.__dict__.get("forward")
    while isinstance(given, partial) and given.func is own_entry:
        given = given.args[0]
        if getattr(given, "__func__", None) is type(layer).forward:
            del layer.__dict__["forward"]
        else:  # accelerate's, for one
            layer.forward = given


class Installation:
    """The wrappers of one model: built around it, put in place by `install`, taken out by `uninstall`."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = decoder_layers(model)
        self.sites: list[RotarySite] = rotary_sites(model)
        count = len(self.layers)
        self.rotaries = [LayerwiseRotary(site.module, count, site.layer) for site in self.sites]
        self._taken = list(self.layers)

    def install(self) -> None:
        """Put the wrappers in the places of the rotary modules and of each layer's forward. All factors are 1."""
        for site, rotary in zip(self.sites, self.rotaries, strict=True):
            setattr(site.parent, site.name, rotary)
        for index, layer in enumerate(self.layers):
            _restore_forward(layer)
            layer.forward = partial(own_entry, layer.forward, index)

    def fits(self, model: nn.Module) -> bool:
        """Whether the model's layers are still those that were taken in: peft, for one, can copy layers."""
        layers = decoder_layers(model)
        return len(layers) == len(self._taken) and all(map(operator.is_, layers, self._taken))

    def set_factors(self, factors: Sequence[float | None]) -> None:
        """One factor a layer; None is 1."""
        for rotary in self.rotaries:
            rotary.set_factors(factors)

    def place(self, device: torch.device) -> None:
        """Keep the factors on this device, until others are set."""
        for rotary in self.rotaries:
            rotary.place(device)

    def uninstall(self) -> None:
        """Put the model's own modules and forwards back."""
        for layer in self._taken:
            _restore_forward(layer)
        for site, rotary in zip(self.sites, self.rotaries, strict=True):
            setattr(site.parent, site.name, rotary.base)
