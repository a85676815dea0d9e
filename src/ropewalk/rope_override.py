"""Another base rope scheme for a model, such as linear:2, written into its config before it is built.

linear (position interpolation, arXiv 2306.15595), dynamic (NTK with a base that follows the length) and yarn (arXiv
2309.00071) are transformers' own; layer factors then multiply whichever it is.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.errors import RopewalkError, UnsupportedModelError

KINDS = ("default", "linear", "dynamic", "yarn")
REPLACEABLE = (*KINDS, "llama3", "longrope")
OTHER_NAMES = {"none": "default", "pi": "linear", "interpolation": "linear", "ntk": "dynamic", "dynamic-ntk": "dynamic"}
REFUSED = {
    "llama3": "its four numbers belong to the training of a model",
    "longrope": "its two lists, a number for each frequency, are found by a search and trained with",
    "proportional": "it rotates other parts of a head, which takes training",
}
ORIGINAL = "original_max_position_embeddings"
LIMIT = "max_position_embeddings"
ROPE_OVERRIDE = "rope_override"  # attribute of a model that was loaded with another scheme: what it replaced, in words
EXPECTED = "linear:2, dynamic:2, yarn:4, yarn:4,original=8192 or default"
# Entries of rope parameters that say how a scheme extends; all others (base, rotated part, sections) are the model's.
OF_THE_SCHEME = (
    "rope_type",
    "type",
    "factor",
    ORIGINAL,
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
    "low_freq_factor",
    "high_freq_factor",
)
OF_YARN = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")  # bounds that a YaRN model is trained with
WINDOWED = ("sliding_attention", "chunked_attention", "linear_attention")  # layer types that see a short window


@dataclass(frozen=True)
class RopeOverride:
    """A base scheme. kind: one of `KINDS`. factor: how many times the trained length, ≥ 1.

    original: tokens that the model was trained to; None: what its config says.
    """

    kind: str
    factor: float = 1.0
    original: int | None = None

    @classmethod
    def parse(cls, text: str) -> RopeOverride:
        """The scheme of "linear:2", "dynamic:2", "yarn:4,original=8192" or "default".

        Raises `RopewalkError` that says what was given and what is expected.
        """
        head, *options = (part.strip() for part in text.split(","))
        kind, colon, number = head.partition(":")
        _check_kind(text, kind)
        if kind == "default":
            if colon:
                raise RopewalkError(f"rope is {text!r}: default takes the scheme off and has no factor; give default")
            return cls(kind, 1.0, _original(text, options))
        if not number:
            raise RopewalkError(f"rope is {text!r}: {kind} needs a factor, such as {kind}:2")
        return cls(kind, _factor(text, kind, number), _original(text, options))

    def __str__(self) -> str:
        """As `parse` takes it."""
        number = repr(self.factor).removesuffix(".0")
        head = self.kind if self.kind == "default" else f"{self.kind}:{number}"
        return head if self.original is None else f"{head},original={self.original}"


def override_rope(config: Any, rope: RopeOverride) -> str:
    """Write the scheme into a config of transformers, in place, and the longest input that it gives.

    A model with a scheme for each layer type gets it where the attention is full; layers that see a window keep theirs.
    linear and yarn set `max_position_embeddings` to trained length * factor; dynamic keeps it at the trained length,
    from which it reckons. Returns what was replaced, in words. Raises `UnsupportedModelError` for a model whose scheme
    can't be replaced, `RopewalkError` if its trained length is not known.
    """
    text = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None)
    if not parameters:
        raise UnsupportedModelError(
            f"rope is {rope}: the config of this {text.model_type} has no rope_parameters, so no scheme to replace"
        )
    parameters = copy.deepcopy(dict(parameters))
    places = _places(parameters, rope)
    schemes = [parameters if place is None else parameters[place] for place in places]
    for scheme in schemes:
        _check_replaceable(scheme, rope)
    before = "; ".join(dict.fromkeys(_words(scheme) for scheme in schemes))
    trained = _trained_length(text, schemes, rope)
    made = [_scheme(scheme, rope, trained) for scheme in schemes]
    for place, scheme in zip(places, made, strict=True):
        parameters = scheme if place is None else parameters | {place: scheme}
    text.rope_parameters = parameters
    _set_lengths(text, rope, trained)
    where = "" if places == [None] else f" of {', '.join(map(str, places))}"
    limit = getattr(text, LIMIT, None)
    longest = int(limit * rope.factor) if limit and rope.kind == "dynamic" else limit
    return f"{rope} in place of {before}{where}; trained to {trained} tokens, takes {longest}"


def config_entries(config: Any) -> dict[str, Any]:
    """What an overridden scheme has to add to a config.json for it to be loaded again."""
    text = config.get_text_config()
    values = {name: getattr(text, name, None) for name in ("rope_parameters", LIMIT, ORIGINAL, "head_dim")}
    names = getattr(text, "attribute_map", {})
    return {names.get(name, name): copy.deepcopy(value) for name, value in values.items() if value is not None}


def with_entries(config: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json's content, or its text_config, with the entries in place of those of the former scheme."""
    kept = {name: value for name, value in config.items() if name != "rope_scaling"}  # it would go before the new ones
    return kept | dict(entries)


