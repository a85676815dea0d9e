"""What leaves a run for use elsewhere, one file a target. Reads and writes, never evaluates.

To add a target, add a module with an instance named `TARGET` (see `ropewalk.export.base`): it is found by its name.
`parts` holds what targets have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ropewalk.registry import Registry

if TYPE_CHECKING:
    from ropewalk.export.base import Target

TARGETS = Registry(__name__, "export target", "TARGET", frozenset({"base", "parts"}))


def target_names() -> list[str]:
    """Names of all export targets, in alphabetical order."""
    return TARGETS.names()


def export_target(name: str) -> Target:
    """The export target of that name, or a `RopewalkError` that lists the names there are."""
    found: Target = TARGETS.find(name)
    return found
