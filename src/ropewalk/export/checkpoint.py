"""A model folder again, with scaling factors in its config.json: what `ropewalk.load_pretrained` restores.

The weights are those of the source, to the bit. They share the disk with them where the file system can do that
(a reflink, else a hard link); all small files are copies, so that editing one leaves the source alone.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.cache import MANIFEST, disk_errors, fresh_folder
from ropewalk.errors import DataError, PrerequisiteError
from ropewalk.factors import ScalingFactors
from ropewalk.patch import CONFIG_KEY, check_factors

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
# What is no part of a model as ropewalk loads it: weights in other formats, the state of a training.
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf")
FOLDERS = ("additional_chat_templates",)  # the only folder that a tokenizer writes
FICLONE = 0x40049409  # Linux: let two files share their blocks until one is changed


@dataclass(frozen=True)
class CheckpointPlan:
    """What a checkpoint is made of. small: files to copy, weights: those to share or copy; names within `source`."""

    source: Path
    out: Path
    small: tuple[str, ...]
    weights: tuple[str, ...]

    @property
    def weight_bytes(self) -> int:
        """Size of the weights."""
        return sum((self.source / name).stat().st_size for name in self.weights)

    @property
    def shares_disk(self) -> bool:
        """Whether source and checkpoint lie on one file system, so that the weights need no disk of their own."""
        return all(_device((self.source / name).resolve()) == _device(self.out) for name in self.weights)

    def check_space(self) -> None:
        """Raise `PrerequisiteError` if the weights have to be copied and the disk has no room for them."""
        free = shutil.disk_usage(_existing(self.out)).free
        if not self.shares_disk and free < self.weight_bytes:
            raise PrerequisiteError(
                f"{self.out}: the checkpoint needs {self.weight_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
                f"make room, or give a folder on the disk of {self.source}, where the weights need no room of their own"
            )


def plan_checkpoint(model: Any, out: Path) -> CheckpointPlan:
    """What a checkpoint of a model that `load_pretrained` loaded is made of. Writes nothing.

    Raises `DataError` if `out` is there already and is not such a checkpoint, or if the model's folder can't be found.
    """
    source = source_folder(model)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and _carried(out) is None)):
        raise DataError(f"{out}: exists already and is no checkpoint with factors; give a folder that does not exist")
    if out.exists() and out.resolve() == source.resolve():
        raise DataError(f"{out}: is the model itself; give another folder")
    weights = _weights(source)
    own = [path for path in sorted(source.iterdir()) if path.is_file() and _belongs(path)]
    templates = [path for name in FOLDERS if (source / name).is_dir() for path in sorted((source / name).iterdir())]
    small = tuple(path.relative_to(source).as_posix() for path in (*own, *templates) if path.name != CONFIG)
    return CheckpointPlan(source, out, small, weights)


def write_checkpoint(
    model: Any, factors: ScalingFactors, out: Path, *, any_model: bool = False, dry_run: bool = False
) -> CheckpointPlan:
    """Write the folder of a loaded model to `out`, with `factors` in its config.json. Returns what it is made of.

    The folder appears complete or not at all. One that holds the same model with the same factors is left as it is.
    dry_run: check everything, write nothing. Raises `FactorsError` if the factors are for another model,
    `DataError` if `out` holds anything else, `PrerequisiteError` if the disk is full or can't be written.
    """
    check_factors(model, factors, any_model=any_model)
    plan = plan_checkpoint(model, out)
    config = _config(plan.source) | {CONFIG_KEY: list(factors.values)}
    if out.exists() and any(out.iterdir()):
        if files.read_json(out / CONFIG) != config or not _is_whole(plan):
            raise DataError(f"{out}: holds a checkpoint with other factors or of another model; give another folder")
        return plan
    plan.check_space()
    if dry_run:
        return plan
    with fresh_folder(out) as folder:
        for name in plan.small:
            _copy(plan.source / name, folder / name)
        for name in plan.weights:
            _share(plan.source / name, folder / name)
        # Not files.write_json: a model's config may hold Infinity, as state-space models' do.
        files.write_text(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return plan


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


def _config(source: Path) -> dict[str, Any]:
    config = files.read_json(source / CONFIG)
    if not isinstance(config, dict):
        raise DataError(f"{source / CONFIG}: expected a JSON object")
    return config


def _carried(folder: Path) -> list[Any] | None:
    """The factors in a folder's config.json, None without."""
    if not (folder / CONFIG).is_file():
        return None
    values = _config(folder).get(CONFIG_KEY)
    return values if isinstance(values, list) else None


def _weights(source: Path) -> tuple[str, ...]:
    """The safetensors that transformers reads: one file, else those of the index, else all there are."""
    if (source / WEIGHTS).is_file():
        return (WEIGHTS,)
    if (source / INDEX).is_file():
        names = sorted(set(files.read_json(source / INDEX)["weight_map"].values()))
    else:
        names = sorted(path.name for path in source.glob("*.safetensors"))
    missing = [name for name in names if not (source / name).is_file()]
    if missing or not names:
        raise DataError(f"{source}: {', '.join(missing) or 'safetensors'} missing; fetch the model again")
    return tuple(names)


def _belongs(path: Path) -> bool:
    """Whether a file of a model folder belongs to the model and is not weights."""
    is_state = path.suffix in (*OTHER_WEIGHTS, ".safetensors") or path.name.endswith(".bin.index.json")
    return not (is_state or path.name.startswith(".") or path.name == MANIFEST)


def _is_whole(plan: CheckpointPlan) -> bool:
    """Whether the checkpoint that is there has every file, the weights in their size."""
    sizes = {name: (plan.source / name).stat().st_size for name in plan.weights}
    there = all((plan.out / name).is_file() for name in (*plan.small, *plan.weights))
    return there and all((plan.out / name).stat().st_size == size for name, size in sizes.items())


def _share(source: Path, target: Path) -> None:
    """A reflink where the file system has such, else a hard link, else a copy."""
    origin = source.resolve()  # the hub's cache holds links
    if _reflinked(origin, target):
        return
    try:
        os.link(origin, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        _copy(origin, target)  # another disk, a file system without links, somebody else's file


def _reflinked(source: Path, target: Path) -> bool:
    try:
        import fcntl

        with source.open("rb") as origin, target.open("wb") as stream:
            fcntl.ioctl(stream.fileno(), FICLONE, origin.fileno())
    except (ImportError, OSError):
        target.unlink(missing_ok=True)
        return False
    target.chmod(0o644)
    return True


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    with disk_errors(target), source.open("rb") as origin, target.open("wb") as stream:
        shutil.copyfileobj(origin, stream, 1 << 24)
        stream.flush()
        os.fsync(stream.fileno())
    target.chmod(0o644)


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev
