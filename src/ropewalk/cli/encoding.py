"""What to print where a terminal, a pipe or a locale has not all characters: the nearest plain ones, never an error."""

from __future__ import annotations

import codecs
import io
import sys

NAME = "ropewalk.plain"
PLAIN = {
    "–": "-",
    "—": "-",
    "−": "-",
    "─": "-",
    "·": ".",
    "×": "x",
    "…": "...",
    "“": '"',
    "”": '"',
    "’": "'",
    "⟪": "<<",
    "⟫": ">>",
    "⟦": "[[",
    "⟧": "]]",
    **dict(zip("▁▂▃▄▅▆▇█", "_.,-=+*#", strict=True)),  # a sparkline's heights
}


def plainly(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: the plain characters in place of those that can't be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def never_fail() -> None:
    """From here on, nothing that is printed can fail for its characters."""
    codecs.register_error(NAME, plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=NAME)
