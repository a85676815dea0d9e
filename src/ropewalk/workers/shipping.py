"""A model's files through Ray's object store, for nodes that don't have them: read once, written once on each node."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from ropewalk.cache import Report, cached_model

CHUNK_BYTES = 1 << 28


@dataclass(frozen=True)
class Shipment:
    """name: of the model. sha256: of all its files. files: each one's path within it and its pieces' references.

    is_folder: or it is one file, such as a GGUF.
    """

    name: str
    sha256: str
    files: tuple[tuple[str, tuple[Any, ...]], ...]
    is_folder: bool


def pack(model: Path) -> Shipment:
    """Put the files of a model's folder, or a single file, into the object store (which spills what it can't hold)."""
    paths = sorted(path for path in model.rglob("*") if path.is_file()) if model.is_dir() else [model]
    root = model if model.is_dir() else model.parent
    digest, files = hashlib.sha256(), []
    for path in paths:
        name, pieces = path.relative_to(root).as_posix(), []
        digest.update(f"{name} {path.stat().st_size}\n".encode())
        with path.open("rb") as stream:
            while piece := stream.read(CHUNK_BYTES):
                digest.update(piece)
                pieces.append(ray.put(piece))
        files.append((name, tuple(pieces)))
    return Shipment(model.name, digest.hexdigest(), tuple(files), model.is_dir())


def unpack(shipment: Shipment) -> Path:
    """The model on this node: in ropewalk's cache, written by the first worker that asks, whole or not at all."""

    def build(folder: Path, report: Report) -> None:
        for name, pieces in shipment.files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                for piece in pieces:
                    stream.write(ray.get(piece))

    source = {"shipment_sha256": shipment.sha256}
    folder = cached_model(f"{shipment.name}-{shipment.sha256[:12]}", source, build, progress=False)
    return folder if shipment.is_folder else folder / shipment.name
