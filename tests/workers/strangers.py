"""Workers of which the second one is not what the first one is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

from ropewalk import provenance
from ropewalk.workers import ModelSource, Worker


@dataclass(frozen=True)
class SecondIsOther:
    """folder: shared by the workers. what: it has another "version", "dtype" or "weight"."""

    folder: str
    what: str

    def __call__(self, source: ModelSource, threads: int | None) -> Worker:
        with (Path(self.folder) / "made").open("ab") as stream:
            stream.write(b".")
            first = stream.tell() == 1
        if first:
            return Worker(source, threads)
        if self.what == "version":
            provenance.version = lambda name: "0.0.7" if name == "torch" else version(name)
        worker = Worker(replace(source, dtype="bfloat16") if self.what == "dtype" else source, threads)
        if self.what == "weight":
            with torch.no_grad():
                worker.model.model.layers[1].mlp.up_proj.weight *= 1.01
        return worker
