"""Search methods, one file each. To add one, add a module with a class named `METHOD`: it is found by its name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Any

from ropewalk.errors import RopewalkError
from ropewalk.search.base import SearchMethod
from ropewalk.search.space import SearchSpace

_NOT_METHODS = {"base", "space"}


def method_names() -> list[str]:
    """Names of all search methods, in alphabetical order."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in modules if name not in _NOT_METHODS)


def method_class(name: str) -> type[SearchMethod]:
    """The class of the search method of that name, or a `RopewalkError` that lists the names there are."""
    if name not in method_names():
        near = difflib.get_close_matches(name, method_names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RopewalkError(f"no search method {name!r}, expected one of: {', '.join(method_names())}{hint}")
    found: type[SearchMethod] = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").METHOD
    return found


def make_method(name: str, space: SearchSpace, seed: int, **options: Any) -> SearchMethod:
    """A search method by its name."""
    return method_class(name)(space, seed, **options)
