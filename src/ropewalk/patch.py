"""`apply`, `remove`, `patched`: put scaling factors into a model, and take them out again to the bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ropewalk.elsewhere import holders_of
from ropewalk.errors import FactorsError
from ropewalk.factors import CONFIG_KEY, ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.layers import decoder_layers, rotary_sites, text_decoder
from ropewalk.modelling_file import release_own_code
from ropewalk.rotary import Installation
from ropewalk.verify import LayerReport, verify_layers

_ATTRIBUTE = "_ropewalk_patch"


@dataclass
class _Patch:
    """What is installed in a model: kept on its decoder, so that copies of the model carry copies of it."""

    installation: Installation
    report: list[LayerReport]
    factors: ScalingFactors | None = None

    def set(self, factors: ScalingFactors) -> None:
        self.installation.set_factors(factors.values)
        self.factors = factors


# The outcome of the check, by decoder: it costs forward passes, and `patched` in a loop must not pay for it again.
_VERIFIED: WeakKeyDictionary[nn.Module, tuple[object, list[LayerReport]]] = WeakKeyDictionary()


def apply(model: nn.Module, factors: ScalingFactors | Iterable[float | None], *, any_model: bool = False) -> None:
    """Scale each layer's rotary position by its factor, until `remove`. Applying again replaces.

    factors: one number a layer, None (null) for a layer without rotary position. They are written into
    `model.config.rope_layer_factors`, so `save_pretrained` keeps them. any_model: allow factors that were made for
    another model or base scheme. The first call on a model runs about a dozen forward passes of 16 tokens to make sure
    that every layer reacts to its own factor. Raises `FactorsError` or `UnsupportedModelError`, and applies nothing.
    """
    scaling = factors if isinstance(factors, ScalingFactors) else ScalingFactors(factors)
    before = _installed(model)
    if before is not None and not before.installation.fits(model):
        remove(model)  # what is in place was made for other layers
    report = check_factors(model, scaling, any_model=any_model)
    patch = _installed(model)
    if patch is None:
        patch = _Patch(Installation(model), report)
        patch.installation.install()
        setattr(text_decoder(model), _ATTRIBUTE, patch)
    patch.set(scaling)
    setattr(model.config, CONFIG_KEY, list(scaling.values))


def check_factors(model: nn.Module, *candidates: ScalingFactors, any_model: bool = False) -> list[LayerReport]:
    """Raise what `apply` would raise for any of them; returns the model's layer reports. Applies nothing."""
    for factors in candidates:
        _check_model(model, factors, any_model=any_model)
    report = layer_reports(model)
    for factors in candidates:
        _check_nulls(model, factors, report)
    return report


def remove(model: nn.Module) -> None:
    """Take the factors out of the model and its config: outputs are vanilla's to the bit, no hook is left."""
    patch = _installed(model)
    if patch is not None:
        patch.installation.uninstall()
        delattr(text_decoder(model), _ATTRIBUTE)
    _set_config_entry(model, None)


@contextmanager
def patched(
    model: nn.Module, factors: ScalingFactors | Iterable[float | None], *, any_model: bool = False
) -> Iterator[None]:
    """`apply` for the length of a `with` block; whatever was applied before is back afterwards."""
    with _restored(model):
        apply(model, factors, any_model=any_model)
        yield


@contextmanager
def unpatched(model: nn.Module) -> Iterator[None]:
    """`remove` for the length of a `with` block; whatever was applied before is back afterwards."""
    with _restored(model):
        remove(model)
        yield


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Whatever is applied now, and what the config says of it, is back afterwards."""
    before = factors_of(model)
    entry = model.config.__dict__.get(CONFIG_KEY)
    try:
        yield
    finally:
        if before is None:
            remove(model)
        else:
            apply(model, before, any_model=True)
        _set_config_entry(model, entry)


def factors_of(model: nn.Module) -> ScalingFactors | None:
    """The factors that are applied now, or None."""
    patch = _installed(model)
    return patch.factors if patch is not None else None


def layer_reports(model: nn.Module) -> list[LayerReport]:
    """One report a decoder layer, as `ropewalk doctor` prints them. Leaves the model as it was.

    Raises `UnsupportedModelError` with the architectural reason if the model can't be scaled layer by layer.
    """
    holders = holders_of(model)
    if holders is not None:
        return list(holders.facts.layers)
    patch = _installed(model)
    return list(patch.report if patch is not None else _verified(model))


def rotary_layers(model: nn.Module) -> list[int]:
    """Indices of the layers that take a factor; the others take null."""
    return [report.index for report in layer_reports(model) if report.kind == "rotary"]


def _installed(model: nn.Module) -> _Patch | None:
    brought = release_own_code(model)
    if brought is not None:
        apply(model, brought, any_model=True)
    patch: _Patch | None = text_decoder(model).__dict__.get(_ATTRIBUTE)
    return patch


def _verified(model: nn.Module) -> list[LayerReport]:
    decoder = text_decoder(model)
    # Another layer, rotary module or attention implementation is another model.
    parts = [id(part) for part in (*decoder_layers(model), *(site.module for site in rotary_sites(model)))]
    signature = (tuple(parts), getattr(decoder.config, "_attn_implementation", None))
    known = _VERIFIED.get(decoder)
    if known is not None and known[0] == signature:
        return known[1]
    report = verify_layers(model)
    _VERIFIED[decoder] = (signature, report)
    return report


def _check_model(model: nn.Module, factors: ScalingFactors, *, any_model: bool) -> None:
    if factors.model and not any_model:
        factors.check_model(model_identity(model), base_scheme(model))
        return
    # Factors of no particular model: the fingerprint, which reads weights, is not needed.
    name = type(model).__name__
    shape = {"name": name, "num_layers": len(decoder_layers(model)), "fingerprint": ""}
    factors.check_model(shape, base_scheme(model), any_model=any_model)


def _check_nulls(model: nn.Module, factors: ScalingFactors, reports: Sequence[LayerReport]) -> None:
    numbered = [r.index for r in reports if r.kind == "not rotary" and factors[r.index] is not None]
    missing = [r.index for r in reports if r.kind == "rotary" and factors[r.index] is None]
    name = type(model).__name__
    if numbered:
        raise FactorsError(
            f"layers {numbered} of {name} have no rotary position but got a factor: give null (None) there, e.g. "
            "ScalingFactors.uniform(s, num_layers, rotary_layers=ropewalk.patch.rotary_layers(model))"
        )
    if missing:
        raise FactorsError(
            f"layers {missing} of {name} are rotary but got null: give 1.0 for a layer that is to stay as trained"
        )


def _set_config_entry(model: nn.Module, entry: Any) -> None:
    if entry is not None:
        setattr(model.config, CONFIG_KEY, entry)
    elif CONFIG_KEY in model.config.__dict__:
        delattr(model.config, CONFIG_KEY)


__all__ = [
    "CONFIG_KEY",
    "apply",
    "check_factors",
    "factors_of",
    "layer_reports",
    "patched",
    "remove",
    "rotary_layers",
    "unpatched",
]
