"""Runs a short prompt through a model with every layer's hidden states forced to those of the untouched model.

What a layer gives out in such a run depends on its own rotary tables alone, and not on what earlier layers did.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.errors import UnsupportedModelError
from ropewalk.layers import input_device, text_config
from ropewalk.rotary import LayerwiseRotary

PROBE_TOKENS = 16
# A reaction is a change larger than this many times the largest change between two equal runs.
NOISE_MARGIN = 8.0

RotaryCall = tuple[LayerwiseRotary, tuple[Any, ...], dict[str, Any]]


@dataclass
class Recording:
    """Inputs and outputs of every layer in one run; a layer may be called more than once."""

    inputs: list[list[Tensor]] = field(default_factory=list)
    outputs: list[list[Tensor]] = field(default_factory=list)


class Probe:
    """Runs the probe prompt with the layers' hidden states forced to those of the untouched model."""

    def __init__(self, model: nn.Module, layers: nn.ModuleList) -> None:
        self.model = model
        self.layers = layers
        self.device = input_device(model)
        generator = torch.Generator().manual_seed(20250304)
        # Distinct tokens: every two positions have something to tell apart.
        ids = torch.randperm(int(text_config(model).vocab_size), generator=generator)[:PROBE_TOKENS]
        self.inputs = {
            "input_ids": ids[None].to(self.device),
            # Without a mask transformers reads stretched positions as several packed sequences.
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long, device=self.device),
            "use_cache": False,
        }
        self.plain = Recording()
        self.noise = [0.0] * len(layers)

    def record(self, rotaries: Sequence[LayerwiseRotary]) -> list[RotaryCall]:
        """Record the untouched model and the change between equal runs; returns the calls of its rotary modules."""
        calls: list[RotaryCall] = []
        handles = [
            rotary.base.register_forward_pre_hook(_remember(rotary, calls), with_kwargs=True) for rotary in rotaries
        ]
        try:
            self.plain = self._run(None)
        finally:
            for handle in handles:
                handle.remove()
        for _ in range(2):
            self.noise = list(map(max, self.noise, self._changes(self._run(self.plain))))
        return calls

    def changed(self, **more: Any) -> list[int]:
        """Layers whose output is not the recorded one, in a run with the present factors."""
        changes = self._changes(self._attempt(self.plain, **more))
        return [i for i, change in enumerate(changes) if not change <= NOISE_MARGIN * self.noise[i]]

    def expect_same(self, what: str) -> None:
        """Raise `UnsupportedModelError` unless every layer gives the recorded output."""
        if changed := self.changed():
            raise UnsupportedModelError(
                f"{what} change layers {changed} of {type(self.model).__name__}: its layers treat their rotary tables "
                "in a way that per-layer tables do not fit"
            )

    def moved_by_position(self, stretch: int) -> list[int] | None:
        """Layers that see a difference when every position is `stretch` times as large; None if it can't be said."""
        parameters = inspect.signature(self.model.forward).parameters
        if "position_ids" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return None
        positions = stretch * torch.arange(PROBE_TOKENS, device=self.device)[None]
        return self.changed(position_ids=positions)

    def _attempt(self, forced: Recording | None, **more: Any) -> Recording:
        """A run that says what failed, now that the untouched model is known to run."""
        try:
            return self._run(forced, **more)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} can't take rotary tables that differ by layer: its forward fails with "
                f"{type(error).__name__}: {error}"
            ) from error

    def _run(self, forced: Recording | None, **more: Any) -> Recording:
        seen = Recording([[] for _ in self.layers], [[] for _ in self.layers])
        handles = []
        for index, layer in enumerate(self.layers):
            handles.append(layer.register_forward_pre_hook(_force(seen, forced, index), with_kwargs=True))
            handles.append(layer.register_forward_hook(_observe(seen, index)))
        try:
            self.model(**self.inputs, **more)
        finally:
            for handle in handles:
                handle.remove()
        return seen

    def _changes(self, other: Recording) -> list[float]:
        """Largest absolute change of each layer's output."""
        return [
            max((float((a - b).abs().max()) for a, b in zip(before, after, strict=True)), default=0.0)
            for before, after in zip(self.plain.outputs, other.outputs, strict=True)
        ]


def _force(seen: Recording, forced: Recording | None, index: int) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden_states = args[0] if args else kwargs["hidden_states"]
        call = len(seen.inputs[index])
        seen.inputs[index].append(hidden_states.detach().clone())
        if forced is None:
            return None
        given = forced.inputs[index][call].clone()
        return ((given, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": given})

    return hook


def _observe(seen: Recording, index: int) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        while not isinstance(output, Tensor):
            output = next(iter(output.values())) if isinstance(output, dict) else output[0]
        seen.outputs[index].append(output.detach().to("cpu", torch.float32))

    return hook


def _remember(rotary: LayerwiseRotary, calls: list[RotaryCall]) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((rotary, args, kwargs))

    return hook
