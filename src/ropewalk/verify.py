"""Does every decoder layer react to its own factor, and to nothing else? Measured on the model itself.

A short prompt runs through the untouched model, and every layer's input and output are recorded. In every further run
each layer's hidden states are FORCED to the recorded input, so that a layer's output depends on its own factor alone.

Own factor: each layer has a binary code of constant weight; run b gives the probe factor to the layers whose code has
bit b, and a layer's reactions must spell its own code. No code contains another, so the union of several layers' codes
never equals one of them: reacting to a second layer's factor can't go unnoticed. 32 layers take 7 such runs.

Nothing else: with every factor k and every position k times as large, p / s is what it was, so each layer must give the
recorded output. A layer that does not uses the position in a way its factor does not reach.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ropewalk.describe import absolute_position, in_layer_rotation
from ropewalk.errors import UnsupportedModelError
from ropewalk.layers import inner_model, text_config
from ropewalk.probe import Probe, RotaryCall
from ropewalk.rotary import Installation

# Far from 1, so that bf16 models show it as well; a whole number, so that (k·p) / k is p exactly.
PROBE_FACTOR = 4


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


def verify_layers(model: nn.Module) -> list[LayerReport]:
    """Probe a model that has no factors applied; one report a layer. Leaves mode, modules and weights as they were.

    Raises `UnsupportedModelError` if a layer is silently without effect, reacts to another layer's factor or uses the
    position in another way, or if no layer is rotary at all.
    """
    _check_runnable(model)
    # Prompt learning, for one, puts tokens of its own in front and takes no positions.
    model = inner_model(model)
    installation = Installation(model)
    layers = installation.layers
    codes = constant_weight_codes(len(layers))
    probe = Probe(model, layers)
    with _quiet(model):
        calls = probe.record(installation.rotaries)
        _check_tables(model, calls)
        installation.install()
        try:
            probe.expect_same("factors of 1")
            reactions = [set[int]() for _ in layers]
            for bit in range(len(codes[0])):
                installation.set_factors([PROBE_FACTOR if code[bit] else None for code in codes])
                for index in probe.changed():
                    reactions[index].add(bit)
            installation.set_factors([PROBE_FACTOR] * len(layers))
            moved = _moved(probe, any(reactions))
        finally:
            installation.uninstall()
    _check_codes(layers, codes, reactions)
    return _reports(model, layers, [not bits for bits in reactions], moved)


def constant_weight_codes(count: int) -> list[tuple[bool, ...]]:
    """`count` distinct 0/1 words of one length and one weight, as short as possible."""
    bits = next(n for n in range(2, count + 2) if math.comb(n, n // 2) >= count)
    chosen = islice(combinations(range(bits), bits // 2), count)
    return [tuple(bit in ones for bit in range(bits)) for ones in chosen]


def _check_tables(model: nn.Module, calls: list[RotaryCall]) -> None:
    """The undecorated forward must not look at other positions: with p / s it would misjudge the length."""
    for rotary, args, kwargs in calls:
        positions = rotary.positions(args, kwargs).float()
        far = positions.clone()
        far[..., -1] = 1e7
        for near, with_far in zip(
            _as_tuple(rotary.tables_at(positions, args, kwargs)),
            _as_tuple(rotary.tables_at(far, args, kwargs)),
            strict=True,
        ):
            if not torch.equal(near[..., :-1, :], with_far[..., :-1, :]):
                raise UnsupportedModelError(
                    f"{type(rotary.base).__name__} of {type(model).__name__} chooses its tables by the largest "
                    f"position inside its forward (rope_type {getattr(rotary.base, 'rope_type', None)!r}): with "
                    "positions p / s it would choose by the wrong length"
                )


def _moved(probe: Probe, some_act: bool) -> list[int] | None:
    try:
        return probe.moved_by_position(PROBE_FACTOR)
    except UnsupportedModelError:
        # A model that is refused anyway may well have no place for such positions.
        if some_act:
            raise
        return None


def _check_codes(layers: nn.ModuleList, codes: list[tuple[bool, ...]], reactions: list[set[int]]) -> None:
    own = [{bit for bit, one in enumerate(code) if one} for code in codes]
    mixed = [index for index, bits in enumerate(reactions) if bits and bits != own[index]]
    if not mixed:
        return
    index = mixed[0]
    others = [other for other, code in enumerate(own) if other != index and code <= reactions[index]]
    raise UnsupportedModelError(
        f"layer {index} ({type(layers[index]).__name__}) reacts to the rotary factor of another layer"
        + (f" ({' or '.join(map(str, others[:4]))})" if others else "")
        + f", {len(mixed)} of {len(layers)} layers do: this architecture shares rotated keys or rotary tables between "
        "layers, so a layer's factor is not its own. It can't be scaled layer by layer"
    )


def _reports(model: nn.Module, layers: nn.ModuleList, silent: list[bool], moved: list[int] | None) -> list[LayerReport]:
    name = type(model).__name__
    if moved:
        layer = layers[moved[0]]
        effect = "its factor has no effect" if silent[moved[0]] else "its factor reaches only a part of that"
        raise UnsupportedModelError(
            f"layer {moved[0]} of {name} ({type(layer).__name__}) uses the position but {effect}: "
            f"it {in_layer_rotation(layer)}. {len(moved)} of {len(layers)} layers do so; they can't be scaled"
        )
    if all(silent):
        raise UnsupportedModelError(
            f"no layer of {name} takes rotary tables: the model has {absolute_position(model)}. "
            "There is no rotary position to scale"
        )
    if moved is None and any(silent):
        raise UnsupportedModelError(
            f"layers {[i for i, quiet in enumerate(silent) if quiet]} of {name} do not react to their factor, and the "
            "model takes no position_ids to tell whether they have rotary position at all"
        )
    return [
        LayerReport(
            index,
            "not rotary" if quiet else "rotary",
            "its output does not depend on the position" if quiet else "reacts to its own factor and to no other",
            type(layer).__name__,
        )
        for index, (layer, quiet) in enumerate(zip(layers, silent, strict=True))
    ]


def _check_runnable(model: nn.Module) -> None:
    # Raises for something without a config; a composite model's own config tells whether it has an encoder.
    text_config(model)
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{type(model).__name__} is an encoder-decoder; expected a decoder-only language model"
        )
    offloaded = any(hasattr(module, "_hf_hook") for module in model.modules())
    if next(model.parameters()).device.type == "meta" and not offloaded:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no weights yet (device 'meta'); load them before applying factors, "
            "for the check of every layer runs a short prompt"
        )


def _as_tuple(tables: Any) -> tuple[Tensor, ...]:
    return (tables,) if isinstance(tables, Tensor) else tuple(tables)


@contextmanager
def _quiet(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, eager and without gradients; afterwards every module's own mode is back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for module, _ in modes:
        if type(module).__name__ == "Linear4bit":
            # On a CPU bitsandbytes repacks its weights at the first pass in evaluation mode, and can't train them then.
            module.training = True
    # A compiled model would compile anew for every run. Without dynamo nothing is compiled: spare its import.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    try:
        with torch.no_grad(), eager:
            yield
    finally:
        for module, training in modes:
            module.training = training
