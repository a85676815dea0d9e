"""A model folder that brings a small modelling file: plain transformers runs it with trust_remote_code=True."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ropewalk.export.base import ExportPlan, Subject, Target
from ropewalk.export.parts.model_folder import plan_model_folder
from ropewalk.export.parts.modeling import auto_map, modeling_code
from ropewalk.export.parts.proof import prove
from ropewalk.export.parts.source import read_config, source_folder
from ropewalk.modelling_file import MODELING, own_auto_map

MODEL_CLASSES = ("AutoConfig", "AutoModel")  # entries of auto_map that would lead past the file, also AutoModelFor…


class RemoteCode(Target):
    """The checkpoint and code that needs no ropewalk, for the classes that transformers itself has."""

    name: ClassVar[str] = "remote-code"
    summary: ClassVar[str] = "the same with a small modelling file, for plain transformers with trust_remote_code=True"

    def plan(self, subject: Subject, out: Path) -> ExportPlan:
        """See `Target.plan`. Runs the file on the model itself, and raises if it does other than ropewalk does."""
        code = modeling_code(subject.model)
        brought = own_auto_map(read_config(source_folder(subject.model)).get("auto_map") or {})
        kept = {name: place for name, place in brought.items() if not name.startswith(MODEL_CLASSES)}
        load = f'AutoModelForCausalLM.from_pretrained("{out.as_posix()}", trust_remote_code=True)'
        usage = f"from transformers import AutoModelForCausalLM; model = {load}"
        plan = plan_model_folder(
            "remote-code",
            subject,
            out,
            usage=usage,
            config={"auto_map": kept | auto_map(subject.model)},
            made={MODELING: code.encode()},
        )
        prove(code, subject.model, subject.factors)
        return plan


TARGET = RemoteCode()
