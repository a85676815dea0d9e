"""What a reader of a page gets: its numbers with their places, its text, the JSON in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class Shown:
    """A number as the page shows it."""

    at: str
    form: str
    value: str
    text: str = ""


@dataclass
class Read(HTMLParser):
    """A parsed page. tags: names of all elements; blocks: the JSON of script elements by id."""

    numbers: list[Shown] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    blocks: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._number: Shown | None = None
        self._script: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "data":
            self._number = Shown(given["data-at"] or "", given["data-form"] or "", given["value"] or "")
        if tag in ("script", "style"):
            self._script = given.get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag == "data" and self._number:
            self.numbers.append(self._number)
            self._number = None
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._number:
            self._number.text += data
        if self._script is None:
            self.text.append(data)
        elif self._script not in ("script", "style"):
            self.blocks[self._script] = json.loads(data)

    @property
    def words(self) -> str:
        """All text of the page, in a line."""
        return " ".join("".join(self.text).split())


def read_page(html: str) -> Read:
    page = Read()
    page.feed(html)
    return page


def at(document: Any, pointer: str) -> Any:
    """What stands at a JSON pointer."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document
