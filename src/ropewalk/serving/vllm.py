"""vLLM plugin: a checkpoint with `rope_layer_factors` in its config.json is served with its factors by `vllm serve`.

vLLM calls `register` in each of its processes (entry point group `vllm.general_plugins`). After a model is built, each
decoder layer gets a rotary module with its own table; nothing is added to the work on a token. The tables depend on
nothing but factor and position, so that every rank of a tensor-parallel model makes the same ones.

A model that carries the key either gets every factor or does not start. One without the key is not touched.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from ropewalk import files
from ropewalk.errors import FactorsError, UnsupportedModelError
from ropewalk.factors import CONFIG_KEY, ScalingFactors
from ropewalk.layers import LAYER_LISTS
from ropewalk.serving.vllm_rotary import is_rotary, scaled_copy, table_bytes

MARK = "_ropewalk"  # on functions that are wrapped and models that are scaled: both happen once


def register() -> None:
    """Entry point of the plugin. May be called again.

    Raises `UnsupportedModelError` where this vLLM is built otherwise than those that ropewalk knows: an engine that
    ignored the factors would answer like the original model, and nobody would notice.
    """
    try:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.model_executor.model_loader import base_loader, utils

        create, initialize = EngineArgs.create_model_config, utils.initialize_model
        base_loader.initialize_model  # noqa: B018  where the loaders must find it
    except (ImportError, AttributeError) as error:
        raise UnsupportedModelError(
            f"ropewalk's plugin does not fit this vLLM ({error}); take a version that ropewalk's documentation names, "
            f"or start vLLM with VLLM_PLUGINS= for models without {CONFIG_KEY}"
        ) from error
    if hasattr(initialize, MARK):
        return
    EngineArgs.create_model_config = _checking(create)
    scaling = _scaling(initialize)
    for module in list(sys.modules.values()):  # wherever it was imported by name
        if getattr(module, "__name__", "").startswith("vllm.") and vars(module).get("initialize_model") is initialize:
            module.initialize_model = scaling  # type: ignore[attr-defined]


def _checking(create: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `EngineArgs.create_model_config`: factors that can't be meant stop the start at once, not in an engine."""

    @functools.wraps(create)
    def create_model_config(*arguments: Any, **keywords: Any) -> Any:
        config = create(*arguments, **keywords)
        factors = configured_factors(config)
        if factors is None:
            _check_unread(config)
        return config

    return create_model_config


def _scaling(initialize: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `initialize_model`: what it builds gets the factors of its config."""

    @functools.wraps(initialize)
    def initialize_model(vllm_config: Any, *arguments: Any, **keywords: Any) -> Any:
        model = initialize(vllm_config, *arguments, **keywords)
        config = keywords.get("model_config") or vllm_config.model_config
        factors = configured_factors(config)
        if factors is not None and not hasattr(model, MARK):
            scale(model, factors, config)
        return model

    setattr(initialize_model, MARK, True)
    return initialize_model


def configured_factors(model_config: Any) -> ScalingFactors | None:
    """The factors of a vLLM `ModelConfig`, None without. Raises `FactorsError` if they can't be used."""
    texts = (model_config.hf_config, model_config.hf_text_config)
    values = next((found for text in texts if (found := getattr(text, CONFIG_KEY, None)) is not None), None)
    if values is None:
        return None
    try:
        factors = ScalingFactors(values)
    except FactorsError as error:
        raise FactorsError(f"{model_config.model}: {CONFIG_KEY} in its config.json: {error}") from None
    layers = getattr(model_config.hf_text_config, "num_hidden_layers", None)
    if layers != factors.num_layers and getattr(model_config, "runner_type", "") != "draft":
        raise FactorsError(
            f"{model_config.model}: {CONFIG_KEY} in its config.json holds {factors.num_layers} factors, the model has "
            f"{layers} layers; export it again with factors that were made for it"
        )
    return factors


def _check_unread(model_config: Any) -> None:
    """Raise `FactorsError` if the folder's config.json carries factors that vLLM has not read.

    It takes Mistral's params.json where there is one, or another config by --hf-config-path.
    """
    path = Path(str(model_config.model)) / "config.json"
    if path.is_file() and isinstance(content := files.read_json(path), dict) and content.get(CONFIG_KEY) is not None:
        raise FactorsError(
            f"{path}: carries {CONFIG_KEY}, but vLLM has read another config; start it with --config-format hf and "
            "without --hf-config-path"
        )


def scale(model: nn.Module, factors: ScalingFactors, model_config: Any) -> None:
    """Give every decoder layer of a model that vLLM has built its factor.

    Raises `UnsupportedModelError` if any layer that should have been scaled was not.
    """
    from transformers import PreTrainedModel

    inner = next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)
    if inner is not None:
        _scale_transformers(inner, factors, model_config)
    else:
        layers = _decoder_layers(model, factors.num_layers)
        if layers is None and getattr(model_config, "runner_type", "") == "draft":
            _log().info("%s: a draft model with other layers is not scaled", type(model).__name__)
            return
        if layers is None:
            raise UnsupportedModelError(
                f"{type(model).__name__} has no list of {factors.num_layers} decoder layers to scale: none of "
                f"{len(factors.rotary_layers)} factors of {CONFIG_KEY} has an effect"
            )
        _scale_layers(model, layers, factors)
    _warn_of_lengths(model_config)
    setattr(model, MARK, True)
    _record_for_reloading(model)