def advice(wanted: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    """Which `--rope` makes a model with the rope parameters `present` one with `wanted`; empty if none does."""
    old, new = _full(present), _full(wanted)
    if not old or not new or _own(old) != _own(new):
        return ""
    kind = str(new.get("rope_type", "default"))
    if kind == "default":
        return "load the model without --rope, or with --rope default"
    brought = "attention_factor" in new or any(name in new and name not in old for name in OF_YARN)
    if kind not in KINDS or brought:
        return "load the model without --rope"
    rope = RopeOverride(kind, float(new.get("factor") or 1.0), new.get(ORIGINAL))
    return f'load the model with --rope {rope} (in Python rope="{rope}")'


def _check_kind(text: str, kind: str) -> None:
    if kind in KINDS:
        return
    if kind in REFUSED:
        raise RopewalkError(
            f"rope is {text!r}: {kind} can't be laid over a model, {REFUSED[kind]}; a checkpoint brings it in its own "
            f"config.json. Expected {EXPECTED}"
        )
    plain = kind.lower()
    near = [OTHER_NAMES[plain]] if plain in OTHER_NAMES else difflib.get_close_matches(plain, KINDS, n=1)
    raise RopewalkError(
        f"rope is {text!r}: no scheme {kind!r}"
        + (f", did you mean {near[0]}?" if near else ";")
        + f" Expected {EXPECTED}"
    )


def _factor(text: str, kind: str, number: str) -> float:
    try:
        factor = float(number)
    except ValueError:
        raise RopewalkError(f"rope is {text!r}: the factor is {number!r}, expected a number such as {kind}:2") from None
    if not math.isfinite(factor) or factor < 1:
        why = "; factors below 1 are for layers (ScalingFactors)" if 0 < factor < 1 else ""
        raise RopewalkError(
            f"rope is {text!r}: the factor is {number}, expected 1 or more: how many times the trained length{why}"
        )
    return factor


def _original(text: str, options: list[str]) -> int | None:
    """The value of original=, the only option."""
    values = []
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() != "original":
            raise RopewalkError(f"rope is {text!r}: {option!r} is no option of it; the only one is original=TOKENS")
        if not value.strip().isdecimal() or int(value) < 1:
            raise RopewalkError(f"rope is {text!r}: {option!r}, expected a whole number of tokens from 1")
        values.append(int(value))
    if len(values) > 1:
        raise RopewalkError(f"rope is {text!r}: original was given twice")
    return values[0] if values else None


def _nested(parameters: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) for value in parameters.values())


