"""Search methods, one file each. To add one, add a module with a class named `METHOD`: it is found by its name."""

from __future__ import annotations

from typing import Any

from ropewalk.registry import Registry
from ropewalk.search.base import SearchMethod
from ropewalk.search.space import SearchSpace

METHODS = Registry(__name__, "search method", "METHOD", frozenset({"base", "space"}))


def method_names() -> list[str]:
    """Names of all search methods, in alphabetical order."""
    return METHODS.names()


def method_class(name: str) -> type[SearchMethod]:
    """The class of the search method of that name, or a `RopewalkError` that lists the names there are."""
    found: type[SearchMethod] = METHODS.find(name)
    return found


def make_method(name: str, space: SearchSpace, seed: int, **options: Any) -> SearchMethod:
    """A search method by its name."""
    return method_class(name)(space, seed, **options)
