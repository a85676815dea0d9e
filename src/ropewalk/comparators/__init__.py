"""Methods to compare layer factors with, one file each.

To add one, add a module with a class named `COMPARATOR` (see `ropewalk.comparators.base`): it is found by its name.
`parts` holds what methods have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ropewalk.errors import DataError
from ropewalk.registry import Registry

if TYPE_CHECKING:
    from ropewalk.comparators.base import Comparator

COMPARATORS = Registry(__name__, "comparator", "COMPARATOR", frozenset({"base", "parts"}))


def comparator_names() -> list[str]:
    """Names of all comparators, in alphabetical order."""
    return COMPARATORS.names()


def comparator_class(name: str) -> type[Comparator]:
    """The class of the comparator of that name, or a `RopewalkError` that lists the names there are."""
    found: type[Comparator] = COMPARATORS.find(name)
    return found


def make_comparator(text: str) -> Comparator:
    """A comparator from its text: NAME, NAME:VALUE for its main option, or NAME:OPTION=VALUE, joined by colons.

    For instance "ms-poe", "uniform:1.1", "yarn:4:ramp=rotations". Raises `RopewalkError` for an unknown name, option or
    value.
    """
    name, *settings = text.split(":")
    kind = comparator_class(name)
    options: dict[str, str] = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        if not equals:
            if kind.MAIN is None:
                raise DataError(
                    f"comparator {text!r}: {name} takes no bare value; expected {name} or {name}:OPTION=VALUE"
                )
            option, value = kind.MAIN, setting
        option = option.replace("-", "_")
        if option in options:
            raise DataError(f"comparator {text!r}: option {option!r} is given twice; give it once")
        options[option] = value
    return kind(**options)
