"""The folder that a model was loaded from: which of its files belong to the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.cache import MANIFEST as CACHE_MANIFEST
from ropewalk.errors import DataError
from ropewalk.export.parts.manifest import MANIFEST, read_manifest
from ropewalk.modelling_file import MODELING

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
README, BASE_README = "README.md", "BASE_MODEL_README.md"
# What is no part of a model as ropewalk loads it: weights in other formats, the state of a training.
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf")
FOLDERS = ("additional_chat_templates",)  # the only folder that a tokenizer writes


def source_folder(model: Any) -> Path:
    """The folder that a model was loaded from: its own, a converted GGUF's, or the hub's copy on this disk."""
    name = str(getattr(model.config, "_name_or_path", "") or "")
    folder = Path(name).expanduser()
    if name and (folder / CONFIG).is_file():
        return folder
    if name and not folder.exists():
        from transformers.utils.hub import cached_file

        try:
            found = cached_file(name, CONFIG, local_files_only=True)
        except OSError:
            found = None
        if found:
            return Path(found).parent
    raise DataError(f"the folder of model {name or type(model).__name__!r} is not on this disk; load it from a folder")


def hub_id(model: Any) -> str | None:
    """The hub id by which a model was loaded, or that its export was made of; None for any other folder."""
    name, source = str(getattr(model.config, "_name_or_path", "") or ""), source_folder(model)
    if name and not Path(name).expanduser().exists():
        return name
    manifest = read_manifest(source)
    known = None if manifest is None else manifest.get("base_model")
    return known if isinstance(known, str) else None


def gguf_digest(source: Path) -> str | None:
    """SHA-256 of the GGUF file that the weights were read from, as the cache or an export recorded it; else None."""
    exported = (read_manifest(source) or {}).get("gguf_sha256")
    if isinstance(exported, str):
        return exported
    manifest = files.read_json(source / CACHE_MANIFEST) if (source / CACHE_MANIFEST).is_file() else {}
    origin = manifest.get("source") if isinstance(manifest, dict) else None
    digest = origin.get("gguf_sha256") if isinstance(origin, dict) else None
    return digest if isinstance(digest, str) else None


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises `DataError` if it is not a JSON object."""
    config = files.read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise DataError(f"{folder / CONFIG}: expected a JSON object")
    return config


def weight_files(source: Path) -> dict[str, Path]:
    """The safetensors that transformers reads: one file, else those of the index, else all there are."""
    if (source / WEIGHTS).is_file():
        return {WEIGHTS: source / WEIGHTS}
    if (source / INDEX).is_file():
        names = sorted(set(files.read_json(source / INDEX)["weight_map"].values()))
    else:
        names = sorted(path.name for path in source.glob("*.safetensors"))
    missing = [name for name in names if not (source / name).is_file()]
    if missing or not names:
        raise DataError(f"{source}: {', '.join(missing) or 'safetensors'} missing; fetch the model again")
    return {name: source / name for name in names}


def small_files(source: Path) -> dict[str, Path]:
    """All else that belongs to the model, by its name in an export. Its README is kept under another name.

    A model that is an export itself brings along what it was made of, and nothing that its export added.
    """
    manifest = read_manifest(source) or {}
    added = {MANIFEST, MODELING, CONFIG, *manifest.get("added", ())}
    if (source / BASE_README).is_file():
        added |= {README}
    own = [path for path in source.iterdir() if path.is_file() and _belongs(path) and path.name not in added]
    templates = [path for name in FOLDERS if (source / name).is_dir() for path in (source / name).iterdir()]
    named = {path.relative_to(source).as_posix(): path for path in sorted([*own, *templates])}
    return {BASE_README if name == README else name: path for name, path in named.items()}


def _belongs(path: Path) -> bool:
    """Whether a file of a model folder belongs to the model and is not weights."""
    is_state = path.suffix in (*OTHER_WEIGHTS, ".safetensors") or path.name.endswith(".bin.index.json")
    return not (is_state or path.name.startswith(".") or path.name == CACHE_MANIFEST)
