"""Does every decoder layer react to its own factor, and to nobody else's? Measured on the model itself.

A short prompt runs once through the model as it is, and every layer's input and output are recorded. In every further
run each layer's hidden states are FORCED to the recorded input, so that a layer's output depends on its own factor
alone. Each layer has a binary code of constant weight; run b gives the probe factor to the layers whose code has bit
b. A layer's reactions must spell its own code. No code contains another, so the union of several layers' codes never
equals one of them: reacting to a second layer's factor can't go unnoticed. 32 layers take 7 such runs.

A layer that reacts in no run either has no rotary position, or rotates where the factors don't reach. A last run of
the unpatched model with stretched positions tells the two apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ropewalk.describe import absolute_position, in_layer_rotation
from ropewalk.errors import UnsupportedModelError
from ropewalk.layers import decoder_layers, text_config
from ropewalk.rotary import LayerwiseRotary

PROBE_TOKENS = 16
# Far from 1, so that bf16 models show it as well.
PROBE_FACTOR = 4.0
POSITION_STRETCH = 3
# A reaction is a change larger than this many times the largest change between two equal runs.
NOISE_MARGIN = 8.0


@dataclass(frozen=True)
class LayerReport:
    """What was found out about one decoder layer.

    index: 0-based. kind: "rotary" takes a factor, "not rotary" takes null. reason: the observation behind it.
    layer_class: class of the decoder layer.
    """

    index: int
    kind: Literal["rotary", "not rotary"]
    reason: str
    layer_class: str


@dataclass
class _Probe:
    """Records the layers' inputs and outputs; with `forced`, replaces each input by the recorded one."""

    forced: list[list[Tensor]] | None = None
    inputs: list[list[Tensor]] = field(default_factory=list)
    outputs: list[list[Tensor]] = field(default_factory=list)

    def before(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Pre-hook of layer `index`."""
        call = len(self.inputs[index])
        seen = args[0] if args else kwargs["hidden_states"]
        self.inputs[index].append(seen.detach().clone())
        if self.forced is None:
            return None
        given = self.forced[index][call]
        return ((given, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": given})

    def after(self, index: int, output: Any) -> None:
        """Post-hook of layer `index`."""
        self.outputs[index].append(_first_tensor(output).detach().float().cpu())


def verify_layers(model: nn.Module, rotaries: Sequence[LayerwiseRotary]) -> list[LayerReport]:
    """Probe a model whose wrappers and hooks are installed. Leaves factors, mode and weights as they were.

    rotaries: the installed wrappers. Returns one report a layer. Raises `UnsupportedModelError` if a layer is silently
    without effect, reacts to another layer's factor, or if no layer is rotary at all.
    """
    layers = decoder_layers(model)
    count = len(layers)
    _check_runnable(model)
    codes = constant_weight_codes(count)
    with _quiet(model), _factors_kept(rotaries):
        run = _runner(model, layers, rotaries)
        plain = run(None, [1.0] * count)
        forced = plain.inputs
        noise = [0.0] * count
        for _ in range(2):
            again = run(forced, [1.0] * count)
            noise = [max(a, b) for a, b in zip(noise, _changes(plain, again), strict=True)]
        reactions: list[set[int]] = [set() for _ in range(count)]
        for bit in range(len(codes[0])):
            probed = run(forced, [PROBE_FACTOR if code[bit] else 1.0 for code in codes])
            for index, change in enumerate(_changes(plain, probed)):
                if change > NOISE_MARGIN * noise[index]:
                    reactions[index].add(bit)
        silent = [index for index in range(count) if not reactions[index]]
        moved = _moved_by_position(run, forced, plain, noise, model) if silent else set()
    _check_codes(layers, codes, reactions)
    return _reports(model, layers, silent, moved)


def constant_weight_codes(count: int) -> list[tuple[bool, ...]]:
    """`count` distinct 0/1 words of one length and one weight, as short as possible."""
    bits = next(n for n in range(1, count + 2) if n // 2 and math.comb(n, n // 2) >= count)
    chosen = islice(combinations(range(bits), bits // 2), count)
    return [tuple(bit in ones for bit in range(bits)) for ones in chosen]


def _runner(model: nn.Module, layers: nn.ModuleList, rotaries: Sequence[LayerwiseRotary]) -> Callable[..., _Probe]:
    """A function that runs the probe prompt with forced inputs, factors and positions."""
    device = _input_device(model)
    vocabulary = int(text_config(model).vocab_size)
    generator = torch.Generator().manual_seed(20250304)
    # Distinct tokens, so that every two positions have something to tell apart; ids from the front are plain tokens.
    ids = torch.randperm(vocabulary, generator=generator)[:PROBE_TOKENS]
    inputs = {
        "input_ids": ids[None].to(device),
        # Without a mask transformers reads stretched positions as several packed sequences.
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long, device=device),
        "use_cache": False,
    }

    def run(forced: list[list[Tensor]] | None, factors: Sequence[float], **more: Any) -> _Probe:
        for rotary in rotaries:
            rotary.set_factors(factors)
        probe = _Probe(forced)
        probe.inputs = [[] for _ in layers]
        probe.outputs = [[] for _ in layers]
        handles = []
        for index, layer in enumerate(layers):
            handles.append(layer.register_forward_pre_hook(_before(probe, index), with_kwargs=True))
            handles.append(layer.register_forward_hook(_after(probe, index)))
        try:
            model(**inputs, **more)
        except (UnsupportedModelError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise UnsupportedModelError(
                f"{type(model).__name__} fails on a prompt of {len(ids)} tokens with "
                f"{'stretched positions' if more else 'per-layer rotary tables'}: {type(error).__name__}: {error}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        return probe

    return run


def _before(probe: _Probe, index: int) -> Callable[..., Any]:
    return lambda _module, args, kwargs: probe.before(index, args, kwargs)


def _after(probe: _Probe, index: int) -> Callable[..., None]:
    return lambda _module, _args, output: probe.after(index, output)


def _moved_by_position(
    run: Callable[..., _Probe], forced: list[list[Tensor]], plain: _Probe, noise: list[float], model: nn.Module
) -> set[int]:
    """Layers whose output moves with the positions although their hidden states don't."""
    positions = POSITION_STRETCH * torch.arange(PROBE_TOKENS, device=_input_device(model))[None]
    stretched = run(forced, [1.0] * len(forced), position_ids=positions)
    return {index for index, change in enumerate(_changes(plain, stretched)) if change > NOISE_MARGIN * noise[index]}


def _changes(plain: _Probe, other: _Probe) -> list[float]:
    """Largest absolute change of each layer's output."""
    changes = []
    for before, after in zip(plain.outputs, other.outputs, strict=True):
        pairs = zip(before, after, strict=True)
        changes.append(max((float((a - b).abs().max()) for a, b in pairs), default=0.0))
    return changes


def _check_codes(layers: nn.ModuleList, codes: list[tuple[bool, ...]], reactions: list[set[int]]) -> None:
    own = [{bit for bit, one in enumerate(code) if one} for code in codes]
    mixed = [index for index, bits in enumerate(reactions) if bits and bits != own[index]]
    if not mixed:
        return
    index = mixed[0]
    others = [other for other, code in enumerate(own) if other != index and code <= reactions[index]]
    raise UnsupportedModelError(
        f"layer {index} ({type(layers[index]).__name__}) reacts to the rotary factor of other layers"
        + (f" ({', '.join(map(str, others[:4]))})" if others else "")
        + f", as do {len(mixed)} layers in all: this architecture shares rotated keys or rotary state between layers, "
        "so a factor of one layer is not its own. Such a model can't be scaled layer by layer"
    )


def _reports(model: nn.Module, layers: nn.ModuleList, silent: list[int], moved: set[int]) -> list[LayerReport]:
    name = type(model).__name__
    for index in silent:
        if index in moved:
            rotation = in_layer_rotation(layers[index])
            raise UnsupportedModelError(
                f"layer {index} of {name} ({type(layers[index]).__name__}) uses the position but its factor has no "
                f"effect: it {rotation}. Such a layer can't be scaled by per-layer rotary tables"
            )
    if len(silent) == len(layers):
        raise UnsupportedModelError(
            f"no layer of {name} has rotary position: the model has {absolute_position(model)}. "
            "There is no rotary factor to set"
        )
    return [
        LayerReport(
            index,
            "not rotary" if index in silent else "rotary",
            "its output does not depend on the position" if index in silent else "reacts to its own factor alone",
            type(layer).__name__,
        )
        for index, layer in enumerate(layers)
    ]


def _check_runnable(model: nn.Module) -> None:
    parameter = next(model.parameters())
    if parameter.device.type == "meta" and not hasattr(model, "hf_device_map"):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no weights yet (device 'meta'); load them before applying factors, "
            "for the check of every layer runs a short prompt"
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{type(model).__name__} is an encoder-decoder; expected a decoder-only language model"
        )


def _input_device(model: nn.Module) -> torch.device:
    embeddings = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    weights = [*(embeddings.parameters() if embeddings is not None else ()), *model.parameters()]
    return next((weight.device for weight in weights if weight.device.type != "meta"), torch.device("cpu"))


def _first_tensor(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


@contextmanager
def _quiet(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module's own mode is back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _factors_kept(rotaries: Sequence[LayerwiseRotary]) -> Iterator[None]:
    kept = [rotary.factors for rotary in rotaries]
    try:
        yield
    finally:
        for rotary, factors in zip(rotaries, kept, strict=True):
            rotary.set_factors(factors)
