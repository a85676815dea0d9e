"""A model folder again, with factors in its config.json: what the targets that carry the weights have in common."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk.errors import UnsupportedModelError
from ropewalk.export.base import ExportPlan, Subject
from ropewalk.export.parts.card import Kind, model_card
from ropewalk.export.parts.manifest import FACTORS, read_manifest
from ropewalk.export.parts.picture import draw_pictures, picture_names
from ropewalk.export.parts.source import (
    BASE_README,
    CONFIG,
    README,
    gguf_digest,
    hub_id,
    read_config,
    small_files,
    source_folder,
    weight_files,
)
from ropewalk.factors import ScalingFactors
from ropewalk.modelling_file import own_auto_map
from ropewalk.patch import CONFIG_KEY, check_factors
from ropewalk.rope_override import ROPE_OVERRIDE, config_entries, with_entries


def bound_factors(subject: Subject) -> ScalingFactors:
    """The factors with the model that they are checked against, and with what a test found of them.

    Raises `FactorsError` if they don't fit the model.
    """
    from ropewalk.identity import base_scheme, model_identity

    factors = subject.factors
    check_factors(subject.model, factors, any_model=subject.any_model)
    model, found = model_identity(subject.model), factors.found
    if factors.model and factors.model.get("fingerprint") != model["fingerprint"]:
        found |= {"made_for": factors.model}
    if subject.test:
        found |= {"test": list(subject.test)}
    own = factors.model if factors.model.get("fingerprint") == model["fingerprint"] else model
    return factors.with_provenance(model=own, base=base_scheme(subject.model), found=found)


def plan_model_folder(
    kind: Kind, subject: Subject, out: Path, *, usage: str, config: Mapping[str, Any], made: Mapping[str, bytes]
) -> ExportPlan:
    """The plan of a folder with the weights of the model's own.

    config: entries of config.json beside the factors. made: further files. Raises `FactorsError` if the factors don't
    fit the model, `UnsupportedModelError` if it has an adapter.
    """
    if getattr(subject.model, "_hf_peft_config_loaded", False) or hasattr(subject.model, "get_base_model"):
        raise UnsupportedModelError(
            "the model has an adapter, and an export would take the weights of its base alone: merge the adapter with "
            "peft (merge_and_unload), save that with its tokenizer, and export it"
        )
    factors = bound_factors(subject)
    source, base_model = source_folder(subject.model), subject.base_model or hub_id(subject.model)
    small, pictures, gguf_sha256 = small_files(source), picture_names(subject.test), gguf_digest(source)
    scheme = getattr(subject.model, ROPE_OVERRIDE, None) or (read_manifest(source) or {}).get("scheme")
    name = base_model or str(factors.model["name"])
    source_card = small.get(BASE_README)

    def draw(folder: Path) -> None:
        draw_pictures(folder, factors, subject.test, name.rpartition("/")[2])
        card = model_card(
            kind,
            factors,
            subject.test,
            base_model=base_model,
            source_card=source_card,
            gguf_sha256=gguf_sha256,
            scheme=scheme,
        )
        (folder / README).write_text(card, encoding="utf-8")

    return ExportPlan(
        kind,
        out,
        {CONFIG: _config(subject, factors, source, config), FACTORS: as_json(factors.to_dict()), **made},
        usage,
        small=small,
        weights=weight_files(source),
        drawn=(README, *pictures),
        draw=draw,
        loose=(FACTORS,),  # the values are in config.json; how long their search took is none of the model's
        facts={
            "base_model": base_model,
            "gguf_sha256": gguf_sha256,
            "scheme": scheme,
            "model": factors.model,
            "factors": factors.digest,
        },
    )


def as_json(document: Any) -> bytes:
    """Not files.write_json: a model's config may hold Infinity, as state-space models' do."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _config(subject: Subject, factors: ScalingFactors, source: Path, more: Mapping[str, Any]) -> bytes:
    """The source's config.json with the factors: on top, and where the text model's config lies if that is loaded."""
    config = read_config(source)
    values, auto_map = list(factors.values), own_auto_map(config.get("auto_map") or {})
    config = {name: entry for name, entry in config.items() if name != "auto_map"}
    config = _with_scheme(subject.model, config)
    config |= ({"auto_map": auto_map} if auto_map else {}) | {CONFIG_KEY: values} | dict(more)
    config.setdefault("architectures", [type(subject.model).__name__])
    inner = config.get("text_config")
    if isinstance(inner, dict) and subject.model.config.model_type != config.get("model_type"):
        # A composite config of which transformers loads the text model alone: that is the config which the model has.
        config["text_config"] = inner | {CONFIG_KEY: values}
    return as_json(config)


def _with_scheme(model: Any, config: dict[str, Any]) -> dict[str, Any]:
    """A config.json with the base scheme that the model was loaded with in place of its own.

    Raises `UnsupportedModelError` if its config class would read another one out of it.
    """
    if not hasattr(model, ROPE_OVERRIDE):
        return config
    entries = config_entries(model.config)
    inner = config.get("text_config")
    made = (
        config | {"text_config": with_entries(inner, entries)}
        if isinstance(inner, dict)
        else with_entries(config, entries)
    )
    alone = isinstance(inner, dict) and model.config.model_type != config.get("model_type")
    own = copy.deepcopy(made["text_config"] if alone else made)
    if config_entries(type(model.config).from_dict(own)) != entries:
        raise UnsupportedModelError(
            f"the base scheme {getattr(model, ROPE_OVERRIDE)}: the config.json of {type(model).__name__} can't say so; "
            "export the factors alone (--to factors) and load the model with the same rope"
        )
    return made
