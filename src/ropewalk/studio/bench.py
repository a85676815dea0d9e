"""A loaded model with the examples that curves are scored on, and what the page needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ropewalk.errors import DataError
from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors
from ropewalk.studio.decay import Frequencies, layer_frequencies
from ropewalk.studio.draft import Draft, Shape


@dataclass(frozen=True)
class Bench:
    """evaluator: the model with the examples. split: which records they are. shape, frequencies: of its layers."""

    evaluator: Evaluator
    split: str
    shape: Shape
    frequencies: Mapping[int, Frequencies]
    identity: Mapping[str, Any]
    base: Mapping[str, Any]

    @classmethod
    def of(cls, evaluator: Evaluator, split: str) -> Bench:
        """Raises `UnsupportedModelError` for a model without factors, `DataError` for too few records."""
        from ropewalk.identity import base_scheme, model_identity
        from ropewalk.patch import rotary_layers

        if len(evaluator.records) < 2:
            raise DataError("an evaluation on 1 record has no interval: give at least 2 (--limit)")
        identity = model_identity(evaluator.model)
        shape = Shape(int(identity["num_layers"]), tuple(rotary_layers(evaluator.model)))
        return cls(evaluator, split, shape, layer_frequencies(evaluator.model), identity, base_scheme(evaluator.model))

    @cached_property
    def examples(self) -> Mapping[str, Any]:
        """All that an evaluation depends on but the factors."""
        from ropewalk.plan import examples_settings
        from ropewalk.provenance import provenance

        return {
            "model": dict(self.identity),
            "base": dict(self.base),
            "dtype": provenance(self.evaluator.model)["dtype"],
            "generated": self.evaluator.generated,
            **examples_settings(self.evaluator),
        }

    @property
    def tokens(self) -> int:
        """Of the longest prompt."""
        return max(len(self.evaluator.prompt_ids(number)) for number in range(len(self.evaluator.examples)))

    @property
    def words(self) -> str:
        """What is scored, in words."""
        evaluator = self.evaluator
        return (
            f"{evaluator.task.name}, {len(evaluator.records)} {self.split} records at each of "
            f"{len(evaluator.task.positions)} positions"
        )

    def factors(self, draft: Draft, figures: Mapping[str, Any] | None = None) -> ScalingFactors:
        """A curve as a `factors.json` that says where it is from. figures: of its evaluation, if there was one."""
        from ropewalk.provenance import provenance

        factors = draft.factors(self.shape)
        found: dict[str, Any] = {
            "method": {
                "method": "by hand, in the studio",
                "space": {"mode": draft.mode, "skip_first": draft.skip_first},
            },
            "control_points": [list(point) for point in draft.control_points],
            **provenance(self.evaluator.model),
        }
        if draft.layers:
            on_curve = Draft(draft.control_points, draft.mode, draft.skip_first).factors(self.shape)
            scaled = self.shape.rotary_layers[draft.skip_first :]
            found["offsets"] = [(factors[layer] or 1.0) - (on_curve[layer] or 1.0) for layer in scaled]
        if figures is not None:
            found["evaluated"] = {"task": self.evaluator.settings, "split": self.split, **figures}
        return factors.with_provenance(model=self.identity, base=self.base, found=found)
