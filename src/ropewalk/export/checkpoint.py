"""A model folder again, with scaling factors in its config.json: what `ropewalk.load_pretrained` restores.

The weights are those of the source, to the bit, and share the disk with them where the file system can do that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ropewalk.export.base import ExportPlan, Subject, Target
from ropewalk.export.parts.model_folder import plan_model_folder
from ropewalk.export.parts.writer import write_export
from ropewalk.factors import ScalingFactors


class Checkpoint(Target):
    """An ordinary checkpoint: for ropewalk, and for vLLM with ropewalk's plugin."""

    name: ClassVar[str] = "checkpoint"
    summary: ClassVar[str] = "a model folder with the factors in its config.json, for ropewalk and vLLM with its plugin"

    def plan(self, subject: Subject, out: Path) -> ExportPlan:
        """See `Target.plan`."""
        usage = f'from ropewalk import load_pretrained; model, tokenizer = load_pretrained("{out.as_posix()}")'
        return plan_model_folder("checkpoint", subject, out, usage=usage, config={}, made={})


TARGET = Checkpoint()


def write_checkpoint(
    model: Any, factors: ScalingFactors, out: Path, *, any_model: bool = False, dry_run: bool = False
) -> ExportPlan:
    """Write the folder of a loaded model to `out`, with `factors` in its config.json. Returns what it is made of.

    The folder appears complete or not at all. One that holds the same model with the same factors is left as it is.
    dry_run: check everything, write nothing. Raises `FactorsError` if the factors are for another model,
    `DataError` if `out` holds anything else, `PrerequisiteError` if the disk is full or can't be written.
    """
    plan = TARGET.plan(Subject(model, factors, any_model=any_model), out)
    write_export(plan, dry_run=dry_run)
    return plan
