"""Scores of several workers may only be put together if all of them have the same model and the same programs."""

from __future__ import annotations

from importlib.metadata import version

from ropewalk.elsewhere import Facts
from ropewalk.errors import RopewalkError
from ropewalk.provenance import PACKAGES


def check_agreement(found: Facts, first: Facts | None, who: str) -> None:
    """Raise `RopewalkError` if a worker's packages are not ours, or its model is not the first worker's.

    Builds of one version of a package, such as torch's for a CPU and for CUDA, are held for the same.
    """
    theirs = found.provenance["versions"]
    for name in PACKAGES:
        if _release(theirs[name]) != _release(version(name)):
            raise RopewalkError(
                f"{who} has {name} {theirs[name]}, this command has {version(name)}: install the same version on all "
                "nodes"
            )
    if first is None:
        return
    for name, own, other in (
        ("dtype", found.provenance["dtype"], first.provenance["dtype"]),
        ("kind of device", found.provenance["device_type"], first.provenance["device_type"]),
        ("model", found.identity, first.identity),
        ("base rope scheme", found.base, first.base),
        ("model digest", found.digest, first.digest),
    ):
        if own != other:
            raise RopewalkError(
                f"{who} has another {name} than the first one: {own} and {other}; give all nodes the same checkpoint, "
                "and say --dtype"
            )


def _release(text: str) -> str:
    return text.split("+")[0]
