"""What an export is made of, and what a target is: it says which files there will be; `parts.writer` writes them."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ropewalk.errors import PrerequisiteError
from ropewalk.factors import ScalingFactors

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """What is to leave.

    model: as `load_pretrained` gave it, with or without factors applied; exporting leaves it as it was. factors: those
    of the export. test: what a test on held-out records found of them (`parts.evidence`), a block a task. base_model:
    hub id of the original, for the model card. any_model: the factors may be another model's.
    """

    model: Any
    factors: ScalingFactors
    test: Sequence[Json] = ()
    base_model: str | None = None
    any_model: bool = False


@dataclass(frozen=True)
class ExportPlan:
    """The files of an export by their name in `out`, and where they come from.

    small: to copy; weights: to share or copy, both with the file they are taken from. made: written by ropewalk, with
    their content; the same export has the same ones. drawn: names of the files that `draw` writes into a folder: they
    follow from the rest. loose: names of made files that may differ in the same export. usage: the line that loads it.
    facts: what the manifest says beside the files; without facts there is no manifest.
    """

    target: str
    out: Path
    made: Mapping[str, bytes]
    usage: str
    small: Mapping[str, Path] = field(default_factory=dict)
    weights: Mapping[str, Path] = field(default_factory=dict)
    drawn: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    draw: Callable[[Path], None] | None = None
    facts: Json = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All files, the manifest apart."""
        return sorted({*self.made, *self.drawn, *self.small, *self.weights})

    @property
    def weight_bytes(self) -> int:
        """Size of the weights."""
        return sum(path.stat().st_size for path in self.weights.values())

    @property
    def shares_disk(self) -> bool:
        """Whether source and export lie on one file system, so that the weights need no disk of their own."""
        return all(_device(path.resolve()) == _device(self.out) for path in self.weights.values())

    def check_space(self) -> None:
        """Raise `PrerequisiteError` if the weights have to be copied and the disk has no room for them."""
        free = shutil.disk_usage(_existing(self.out)).free
        if not self.shares_disk and free < self.weight_bytes:
            (source, *_) = {path.parent for path in self.weights.values()}
            raise PrerequisiteError(
                f"{self.out}: the checkpoint needs {self.weight_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
                f"make room, or give a folder on the disk of {source}, where the weights need no room of their own"
            )


class Target(ABC):
    """A form in which factors can leave. name: its module's, with hyphens. summary: a line for lists."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def check(self) -> None:
        """Raise `RopewalkError` if nothing can be exported whatever the model is. Called before one is loaded."""
        return

    @abstractmethod
    def plan(self, subject: Subject, out: Path) -> ExportPlan:
        """Which files the export will have. Writes nothing.

        Raises `FactorsError` if the factors don't fit the model, `UnsupportedModelError` if this form can't carry them.
        """


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev
