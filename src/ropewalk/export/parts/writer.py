"""Writes an export: whole or not at all, and never over anything else.

Weights share the disk with those of the source where the file system can do that (a reflink, else a hard link). All
small files are copies, so that editing one leaves the source alone.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from ropewalk import files
from ropewalk.cache import disk_errors
from ropewalk.errors import DataError
from ropewalk.export.base import ExportPlan
from ropewalk.export.parts.leftovers import clear_leftovers, writing_folder
from ropewalk.export.parts.manifest import FACTORS, MANIFEST, SCHEMA, read_manifest

FICLONE = 0x40049409  # Linux: let two files share their blocks until one is changed
PACKAGES = ("ropewalk", "torch", "transformers")


def write_export(plan: ExportPlan, *, dry_run: bool = False) -> bool:
    """Write the files of a plan; returns whether there was anything to write.

    The folder appears complete or not at all; one that holds the same export is left as it is. dry_run: check
    everything, write nothing. Raises `DataError` if `out` holds anything else, `PrerequisiteError` if the disk is full
    or can't be written.
    """
    check_place(plan)
    if not dry_run:
        clear_leftovers(plan.out)
    if plan.out.exists() and any(plan.out.iterdir()):
        if not _is_same(plan):
            raise DataError(f"{plan.out}: holds another export, or a part of one; give another folder")
        return False
    plan.check_space()
    if dry_run:
        return True
    with _not_overtaken(plan.out), writing_folder(plan.out) as folder:
        for name, path in plan.small.items():
            _copy(path, folder / name)
        for name, path in plan.weights.items():
            _share(path, folder / name)
        for name, content in plan.made.items():
            files.write_bytes(folder / name, content)
        if plan.draw is not None:
            plan.draw(folder)
        if plan.facts:
            files.write_text(folder / MANIFEST, _manifest(plan, folder))
    return True


@contextmanager
def _not_overtaken(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise DataError(f"{out}: another process wrote there meanwhile; the same command again looks at what") from None


def check_place(plan: ExportPlan) -> None:
    """Raise `DataError` if there is something else at the place where the export is to be."""
    sources = {path.parent.resolve() for path in (*plan.weights.values(), *plan.small.values())}
    if plan.out.exists() and plan.out.resolve() in sources:
        raise DataError(f"{plan.out}: is the model itself; give another folder")
    check_free(plan.out)


def check_free(out: Path) -> None:
    """Raise `DataError` if what is at that place is no export: so much can be said before a model is loaded."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: exists already and is a file; give a folder that does not exist")
    if out.exists() and any(out.iterdir()) and not any((out / name).is_file() for name in (MANIFEST, FACTORS)):
        raise DataError(f"{out}: exists already and is no export of ropewalk; give a folder that does not exist")


def _is_same(plan: ExportPlan) -> bool:
    """Whether the export that is there has every file, the weights in their size and what ropewalk made unchanged."""
    manifest = read_manifest(plan.out) or {}
    if manifest.get("target") != (plan.target if plan.facts else None):
        return False
    if not plan.facts and sorted(path.name for path in plan.out.iterdir()) != plan.names:
        return False
    if not all((plan.out / name).is_file() for name in plan.names):
        return False
    strict = {name: content for name, content in plan.made.items() if name not in plan.loose}
    sizes = {name: path.stat().st_size for name, path in plan.weights.items()}
    return all((plan.out / name).read_bytes() == content for name, content in strict.items()) and all(
        (plan.out / name).stat().st_size == size for name, size in sizes.items()
    )


def _manifest(plan: ExportPlan, folder: Path) -> str:
    document = {
        "schema": SCHEMA,
        "target": plan.target,
        **plan.facts,
        "versions": {name: version(name) for name in PACKAGES},
        "added": sorted({*plan.made, *plan.drawn}),
        "files": {name: (folder / name).stat().st_size for name in plan.names},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


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
