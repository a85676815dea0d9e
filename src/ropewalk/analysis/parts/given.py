"""Options that are lists, as the command line gives them."""

from __future__ import annotations

from ropewalk.errors import DataError


def numbers(owner: str, name: str, text: str, *, low: float) -> tuple[float, ...]:
    """Numbers above `low`, separated by commas, each once. Raises `DataError` that names the option."""
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        found = ()
    if not found or not all(low < value < float("inf") for value in found):
        raise DataError(
            f"analysis {owner}: option {name!r} is {text!r}, expected numbers above {low:g} separated by commas"
        )
    return found
