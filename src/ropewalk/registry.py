"""Folders in which each file is one task, method, target or comparator, found by the name of its file."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any

from ropewalk.errors import RopewalkError


@dataclass(frozen=True)
class Registry:
    """What a package holds.

    package: its name. kind: what one of them is called. attribute: what each module defines. helpers: modules that are
    none of them. hyphens: whether names have hyphens where files have underscores.
    """

    package: str
    kind: str
    attribute: str
    helpers: frozenset[str]
    hyphens: bool = True

    def names(self) -> list[str]:
        """All of them, in alphabetical order."""
        path = importlib.import_module(self.package).__path__
        modules = [module.name for module in pkgutil.iter_modules(path) if module.name not in self.helpers]
        return sorted(name.replace("_", "-") if self.hyphens else name for name in modules)

    def find(self, name: str) -> Any:
        """What the module of that name defines, or a `RopewalkError` that lists the names there are."""
        names = self.names()
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RopewalkError(f"no {self.kind} {name!r}, expected one of: {', '.join(names)}{hint}")
        module = name.replace("-", "_") if self.hyphens else name
        return getattr(importlib.import_module(f"{self.package}.{module}"), self.attribute)
