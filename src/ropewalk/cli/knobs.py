"""The options of all search methods as flags of the command line: whoever adds a method adds its flags with it."""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from cyclopts import Parameter

from ropewalk.cli.options import whole
from ropewalk.options import parse_options
from ropewalk.search import method_class, method_names

GROUP = "Options of search methods"
PREFERRED = "default"  # the method whose words describe an option that several have
Entries = list[tuple[str, Any]]  # method and field


def given_knobs(method: str, knobs: Any) -> dict[str, Any]:
    """The options that were given; `DataError` for those the method does not have, and for values it can't take."""
    given = {entry.name: getattr(knobs, entry.name) for entry in fields(knobs)} if knobs else {}
    given = {name: value for name, value in given.items() if value is not None}
    parse_options(method_class(method).OPTIONS, f"method {method}", given)
    return given


def _union() -> dict[str, Entries]:
    """All options of all methods, by name."""
    found: dict[str, Entries] = {}
    for method in sorted(method_names(), key=lambda name: (name != PREFERRED, name)):
        for entry in fields(method_class(method).OPTIONS):
            found.setdefault(entry.name, []).append((method, entry))
    return found


def _flag(name: str, entries: Entries) -> tuple[str, Any, Any]:
    """An option as a field of `Knobs`: None where it is left to the method."""
    kinds = {get_type_hints(method_class(method).OPTIONS)[name] for method, _ in entries}
    plain = {kind for hint in kinds for kind in (get_args(hint) or (hint,))} - {NoneType}
    kind: Any = plain.pop() if len(plain) == 1 else str
    kind = kind if kind in (int, float) else str  # a method reads texts itself
    parameter = Parameter(
        help=_words(entries), group=GROUP, show_default=False, converter=whole if kind is int else None
    )
    return name, Annotated[kind | None, parameter], field(default=None)


def _words(entries: Entries) -> str:
    """The description, and each method's default."""
    by_value: dict[str, list[str]] = {}
    for method, entry in entries:
        by_value.setdefault("its own choice" if entry.default is None else str(entry.default), []).append(method)
    defaults = "; ".join(f"{', '.join(methods)}: {value}" for value, methods in by_value.items())
    return f"{entries[0][1].metadata['description']} [{defaults}]"


if TYPE_CHECKING:
    Knobs = Any
else:
    _fields = [_flag(*item) for item in _union().items()]
    Knobs = Parameter(name="*")(
        make_dataclass("Knobs", _fields, frozen=True, namespace={"__module__": __name__})  # else it counts as built in
    )
