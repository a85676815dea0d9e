"""What leaves a run for use elsewhere, one file a target. Reads and writes, never evaluates.

To add a target, add a module with an instance named `TARGET` (see `ropewalk.export.base`): it is found by its name.
`parts` holds what targets have in common.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING

from ropewalk.errors import RopewalkError

if TYPE_CHECKING:
    from ropewalk.export.base import Target

_NOT_TARGETS = {"base", "parts"}


def target_names() -> list[str]:
    """Names of all export targets, in alphabetical order."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in modules if name not in _NOT_TARGETS)


def export_target(name: str) -> Target:
    """The export target of that name, or a `RopewalkError` that lists the names there are."""
    if name not in target_names():
        near = difflib.get_close_matches(name, target_names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RopewalkError(f"no export target {name!r}, expected one of: {', '.join(target_names())}{hint}")
    found: Target = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").TARGET
    return found