def _scale_layers(model: nn.Module, layers: nn.ModuleList, factors: ScalingFactors) -> None:
    """Put scaled copies in the places of the rotary modules of vLLM's own layers."""
    from vllm.model_executor.models.utils import PPMissingLayer

    copies: dict[tuple[nn.Module, float], nn.Module] = {}
    replaced: set[nn.Module] = set()
    here = [(i, layer) for i, layer in enumerate(layers) if not isinstance(layer, PPMissingLayer)]
    wanted = [(i, layer, factor) for i, layer in here if (factor := factors[i]) is not None]
    missed = []
    for index, layer, factor in wanted:
        sites = list(_sites(layer))
        if not sites:
            missed.append(index)
        for parent, name, base in sites:
            if factor != 1.0:
                copied = copies.get((base, factor)) or copies.setdefault((base, factor), scaled_copy(base, factor))
                setattr(parent, name, copied)
                replaced.add(base)
    if missed:
        raise UnsupportedModelError(
            f"{type(model).__name__}: {len(missed)} of {len(wanted)} layers that {CONFIG_KEY} scales have no rotary "
            f"module of vLLM's (layers {missed}); this model can't be served with its factors"
        )
    for _, layer, factor in wanted:
        _check_no_other_place(layer, replaced if factor != 1.0 else set())
    size = sum(map(table_bytes, copies.values()))
    _log().info(
        "%s: %d of %d layers here scaled by %s; %d tables more for %d distinct factors, %.1f MB",
        *(type(model).__name__, len(wanted), len(here), CONFIG_KEY),
        *(len(copies), len({factor for _, _, factor in wanted if factor != 1.0}), size / 1e6),
    )


def _scale_transformers(inner: nn.Module, factors: ScalingFactors, model_config: Any) -> None:
    """The Transformers backend: a model of transformers in vLLM's hands, scaled as `ropewalk.apply` does."""
    import torch

    from ropewalk.modelling_file import release_own_code
    from ropewalk.rotary import Installation

    release_own_code(inner)  # of a remote-code export, with --trust-remote-code
    installation = Installation(inner)
    if len(installation.layers) != factors.num_layers or not installation.sites:
        raise UnsupportedModelError(
            f"{type(inner).__name__}: {len(installation.layers)} layers and {len(installation.sites)} rotary modules "
            f"for the {factors.num_layers} factors of {CONFIG_KEY}"
        )
    installation.install()
    installation.set_factors(factors.values)
    installation.place(torch.get_default_device())
    _log().info(
        "%s, Transformers backend: %d of %d layers scaled by %s",
        *(type(inner).__name__, len(factors.rotary_layers), factors.num_layers, CONFIG_KEY),
    )


def _decoder_layers(model: nn.Module, count: int) -> nn.ModuleList | None:
    """The outermost list of that many modules with rotary modules inside; None if there is none.

    Raises `UnsupportedModelError` if several could be meant.
    """
    get_language_model = getattr(model, "get_language_model", None)
    root = get_language_model() if callable(get_language_model) else model
    found = {
        name: module
        for name, module in root.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and name.split(".")[-1] in LAYER_LISTS
    }
    outermost = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    if len(outermost) > 1:
        raise UnsupportedModelError(
            f"{type(model).__name__}: {', '.join(outermost)} are all lists of {count} layers; which one {CONFIG_KEY} "
            "means is unknown"
        )
    return found[outermost[0]] if outermost else None


def _sites(layer: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, rotary module) of each place in a layer that holds one; a shared one is met at every place."""
    for parent in layer.modules():
        if is_rotary(parent):
            continue
        for name, child in parent.named_children():
            if is_rotary(child):
                yield parent, name, child


def _check_no_other_place(layer: nn.Module, replaced: set[nn.Module]) -> None:
    """Raise `UnsupportedModelError` if something in a layer still holds a rotary module that was replaced."""
    for part in layer.modules():
        for holder in (part, getattr(part, "impl", None)):
            held = [name for name, value in vars(holder).items() if _is_one_of(value, replaced)] if holder else []
            if held:
                raise UnsupportedModelError(
                    f"{type(holder).__name__} keeps its own reference to a rotary module ({', '.join(held)}); the "
                    f"factors of {CONFIG_KEY} would not reach it"
                )


def _is_one_of(value: Any, modules: set[nn.Module]) -> bool:
    return isinstance(value, nn.Module) and value in modules


def _warn_of_lengths(model_config: Any) -> None:
    """Say where vLLM chooses rotary frequencies once that transformers chooses by the length of the prompt."""
    parameters = getattr(model_config.hf_text_config, "rope_parameters", None) or {}
    types = [scheme.get("rope_type") for scheme in (parameters, *parameters.values()) if isinstance(scheme, dict)]
    for rope_type in {"dynamic", "longrope"}.intersection(types):
        _log().warning(
            "rope_type %s: vLLM chooses its frequencies once, by the longest length it serves, transformers by the "
            "length of each prompt. Factors that were found with transformers act on another model here; test them",
            rope_type,
        )


def _record_for_reloading(model: nn.Module) -> None:
    """Let vLLM know the copies, as it knows what it has built itself, for weights that are loaded again."""
    try:
        from vllm.model_executor.model_loader.reload import record_metadata_for_reloading
    except ImportError:  # older ones reload in another way, which needs no record
        return
    record_metadata_for_reloading(model)


def _log() -> Any:
    from vllm.logger import init_logger

    return init_logger("vllm.plugins.ropewalk")  # vLLM shows what is under its own name
