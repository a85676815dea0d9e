"""Converted models in the user's cache: built once, whole or not at all, rebuilt when a file is missing or cut short.

A model lies in a folder of its own with a manifest of its files. It is built in a sibling folder and renamed when it
is complete, under a file lock, so that neither a kill nor a second process leaves anything half-made to be trusted.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from safetensors import SafetensorError

from ropewalk import files
from ropewalk.errors import DataError, PrerequisiteError

MANIFEST = "ropewalk-manifest.json"
SCHEMA = "ropewalk.model-cache/1"
CONVERTER = 1  # part of every GGUF's source: raise it when the conversion changes, so that older caches are rebuilt
Report = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all); in all 0 means unknown."""


def cache_root() -> Path:
    """`$ROPEWALK_CACHE`, else `$XDG_CACHE_HOME/ropewalk`, else `~/.cache/ropewalk`. Not created here."""
    if own := os.environ.get("ROPEWALK_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "ropewalk"
    return Path.home() / ".cache" / "ropewalk"


def cached_model(
    name: str, source: Mapping[str, Any], build: Callable[[Path, Report], None], *, progress: bool = True
) -> Path:
    """The folder `name` of the cache; `build(folder, report)` makes it if it is not there or no longer whole.

    source: where the model comes from (JSON), kept in the manifest; another source means another model, so rebuild.
    build: gets the path of a folder that does not exist yet and has to create it, and a function to tell how far it is.
    progress: show a bar on standard error while it builds.
    Raises `PrerequisiteError` if the cache can't be written or the disk is full.
    """
    target = cache_root() / "models" / name
    if is_intact(target, source):
        return target
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{name}.lock"):
            if is_intact(target, source):  # another process built it while this one waited
                return target
            partial = target.parent / f".{name}.partial"
            _clear(partial)  # of a killed process: nobody else builds while we hold the lock
            try:
                with _stage_bar(name, progress) as report:
                    build(partial, report)
                write_manifest(partial, source)
                if target.exists():
                    shutil.rmtree(target)
                partial.rename(target)
            finally:
                _clear(partial)
    return target


def _clear(partial: Path) -> None:
    """Remove the unfinished folder and the scratch folders beside it, whose names begin with its name."""
    for leftover in partial.parent.glob(f"{glob.escape(partial.name)}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def is_intact(folder: Path, source: Mapping[str, Any]) -> bool:
    """True if the manifest is there, of this source, and every file has its size. Digests are not recomputed."""
    try:
        manifest = files.read_json(folder / MANIFEST)
        if manifest["schema"] != SCHEMA or manifest["source"] != dict(source):
            return False
        return all((folder / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items())
    except (DataError, OSError, KeyError, TypeError, AttributeError):
        return False


def write_manifest(folder: Path, source: Mapping[str, Any]) -> None:
    """Write the manifest: size and SHA-256 of every file of `folder`, and the source."""
    entries = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    files.write_json(folder / MANIFEST, {"schema": SCHEMA, "source": dict(source), "files": entries})


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling of `out` that becomes `out` when the block ends well and vanishes when it does not.

    `out` must not exist or be an empty folder: nothing is ever overwritten (`DataError`).
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists already; give a folder that does not exist or is empty")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name.removeprefix('.')}.partial-"))
        try:
            temporary.chmod(0o755)  # mkdtemp makes the folder private; a model is meant to be read by others
            yield temporary
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full disk and missing rights into one clear `PrerequisiteError` naming the place."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise PrerequisiteError(_full(target)) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise PrerequisiteError(
                f"{target}: can't be written ({error.strerror}); give a folder you may write to "
                "(for the cache: set ROPEWALK_CACHE)"
            ) from None
        raise
    except SafetensorError as error:  # its writer puts the system's error number into the text
        if any(f"(os error {number})" in str(error) for number in FULL):
            raise PrerequisiteError(_full(target)) from None
        raise


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _full(target: Path) -> str:
    return f"{target}: no space left on the disk; free some, or set ROPEWALK_CACHE to a folder on another disk"


@contextmanager
def _stage_bar(name: str, show: bool) -> Iterator[Report]:
    """A Rich progress bar with one line a stage on standard error, or nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(f"{name}: {stage}", total=None)
            bar.update(tasks[stage], completed=done, total=total or None)

        yield report
