"""A user's own prompts: lines of a jsonl file, the records they form, and the text that a template makes of them.

A file is of one of three layouts. "moved": lines have `pieces` and the `position` of the gold one, which is moved.
"listed": lines have a `prompt` and a `position`, and the lines of one `id` are a record. "single": no position at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ropewalk.errors import DataError
from ropewalk.named_files import read_documents
from ropewalk.records import text_field, texts_field
from ropewalk.tasks.base import Kind, Piece

Layout = Literal["moved", "listed", "single"]

PIECES = "{pieces}"
NUMBER = "{number}"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Line:
    """One line. name: its `id`, or a digest of its content. fields: its string fields, for a template."""

    where: str
    name: str
    fields: Mapping[str, str]
    pieces: tuple[str, ...]
    answers: tuple[str, ...]
    position: int | None
    group: str

    @property
    def layout(self) -> Layout:
        """What a file of such lines is."""
        if self.position is None:
            return "single"
        return "moved" if self.pieces else "listed"


@dataclass(frozen=True)
class PromptRecord:
    """A record. lines: by position where the layout is "listed", else its one line under 0."""

    name: str
    group: str
    lines: Mapping[int, Line]

    @property
    def line(self) -> Line:
        """The first of the record's lines."""
        return next(iter(self.lines.values()))


def read_prompts(source: str | Path) -> tuple[Layout, list[PromptRecord]]:
    """The layout of a file and its records in their order.

    Raises `DataError` that names line and field: of malformed lines, of lines of another layout than the first one's,
    of records given twice, and of listed records that lack a position which others have.
    """
    lines = [_parse(document, where) for document, where in read_documents(source)]
    if not lines:
        raise DataError(f"{source}: no record in the file")
    layout = lines[0].layout
    for line in lines:
        if line.layout != layout:
            raise DataError(
                f"{line.where}: {_described(line.layout)}, while {_short(lines[0])} has {_described(layout)}; "
                "give the lines of one file the same fields"
            )
    records: dict[str, dict[int, Line]] = {}
    for line in lines:
        place = line.position if layout == "listed" and line.position is not None else 0
        known = records.setdefault(line.name, {})
        if place in known:
            at = f" and position {place}" if layout == "listed" else ""
            raise DataError(f"{line.where}: the same id {line.name!r}{at} as in {_short(known[place])}")
        known[place] = line
    if layout == "listed":
        _check_listed(records)
    return layout, [
        PromptRecord(name, next(iter(found.values())).group, dict(sorted(found.items())))
        for name, found in records.items()
    ]


def rendered_pieces(template: str, separator: str, line: Line, place: int | None) -> tuple[Piece, ...]:
    """The prompt of a line; its gold piece goes to `place`, None where there is none or it stays.

    template: text with fields in braces, and `{pieces}` once where the line has pieces. separator: between pieces.
    """
    if not line.pieces:
        return (Piece(_filled(template, line), "query"),)
    if template.count(PIECES) != 1:
        raise DataError(f"{line.where}: the template has {PIECES} {template.count(PIECES)} times, expected once")
    before, after = template.split(PIECES)
    order = list(line.pieces)
    if place is not None and line.position is not None:
        order.insert(place, order.pop(line.position))
    body: list[Piece] = []
    for index, text in enumerate(order):
        kind: Kind = "text" if place is None else "gold" if index == place else "distractor"
        end = separator if index < len(order) - 1 else ""
        body.append(Piece(text.replace(NUMBER, str(index + 1)) + end, kind))
    around = (Piece(_filled(before, line), "instruction"), *body, Piece(_filled(after, line), "query"))
    return tuple(piece for piece in around if piece.text)


def _filled(template: str, line: Line) -> str:
    def field(match: re.Match[str]) -> str:
        if match[1] not in line.fields:
            known = ", ".join(sorted(line.fields)) or "none"
            raise DataError(
                f'{line.where}: the template asks for {match[0]}, and the line has no string field "{match[1]}" '
                f"(it has: {known})"
            )
        return line.fields[match[1]]

    return _PLACEHOLDER.sub(field, template)


def _parse(document: dict[str, Any], where: str) -> Line:
    if ("pieces" in document) == ("prompt" in document):
        raise DataError(f'{where}: expected one of the fields "pieces" and "prompt"')
    pieces = texts_field(document, "pieces", where) if "pieces" in document else ()
    if not pieces:
        text_field(document, "prompt", where)
    position = document.get("position")
    if position is not None:
        last = f" to {len(pieces) - 1}" if pieces else ""
        whole = isinstance(position, int) and not isinstance(position, bool)
        if not whole or position < 0 or (pieces and position >= len(pieces)):
            raise DataError(f'{where}: field "position" is {position!r}, expected a whole number from 0{last}')
    name = document.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip()):
        raise DataError(f'{where}: field "id" is {name!r}, expected a name')
    if name is None and position is not None and not pieces:
        raise DataError(f'{where}: field "id" is missing: lines with "prompt" and "position" form records by it')
    content = json.dumps(document, sort_keys=True).encode()
    return Line(
        where=where,
        name=hashlib.sha256(content).hexdigest()[:16] if name is None else str(name),
        fields={field: text for field, text in document.items() if isinstance(text, str)},
        pieces=pieces,
        answers=_answers(document, where),
        position=position,
        group=text_field(document, "group", where) if document.get("group") is not None else "",
    )


def _answers(document: dict[str, Any], where: str) -> tuple[str, ...]:
    if ("answer" in document) == ("answers" in document):
        raise DataError(f'{where}: expected one of the fields "answer" and "answers"')
    if "answer" in document:
        return (text_field(document, "answer", where),)
    return texts_field(document, "answers", where)


def _check_listed(records: Mapping[str, Mapping[int, Line]]) -> None:
    """Every record has every position of the file, and one group."""
    positions = sorted({place for found in records.values() for place in found})
    for name, found in records.items():
        missing = [place for place in positions if place not in found]
        numbers = ", ".join(_short(line) for line in found.values())
        first = next(iter(found.values()))
        if missing:
            owner = next(other[missing[0]] for other in records.values() if missing[0] in other)
            raise DataError(
                f"{first.where}: record {name!r} ({numbers}) has no position {missing[0]}, which {_short(owner)} has; "
                f"expected every record at every position {positions}"
            )
        if len({line.group for line in found.values()}) > 1:
            raise DataError(f'{first.where}: record {name!r} ({numbers}) has several values in the field "group"')


def _short(line: Line) -> str:
    return line.where.rpartition(", ")[2]


def _described(layout: Layout) -> str:
    words = {"moved": '"pieces" and "position"', "listed": '"prompt" and "position"', "single": 'no "position"'}
    return words[layout]
