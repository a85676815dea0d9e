"""What the page needs to know of a loaded model and of the examples that curves are scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors
from ropewalk.studio.decay import Frequencies, layer_frequencies
from ropewalk.studio.draft import Draft, Shape

if TYPE_CHECKING:
    from ropewalk.evaluate import Evaluator


@dataclass(frozen=True)
class Bench:
    """shape, frequencies: of the layers. identity, base: of the model. provenance: versions and hardware.

    task: its settings. split: which records they are. words: the same for a person. prompts: how many an evaluation
    takes. tokens: of the longest of them. examples: all that an evaluation depends on but the factors.
    """

    shape: Shape
    frequencies: Mapping[int, Frequencies]
    identity: Mapping[str, Any]
    base: Mapping[str, Any]
    provenance: Mapping[str, Any]
    task: Mapping[str, Any]
    split: str
    words: str
    prompts: int
    tokens: int
    examples: Mapping[str, Any]

    @classmethod
    def of(cls, evaluator: Evaluator, split: str) -> Bench:
        """Raises `UnsupportedModelError` for a model without factors, `DataError` for too few records."""
        from ropewalk.identity import base_scheme, model_identity
        from ropewalk.patch import rotary_layers
        from ropewalk.plan import examples_settings
        from ropewalk.provenance import provenance

        records, positions = len(evaluator.records), len(evaluator.task.positions)
        if records < 2:
            raise DataError("an evaluation on 1 record has no interval: give at least 2 (--limit)")
        identity, base = model_identity(evaluator.model), base_scheme(evaluator.model)
        made = provenance(evaluator.model)
        return cls(
            shape=Shape(int(identity["num_layers"]), tuple(rotary_layers(evaluator.model))),
            frequencies=layer_frequencies(evaluator.model),
            identity=identity,
            base=base,
            provenance=made,
            task=evaluator.settings,
            split=split,
            words=f"{evaluator.task.name}, {records} {split} records at each of {positions} positions",
            prompts=len(evaluator.examples),
            tokens=max(len(evaluator.prompt_ids(number)) for number in range(len(evaluator.examples))),
            examples={
                "model": identity,
                "base": base,
                "dtype": made["dtype"],
                "generated": evaluator.generated,
                **examples_settings(evaluator),
            },
        )

    def factors(self, draft: Draft, figures: Mapping[str, Any] | None = None) -> ScalingFactors:
        """A curve as a `factors.json` that says where it is from. figures: of its evaluation, if there was one."""
        factors = draft.factors(self.shape)
        found: dict[str, Any] = {
            "method": {
                "method": "by hand, in the studio",
                "space": {"mode": draft.mode, "skip_first": draft.skip_first},
            },
            "control_points": [list(point) for point in draft.control_points],
            **self.provenance,
        }
        if draft.layers:
            on_curve = Draft(draft.control_points, draft.mode, draft.skip_first).factors(self.shape)
            scaled = self.shape.rotary_layers[draft.skip_first :]
            found["offsets"] = [(factors[layer] or 1.0) - (on_curve[layer] or 1.0) for layer in scaled]
        if figures is not None:
            found["evaluated"] = {"task": self.task, "split": self.split, **figures}
        return factors.with_provenance(model=self.identity, base=self.base, found=found)
