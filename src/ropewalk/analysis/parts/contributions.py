"""Each layer's part in what given factors gain: what U loses when that layer alone is put back to factor 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropewalk.analysis.base import Json, Subject
from ropewalk.analysis.parts.effects import effect
from ropewalk.factors import ScalingFactors
from ropewalk.objectives import DEFAULT_WEIGHTS, position_weights
from ropewalk.results import TaskResult


@dataclass(frozen=True)
class Contributions:
    """vanilla, whole: the results without factors and with all of them.

    values: float64 [records, L], for each rotary layer U of the log-likelihood with all factors, less that without the
    layer's, nats a token; 0 for a layer of factor 1. effects: the same with intervals, as JSON, by layer.
    """

    vanilla: TaskResult
    whole: TaskResult
    values: NDArray[np.float64]
    effects: list[Json]


def contributions(subject: Subject, given: ScalingFactors) -> Contributions:
    """Leave one layer out, for every layer; one score an example and layer."""
    layers = subject.rotary_layers
    without = {f"without {layer}": subject.only(set(layers) - {layer}, given) for layer in layers}
    scored = subject.score({"vanilla": None, "factors": given, **without}, stage="Layers")
    whole = scored["factors"]
    shares = position_weights(len(whole.positions), DEFAULT_WEIGHTS)
    left_out = [scored[name] for name in without]
    values = [(whole.log_likelihoods - other.log_likelihoods) @ shares for other in left_out]
    return Contributions(
        scored["vanilla"], whole, np.stack(values, axis=1), [effect(other, whole) for other in left_out]
    )
