"""`--factors` as every verb reads it: a file, a run's folder, or a name of the zoo."""

from __future__ import annotations

from pathlib import Path

from ropewalk.cli import console
from ropewalk.factors import ScalingFactors
from ropewalk.zoo import load_factors

_SAID: set[str] = set()


def given_factors(given: Path) -> ScalingFactors:
    """The factors, and once a line on standard error if they are unverified ones. Raises `RopewalkError`."""
    return load_factors(given, say=_once)


def _once(remark: str) -> None:
    if remark not in _SAID:
        _SAID.add(remark)
        console.line(remark)
