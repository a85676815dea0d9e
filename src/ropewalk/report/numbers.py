"""Numbers of the page: each is looked up in the embedded JSON and carries the place it came from.

    numbers = Numbers(document)
    numbers(("runs", 0, "result", "evaluations"), "count")  # <data value="6012" data-at="/runs/0/result/…">6,012</data>

So nobody can type a number into the page, and a test compares every one of them with the run's own files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

Path = Sequence[str | int]
NOTHING = "–"


def _signed(value: float, form: str) -> str:
    return f"{value:{form}}".replace("-", "−")


FORMS: Mapping[str, Callable[[float], str]] = {
    "count": lambda value: f"{value:,.0f}",
    "percent": lambda value: f"{100 * value:.0f}",
    "percent1": lambda value: f"{100 * value:.1f}",
    "points": lambda value: _signed(100 * value, "+.1f"),
    "nats": lambda value: _signed(value, "+.4f"),
    "nll": lambda value: f"{value:.4f}",
    "p": lambda value: f"{value:.2g}",
    "factor": lambda value: f"{value:.3f}",
    "short": lambda value: _signed(value, ".3g"),
}


class Numbers:
    """Prints numbers of one JSON document as HTML."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def value(self, path: Path) -> Any:
        """What stands at a place; KeyError or IndexError where nothing does."""
        found: Any = self.document
        for part in path:
            found = found[part]
        return found

    def __call__(self, path: Path, form: str) -> Markup:
        """The number at a place; a dash for null."""
        value = self.value(path)
        if value is None:
            return Markup(NOTHING)
        return Markup('<data value="{}" data-at="{}" data-form="{}">{}</data>').format(
            repr(value), pointer(path), form, FORMS[form](value)
        )

    def interval(self, path: Path, form: str) -> Markup:
        """A pair of numbers, [low, high]."""
        return Markup("{} to {}").format(self((*path, 0), form), self((*path, 1), form))


def pointer(path: Path) -> str:
    """A place as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
