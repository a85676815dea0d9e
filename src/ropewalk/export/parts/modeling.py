"""The modelling file of an export: transformers' own classes of a model, with a factor for each layer."""

from __future__ import annotations

from importlib.resources import files as resources
from string import Template
from typing import Any

from torch import nn

from ropewalk.errors import UnsupportedModelError
from ropewalk.export.parts.source import read_config, source_folder
from ropewalk.layers import decoder_layers, rotary_sites, text_decoder
from ropewalk.modelling_file import MODELING
from ropewalk.patch import layer_reports, unpatched

# Auto classes that give the model with its head; the last ones for models that see, too.
HEADS = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")
INSTEAD = "use --to checkpoint, which ropewalk loads"


def modeling_code(model: Any) -> str:
    """The text of the modelling file. Raises `UnsupportedModelError` with the reason if the model can't have one."""
    import transformers

    causal, base = _classes(model)
    not_rotary = tuple(report.index for report in layer_reports(model) if report.kind != "rotary")
    with unpatched(model):  # ropewalk's own wrappers stand in the places that the file names
        decoder, rotary = _path(text_decoder(model), model.base_model), _rotary_paths(model)
    template = Template(resources("ropewalk.export.parts").joinpath("modeling.py.template").read_text(encoding="utf-8"))
    return template.substitute(
        causal=causal.__name__,
        base=base.__name__,
        made_with=transformers.__version__,
        decoder=decoder,
        layers=_path(decoder_layers(model), text_decoder(model)),
        rotary=repr(rotary),
        not_rotary=repr(not_rotary),
    )


def auto_map(model: Any) -> dict[str, str]:
    """Which class of the file each of transformers' auto classes takes."""
    import transformers

    module, config = MODELING.removesuffix(".py"), type(model.config)
    causal, base = _classes(model)
    heads = [name for name in HEADS if getattr(transformers, name)._model_mapping.get(config, None) is causal]
    return {"AutoModel": f"{module}.{base.__name__}"} | dict.fromkeys(heads, f"{module}.{causal.__name__}")


def _classes(model: Any) -> tuple[type, type]:
    """The model's class and that of its body, as transformers' auto classes give them for the folder's config."""
    import transformers
    from transformers import AutoModel, AutoModelForCausalLM

    causal, base, config = _own_class(type(model)), _own_class(type(model.base_model)), type(model.config)
    name = causal.__name__
    for cls in (causal, base):
        if getattr(transformers, cls.__name__, None) is not cls:
            raise UnsupportedModelError(
                f"{cls.__name__} is no class of transformers itself but comes with the checkpoint, and a second "
                f"modelling file can't be laid over it: {INSTEAD}"
            )
    for auto, cls in ((AutoModelForCausalLM, causal), (AutoModel, base)):
        mapped: Any = auto._model_mapping.get(config, None)
        if mapped is not cls:
            raise UnsupportedModelError(
                f"{auto.__name__} gives {getattr(mapped, '__name__', None)} for a {config.__name__}, but this model is "
                f"a {name} around a {base.__name__}, so a modelling file would not be met: {INSTEAD}"
            )
    written = read_config(source_folder(model)).get("model_type")
    if written != model.config.model_type:
        raise UnsupportedModelError(
            f"{name} is the text model of a {written} checkpoint, whose config.json is of several models: {INSTEAD}"
        )
    return causal, base


def _own_class(cls: type) -> type:
    """The class of transformers that an export's modelling file made a class of the same name of."""
    module = MODELING.removesuffix(".py")
    return cls.__mro__[1] if cls.__module__.rpartition(".")[2] == module else cls


def _rotary_paths(model: Any) -> tuple[str, ...]:
    sites = rotary_sites(model)
    owners = sorted({site.layer for site in sites if site.layer is not None})
    if owners:
        raise UnsupportedModelError(
            f"layers {owners} of {type(model).__name__} keep rotary modules of their own, which the modelling file has "
            f"no place for: {INSTEAD}"
        )
    return tuple(dict.fromkeys(_path(site.module, text_decoder(model)) for site in sites))


def _path(module: nn.Module, root: nn.Module) -> str:
    """Where a module stands below another; empty for that one itself."""
    for name, child in root.named_modules():
        if child is module:
            return str(name)
    raise UnsupportedModelError(f"{type(root).__name__} does not hold its {type(module).__name__}: {INSTEAD}")
