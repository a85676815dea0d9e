"""Options of a task's or a search method's own: a frozen dataclass whose fields carry the sentence of the docs."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar, get_args, get_type_hints

from ropewalk.errors import DataError

Options = TypeVar("Options")


def option(default: Any, description: str) -> Any:
    """A field of a task's `OPTIONS` with the sentence that the documentation shows."""
    return field(default=default, metadata={"description": description})


def parse_options(kind: type[Options], owner: str, given: Mapping[str, Any]) -> Options:
    """An instance of the dataclass `kind` from `given`; texts become int, float or bool as the field's type says.

    owner: whose options they are, as errors say it ("task kv"). Raises `DataError` that lists the names there are, or
    says what was expected of a value.
    """
    names = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            known = f"expected one of: {', '.join(names)}" if names else "it has none"
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{owner} has no option {name!r}, {known}{hint}")
    return kind(**{name: _value(f"{owner}: option {name!r}", hints[name], value) for name, value in given.items()})


def _value(where: str, wanted: Any, value: Any) -> Any:
    if get_args(wanted) and all(isinstance(choice, str) for choice in get_args(wanted)):
        if value not in get_args(wanted):
            raise DataError(f"{where} is {value!r}, expected one of: {', '.join(get_args(wanted))}")
        return value
    kinds = get_args(wanted) or (wanted,)
    if not isinstance(value, str):
        return _number(where, kinds, value)
    if bool in kinds:
        if value.lower() not in ("true", "false"):
            raise DataError(f"{where} is {value!r}, expected true or false")
        return value.lower() == "true"
    for kind, what in ((int, "a whole number"), (float, "a number")):
        if kind in kinds:
            try:
                return kind(value)
            except ValueError:
                raise DataError(f"{where} is {value!r}, expected {what}") from None
    return value


def _number(where: str, kinds: Sequence[Any], value: Any) -> Any:
    """The value as it is, a whole number also where any number may stand; never one with a fraction cut off."""
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds:
        return float(value)
    if int in kinds and (isinstance(value, bool) or not isinstance(value, (int, *_other_kinds(kinds)))):
        raise DataError(f"{where} is {value!r}, expected a whole number")
    if float in kinds and (isinstance(value, bool) or not isinstance(value, (float, *_other_kinds(kinds)))):
        raise DataError(f"{where} is {value!r}, expected a number")
    return value


def _other_kinds(kinds: Sequence[Any]) -> tuple[type, ...]:
    """What may stand in place of a number: None, where the option may be left open."""
    return (type(None),) if type(None) in kinds else ()
