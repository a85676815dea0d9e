"""The genetic algorithm with the setting of arXiv 2503.04355 and its code: a preset of `bezier-ga`.

Factors from 1 to 2.5 around a first level of 1.5, the curve read at even parameters, the first two layers left alone,
0/1 accuracy as fitness. The identity is in the first population all the same: without it a model that 1.5 breaks, and
most small ones are, could only get worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ropewalk.objectives import Measure
from ropewalk.options import option
from ropewalk.search import bezier_ga


@dataclass(frozen=True)
class Options(bezier_ga.Options):
    """The genetic algorithm's options, with the paper's first level."""

    initial_factor: float = option(1.5, "Level around which the first generation is drawn.")


class Paper(bezier_ga.BezierGA):
    """The paper's setting; every option can still be given."""

    name: ClassVar[str] = "paper"
    OPTIONS: ClassVar[type] = Options
    SPACE: ClassVar[Mapping[str, Any]] = {"low": 1.0, "high": 2.5, "mode": "uniform", "skip_first": 2}
    MEASURE: ClassVar[Measure] = "accuracy"


METHOD = Paper
