"""The factors alone, as factors.json with the model that they are for: to be applied to a copy of that model."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ropewalk.errors import DataError
from ropewalk.export.base import ExportPlan, Subject, Target
from ropewalk.export.parts.manifest import FACTORS
from ropewalk.export.parts.model_folder import as_json, bound_factors


class Factors(Target):
    """factors.json in a folder of its own: a few kilobytes."""

    name: ClassVar[str] = "factors"
    summary: ClassVar[str] = "factors.json alone, with the model that they are for and the test"

    def plan(self, subject: Subject, out: Path) -> ExportPlan:
        """See `Target.plan`."""
        if out.suffix == ".json":
            raise DataError(f"{out}: expected a folder, in which factors.json will be")
        made = {FACTORS: as_json(bound_factors(subject).to_dict())}
        path = (out / FACTORS).as_posix()
        usage = f'import ropewalk; ropewalk.apply(model, ropewalk.ScalingFactors.load("{path}"))'
        return ExportPlan(self.name, out, made, usage)


TARGET = Factors()