def _places(parameters: Mapping[str, Any], rope: RopeOverride) -> list[str | None]:
    """Which layer types get the scheme; None for a model with one scheme for all."""
    if not _nested(parameters):
        return [None]
    types = [name for name, value in parameters.items() if isinstance(value, Mapping)]
    odd = [name for name in types if name not in ("full_attention", *WINDOWED)]
    if odd or "full_attention" not in types:
        raise UnsupportedModelError(
            f"rope is {rope}: this model has a scheme for each of its layer types {types}, and it is not known which "
            "are to be extended; write rope_parameters into a copy of its config.json"
        )
    return ["full_attention"]


def _check_replaceable(scheme: Mapping[str, Any], rope: RopeOverride) -> None:
    kind = scheme.get("rope_type", "default")
    if kind not in REPLACEABLE:
        raise UnsupportedModelError(
            f"rope is {rope}: this model's scheme is {kind}, which rotates in a way of its own and can't be replaced "
            f"(those that can: {', '.join(REPLACEABLE)})"
        )
    if "llama_4_scaling_beta" in scheme:
        raise UnsupportedModelError(
            f"rope is {rope}: this model also scales its queries by its own scheme (llama_4_scaling_beta), which was "
            "trained with it and can't be replaced"
        )


def _trained_length(text: Any, schemes: list[Any], rope: RopeOverride) -> int:
    """Tokens that the model was trained to."""
    limit, extends = (
        getattr(text, LIMIT, None),
        any(scheme.get("rope_type", "default") != "default" for scheme in schemes),
    )
    known = rope.original
    if known is None and extends:  # phi3 states one also where nothing is extended
        known = getattr(text, ORIGINAL, None) or next((own[ORIGINAL] for own in schemes if ORIGINAL in own), None)
    if known:
        return int(known)
    linear = [scheme for scheme in schemes if scheme.get("rope_type") == "linear"]
    if linear:
        raise RopewalkError(
            f"rope is {rope}: the model's config has {_words(linear[0])} and does not say to what length it was "
            f"trained before that (its {LIMIT} is {limit}); give it: {rope},original=TOKENS"
        )
    if not limit:
        raise RopewalkError(
            f"rope is {rope}: the model's config does not say how long its inputs may be; give {rope},original=TOKENS"
        )
    return int(limit)


def _scheme(old: Mapping[str, Any], rope: RopeOverride, trained: int) -> dict[str, Any]:
    """The rope parameters of one scheme, all that is not a scheme's taken over."""
    made = _own(old) | {"rope_type": rope.kind}
    if rope.kind != "default":
        made["factor"] = rope.factor
    if rope.kind == "yarn" or (rope.kind == "dynamic" and rope.original is not None):
        made[ORIGINAL] = trained  # dynamic reckons from the model's limit: here it is what tells two schemes apart
    if rope.kind == "yarn" == old.get("rope_type"):
        made |= {name: old[name] for name in OF_YARN if name in old}
    return made


def _set_lengths(text: Any, rope: RopeOverride, trained: int) -> None:
    """The longest input, and the trained length where the scheme itself does not keep it."""
    extended = rope.kind in ("linear", "yarn")
    setattr(text, LIMIT, int(trained * rope.factor) if extended else trained)
    if rope.kind == "linear" or getattr(text, ORIGINAL, None):
        setattr(text, ORIGINAL, trained)
    if rope.kind in ("dynamic", "yarn") and getattr(text, "head_dim", 0) is None:
        text.head_dim = text.hidden_size // text.num_attention_heads  # transformers multiplies by it here, None or not


def _own(scheme: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scheme.items() if name not in OF_THE_SCHEME}


def _full(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scheme of full attention."""
    full: Mapping[str, Any] = parameters.get("full_attention", {}) if _nested(parameters) else parameters
    return full


def _words(scheme: Mapping[str, Any]) -> str:
    kind, factor = str(scheme.get("rope_type", "default")), scheme.get("factor")
    return f"{kind} (factor {factor:g})" if isinstance(factor, int | float) else kind
