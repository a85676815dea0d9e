"""`ScalingFactors`: one rotary scaling factor per layer, with where they come from and a digest.

Layer l divides the rotary position by its factor s_l: angle = f_base(p / s_l) (arXiv 2503.04355, equation 4). A factor
of 1 is the model as trained; `None` marks a layer that has no rotary position.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ropewalk import files
from ropewalk.bezier import Mode, curve_factors
from ropewalk.errors import DataError, FactorsError
from ropewalk.rope_override import advice

SCHEMA = "ropewalk.factors/1"
CONFIG_KEY = "rope_layer_factors"  # of a checkpoint's config.json
FIELDS = ("schema", "values", "model", "base", "found", "digest")


@dataclass(frozen=True, eq=False)
class ScalingFactors:
    """Frozen scaling factors of a model, float64 per layer, all > 0; `None` where a layer has no rotary position.

    values: one entry a layer, first layer first.
    model: identity of the model they were made for (`ropewalk.model_identity`), or empty for any model.
    base: the rope parameters they multiply, as in the model's config, or empty.
    found: how they were found (task, seed, method, scores), free form JSON.

    Two of them are equal if their whole content is, that is, if their digests agree.
    """

    values: tuple[float | None, ...]
    _provenance: str = field(repr=False)  # JSON text of model, base, found: nobody outside can alter what is digested

    def __init__(
        self,
        values: Iterable[float | None],
        *,
        model: Mapping[str, Any] | None = None,
        base: Mapping[str, Any] | None = None,
        found: Mapping[str, Any] | None = None,
    ) -> None:
        given = {"model": model, "base": base, "found": found}
        provenance = {name: _json_copy(name, {} if content is None else content) for name, content in given.items()}
        object.__setattr__(self, "values", _check_values(values))
        object.__setattr__(self, "_provenance", json.dumps(provenance))

    @classmethod
    def uniform(cls, factor: float, num_layers: int, *, rotary_layers: Sequence[int] | None = None) -> Self:
        """The same factor in every layer (or in `rotary_layers`, the others being null)."""
        return cls(_place([factor] * len(_indices(num_layers, rotary_layers)), num_layers, rotary_layers))

    @classmethod
    def from_bezier(
        cls,
        control_points: ArrayLike,
        num_layers: int,
        *,
        mode: Mode = "depth",
        rotary_layers: Sequence[int] | None = None,
        skip_first: int = 0,
    ) -> Self:
        """Factors along a Bézier curve; P0 belongs to the first scaled layer, the last point to the last layer.

        control_points: [P, 2] of (depth, factor). rotary_layers: indices of the layers that have rotary position
        (default all); the curve runs over these alone. skip_first: how many of them, from the first, keep factor 1
        (the paper leaves two alone).
        """
        rotary = _indices(num_layers, rotary_layers)
        if not 0 <= skip_first < len(rotary):
            raise FactorsError(
                f"skip_first is {skip_first}, expected 0 to {len(rotary) - 1}: some layer must be scaled"
            )
        scaled = curve_factors(control_points, len(rotary) - skip_first, mode)
        return cls(_place([1.0] * skip_first + scaled.tolist(), num_layers, rotary_layers))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a `factors.json`; an unknown schema, a missing field or a tampered digest is a `FactorsError`."""
        try:
            document = files.read_json(path)
        except DataError as error:
            raise FactorsError(str(error)) from None
        try:
            return cls.from_dict(document)
        except FactorsError as error:
            raise FactorsError(f"{Path(path)}: {error}") from None

    @classmethod
    def from_dict(cls, document: Any) -> Self:
        """The inverse of `to_dict`, with the same checks as `load`."""
        if not isinstance(document, Mapping):
            raise FactorsError(f"expected a JSON object with the schema {SCHEMA!r}, got {type(document).__name__}")
        if document.get("schema") != SCHEMA:
            raise FactorsError(f"schema is {document.get('schema')!r}, this version of ropewalk reads {SCHEMA!r}")
        missing = [name for name in FIELDS if name not in document]
        unknown = [name for name in document if name not in FIELDS]
        if missing or unknown:
            raise FactorsError(f"fields missing: {missing}, unknown: {unknown}; expected {list(FIELDS)}")
        if not isinstance(document["values"], list):
            raise FactorsError(f"values: expected a list with one entry a layer, got {document['values']!r}")
        for name in ("model", "base", "found"):
            if not isinstance(document[name], Mapping):
                raise FactorsError(f"{name}: expected a JSON object, got {document[name]!r}")
        factors = cls(document["values"], model=document["model"], base=document["base"], found=document["found"])
        if document["digest"] != factors.digest:
            raise FactorsError(
                "the digest does not match the content: the file was changed after it was written. "
                "Take the original, or make new factors with ScalingFactors([...]).save(path)"
            )
        return factors

    def to_dict(self) -> dict[str, Any]:
        """The content of `factors.json`."""
        return self._content() | {"digest": self.digest}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `factors.json` atomically."""
        files.write_json(path, self.to_dict())

    @property
    def model(self) -> dict[str, Any]:
        """Identity of the model they were made for, a copy; empty if for any model."""
        return self._document("model")

    @property
    def base(self) -> dict[str, Any]:
        """The rope parameters they multiply, a copy; empty if not recorded."""
        return self._document("base")

    @property
    def found(self) -> dict[str, Any]:
        """How they were found, a copy."""
        return self._document("found")

    @property
    def digest(self) -> str:
        """SHA-256 of the whole content (values, model, base, found)."""
        text = json.dumps(self._content(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def num_layers(self) -> int:
        """Layers of the model, with and without rotary position."""
        return len(self.values)

    @property
    def rotary_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have a factor."""
        return tuple(index for index, value in enumerate(self.values) if value is not None)

    @property
    def is_identity(self) -> bool:
        """True if every factor is exactly 1: the model as trained."""
        return all(value is None or value == 1.0 for value in self.values)

    def to_array(self) -> NDArray[np.float64]:
        """float64 [num_layers], NaN where a layer has no rotary position."""
        return np.array([math.nan if value is None else value for value in self.values], dtype=np.float64)

    def matched_uniform(self) -> ScalingFactors:
        """The control of the same mean: each rotary layer gets the arithmetic mean of these factors."""
        mean = float(np.nanmean(self.to_array()))
        return ScalingFactors(
            [None if value is None else mean for value in self.values], model=self.model, base=self.base
        )

    def with_provenance(
        self, *, model: Mapping[str, Any], base: Mapping[str, Any], found: Mapping[str, Any]
    ) -> ScalingFactors:
        """The same values with the model they are for, the base scheme and how they were found."""
        return ScalingFactors(self.values, model=model, base=base, found=found)

    def check_model(self, model: Mapping[str, Any], base: Mapping[str, Any], *, any_model: bool = False) -> None:
        """Raise `FactorsError` unless these factors fit a model of that identity and base scheme.

        The number of layers must always agree. `any_model=True` lets factors of another model or base through.
        """
        if self.num_layers != model["num_layers"]:
            raise FactorsError(
                f"{self.num_layers} factors for a model of {model['num_layers']} layers ({model.get('name')}): "
                "give one factor per layer (null for a layer without rotary position)"
            )
        if any_model:
            return
        own_model, own_base, its_base = self.model, self.base, _json_copy("base", base)
        if own_model and own_model.get("fingerprint") != model["fingerprint"]:
            raise FactorsError(
                f"these factors were made for {own_model.get('name')!r}, this model is {model.get('name')!r} with "
                "another fingerprint; to apply them all the same say any_model=True (--any-model)"
            )
        if own_base and own_base != its_base:
            cure = advice(own_base, its_base)
            raise FactorsError(
                f"these factors multiply the rope parameters {own_base}, this model has {its_base}; "
                f"{cure}{', or ' if cure else ''}to apply them all the same say any_model=True (--any-model)"
            )

    def _content(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "values": list(self.values), **json.loads(self._provenance)}

    def _document(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._provenance)[name]
        return document

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[float | None]:
        return iter(self.values)

    def __getitem__(self, layer: int) -> float | None:
        return self.values[layer]

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, ScalingFactors) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)


