"""`apply`, `remove`, `patched`: put scaling factors into a model, and take them out again to the bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.utils.hooks import RemovableHandle

from ropewalk.errors import FactorsError
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.layers import RotarySite, decoder_layers, rotary_sites, text_decoder
from ropewalk.rotary import LayerwiseRotary, PickOwnEntry
from ropewalk.verify import LayerReport, verify_layers

CONFIG_KEY = "rope_layer_factors"
_ATTRIBUTE = "_ropewalk_patch"


@dataclass
class _Patch:
    """What is installed in a model: kept on its decoder, so that copies of the model carry copies of it."""

    sites: list[RotarySite]
    rotaries: list[LayerwiseRotary]
    handles: list[RemovableHandle]
    report: list[LayerReport]
    factors: ScalingFactors | None = None

    def set(self, factors: ScalingFactors) -> None:
        for rotary in self.rotaries:
            rotary.set_factors(factors.values)
        self.factors = factors

    def uninstall(self) -> None:
        for handle in self.handles:
            handle.remove()
        for site, rotary in zip(self.sites, self.rotaries, strict=True):
            setattr(site.parent, site.name, rotary.base)


# The outcome of the check, by decoder: it costs forward passes, and `patched` in a loop must not pay for it again.
_VERIFIED: WeakKeyDictionary[nn.Module, tuple[object, list[LayerReport]]] = WeakKeyDictionary()


def apply(model: nn.Module, factors: ScalingFactors | Iterable[float | None], *, any_model: bool = False) -> None:
    """Scale each layer's rotary position by its factor, until `remove`. Applying again replaces.

    factors: one number a layer, None (null) for a layer without rotary position. They are written into
    `model.config.rope_layer_factors`, so `save_pretrained` keeps them. any_model: allow factors that were made for
    another model or base scheme. The first call on a model runs about a dozen forward passes of 16 tokens to make sure
    that every layer reacts to its own factor. Raises `FactorsError` or `UnsupportedModelError`; nothing is applied then.
    """
    scaling = factors if isinstance(factors, ScalingFactors) else ScalingFactors(factors)
    _check_model(model, scaling, any_model=any_model)
    patch = _installed(model)
    fresh = patch is None
    patch = patch or _install(model)
    try:
        _check_nulls(model, scaling, patch.report)
    except FactorsError:
        if fresh:
            _uninstall(model, patch)
        raise
    patch.set(scaling)
    setattr(model.config, CONFIG_KEY, list(scaling.values))


def remove(model: nn.Module) -> None:
    """Take the factors out of the model and its config: outputs are vanilla's to the bit, no hook is left."""
    patch = _installed(model)
    if patch is not None:
        _uninstall(model, patch)
    _set_config_entry(model, None)


@contextmanager
def patched(
    model: nn.Module, factors: ScalingFactors | Iterable[float | None], *, any_model: bool = False
) -> Iterator[None]:
    """`apply` for the length of a `with` block; whatever was applied before is back afterwards."""
    before = factors_of(model)
    entry = model.config.__dict__.get(CONFIG_KEY)
    apply(model, factors, any_model=any_model)
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
    patch = _installed(model)
    if patch is not None:
        return list(patch.report)
    patch = _install(model)
    _uninstall(model, patch)
    return list(patch.report)


def rotary_layers(model: nn.Module) -> list[int]:
    """Indices of the layers that take a factor; the others take null."""
    return [report.index for report in layer_reports(model) if report.kind == "rotary"]


def _installed(model: nn.Module) -> _Patch | None:
    patch: _Patch | None = text_decoder(model).__dict__.get(_ATTRIBUTE)
    return patch


def _install(model: nn.Module) -> _Patch:
    """Put wrappers and hooks in place and check every layer; on any error the model is as before."""
    layers = decoder_layers(model)
    sites = rotary_sites(model)
    rotaries = [LayerwiseRotary(site.module, len(layers), site.layer) for site in sites]
    for site, rotary in zip(sites, rotaries, strict=True):
        setattr(site.parent, site.name, rotary)
    handles = [
        layer.register_forward_pre_hook(PickOwnEntry(index), with_kwargs=True) for index, layer in enumerate(layers)
    ]
    patch = _Patch(sites, rotaries, handles, [])
    setattr(text_decoder(model), _ATTRIBUTE, patch)
    try:
        patch.report = _verified(model, patch)
    except BaseException:
        _uninstall(model, patch)
        raise
    return patch


def _uninstall(model: nn.Module, patch: _Patch) -> None:
    patch.uninstall()
    delattr(text_decoder(model), _ATTRIBUTE)


def _verified(model: nn.Module, patch: _Patch) -> list[LayerReport]:
    decoder = text_decoder(model)
    # Another layer, rotary module or attention implementation is another model.
    parts = [id(layer) for layer in decoder_layers(model)] + [id(rotary.base) for rotary in patch.rotaries]
    signature = (tuple(parts), getattr(decoder.config, "_attn_implementation", None))
    known = _VERIFIED.get(decoder)
    if known is not None and known[0] == signature:
        return known[1]
    report = verify_layers(model, patch.rotaries)
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


__all__ = ["apply", "factors_of", "layer_reports", "patched", "remove", "rotary_layers"]
