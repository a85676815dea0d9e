"""A text that is there wherever Python is, for checks that need one: chapters of the Python language reference.

English prose about a technical matter, with short examples. `--data builtin` names it wherever a text is asked for.
"""

from __future__ import annotations

from ropewalk.errors import PrerequisiteError

BUILTIN = "builtin"
CHAPTERS = ("specialnames", "compound", "types")


def builtin_text() -> str:
    """The chapters one after another. Raises `PrerequisiteError` where Python was installed without its help texts."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise PrerequisiteError(
            "this Python was installed without its help texts (pydoc_data), which are the built-in text; give a text "
            "file of your own"
        ) from None
    return "\n\n".join(topics[name] for name in CHAPTERS if name in topics)