def _check_values(values: Iterable[float | None]) -> tuple[float | None, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise FactorsError(f"factors must be a list with one number (or null) a layer, got {values!r}")
    checked: list[float | None] = []
    for layer, value in enumerate(values):
        if value is None:
            checked.append(None)
            continue
        if isinstance(value, bool) or not isinstance(value, Real):
            raise FactorsError(f"factor of layer {layer} is {value!r}, expected a number > 0 or null")
        try:
            number = float(value)
        except OverflowError:  # an integer beyond the range of float64
            number = math.inf
        if not math.isfinite(number) or number <= 0:
            raise FactorsError(f"factor of layer {layer} is {number}, expected a finite number > 0")
        checked.append(number)
    if all(value is None for value in checked):
        raise FactorsError("no factors given: at least one layer needs a number")
    return tuple(checked)


def _json_copy(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A private copy as JSON would give it back, so that the digest survives the round trip."""
    if not isinstance(content, Mapping):
        raise FactorsError(f"{name}: expected a JSON object, got {content!r}")
    try:
        copied: dict[str, Any] = json.loads(json.dumps(dict(content), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise FactorsError(f"{name}: not JSON ({error})") from None
    return copied


def _indices(num_layers: int, rotary_layers: Sequence[int] | None) -> list[int]:
    if num_layers < 1:
        raise FactorsError(f"num_layers is {num_layers}, expected at least 1")
    indices = list(range(num_layers)) if rotary_layers is None else list(rotary_layers)
    if not indices or indices != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= num_layers:
        raise FactorsError(f"rotary_layers {indices}: expected ascending layer indices below {num_layers}")
    return indices


def _place(factors: Sequence[float], num_layers: int, rotary_layers: Sequence[int] | None) -> list[float | None]:
    placed: list[float | None] = [None] * num_layers
    for index, factor in zip(_indices(num_layers, rotary_layers), factors, strict=True):
        placed[index] = factor
    return placed
