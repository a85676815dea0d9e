"""GGUF: not possible for stock builds of llama.cpp, and said so before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NoReturn

from ropewalk.errors import UnsupportedModelError
from ropewalk.export.base import ExportPlan, Subject, Target

WHY = (
    "a GGUF file can't carry a factor for each layer: the loader of stock llama.cpp builds makes all layers share one "
    "rope_freqs tensor, and a single --rope-freq-scale is not equivalent. What can: --to checkpoint (ropewalk, or vLLM "
    "with its plugin) and --to remote-code (plain transformers)"
)


class Gguf(Target):
    """Always refused, with the reason."""

    name: ClassVar[str] = "gguf"
    summary: ClassVar[str] = "says why llama.cpp can't carry a factor for each layer, and what can"

    def check(self) -> NoReturn:
        """Raises `UnsupportedModelError`."""
        raise UnsupportedModelError(WHY)

    def plan(self, subject: Subject, out: Path) -> ExportPlan:
        """Raises `UnsupportedModelError`."""
        self.check()


TARGET = Gguf()
