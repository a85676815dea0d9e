"""Does the modelling file do what ropewalk does? Run on the model itself, before anything is written.

Twice: with the factors of the export, and with strong ones of which each layer has its own, for in bfloat16 factors
near 1 may round to the same logits whether they are applied or not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ropewalk.errors import UnsupportedModelError
from ropewalk.factors import ScalingFactors
from ropewalk.patch import CONFIG_KEY, patched, rotary_layers, unpatched

NAME = "ropewalk_export_under_proof"
TOKENS, ROWS = 24, 2


def prove(code: str, model: Any, factors: ScalingFactors) -> None:
    """Raise `UnsupportedModelError` unless the file gives the logits of `ropewalk.apply`, to the bit.

    Where the model itself does not repeat its logits to the bit, as on some GPUs, its own noise is the bound.

    The model is as it was afterwards.
    """
    rotary = rotary_layers(model)
    strong = [None if index not in rotary else 1.25 + index / 8 for index in range(factors.num_layers)]
    with _module(code) as module, unpatched(model):
        _check_classes(module, model, factors)
        plain = _logits(model)
        for values in (list(factors.values), strong):
            with patched(model, values, any_model=True):
                expected = _logits(model)
            given = _logits_by_code(module, model, values)
            largest = (given - expected).abs().max().item()
            if not largest <= _noise(model, values, largest) or (values is strong and torch.equal(given, plain)):
                raise UnsupportedModelError(
                    f"the modelling file for {type(model).__name__} gives other logits than ropewalk (largest "
                    f"difference {largest:.3g}); use --to checkpoint, and please report this"
                )
        if not torch.equal(_logits(model), plain):
            raise UnsupportedModelError(
                f"the modelling file for {type(model).__name__} can't be undone; please report this"
            )


def _check_classes(module: ModuleType, model: Any, factors: ScalingFactors) -> None:
    """Both classes can be built without weights, as transformers does before it loads them, and have their hooks."""
    config = _with_factors(model.config, list(factors.values))
    for name in dict.fromkeys((type(model).__name__, type(model.base_model).__name__)):
        with torch.device("meta"):
            built = getattr(module, name)(config)
        decoder = built.base_model.get_submodule(module.DECODER)
        if len(decoder.rope_layer_factors.handles) != len(module.ROTARY) + factors.num_layers:
            raise UnsupportedModelError(f"the modelling file's {name} has hooks missing; please report this")


def _logits_by_code(module: ModuleType, model: Any, values: list[float | None]) -> Tensor:
    """The model's logits with the file's hooks."""
    module.install(model.base_model, _with_factors(model.config, values))
    decoder = model.base_model.get_submodule(module.DECODER)
    try:
        return _logits(model)
    finally:
        decoder.rope_layer_factors.remove()
        del decoder.rope_layer_factors


def _noise(model: Any, values: list[float | None], largest: float) -> float:
    """How far the model's own logits differ between two runs, where that matters: on GPUs some operations do."""
    if largest == 0:
        return 0.0
    with patched(model, values, any_model=True):
        return 4 * (_logits(model) - _logits(model)).abs().max().item()


def _with_factors(config: Any, values: list[float | None]) -> Any:
    import copy

    own = copy.deepcopy(config)
    setattr(own, CONFIG_KEY, values)
    return own


def _logits(model: Any) -> Tensor:
    """[ROWS, TOKENS, vocabulary] of arbitrary tokens, the model in evaluation mode."""
    embeddings = model.get_input_embeddings()
    count = embeddings.weight.shape[0]
    device = (
        torch.device("cpu") if embeddings.weight.is_meta else embeddings.weight.device
    )  # offloaded: accelerate moves
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(min(3, count - 1), count, (ROWS, TOKENS), generator=generator)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits: Tensor = model(input_ids=ids.to(device), use_cache=False).logits
            return logits.float().cpu()
    finally:
        model.train(training)


@contextmanager
def _module(code: str) -> Iterator[ModuleType]:
    """The file as a module."""
    module = ModuleType(NAME)
    module.__file__ = f"{NAME}.py"
    sys.modules[NAME] = module
    try:
        exec(compile(code, module.__file__, "exec"), module.__dict__)
        yield module
    finally:
        del sys.modules[NAME]
