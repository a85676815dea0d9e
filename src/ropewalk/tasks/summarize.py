"""Summaries of a user's long texts: generated and scored by ROUGE-L, or the likelihood of the reference.

A record is one line of a jsonl(.gz) file with a text (or {"file": NAME} in its place) and one or more reference
summaries. The evidence is the whole text, so there is one position. ROUGE-L F1 with the Porter stemmer is the headline;
`ropewalk.rouge.rouge` gives ROUGE-1 and ROUGE-2 of the texts that a result holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

from ropewalk.errors import DataError
from ropewalk.named_files import documents_digest, read_documents
from ropewalk.options import option, parse_options
from ropewalk.records import text_field, texts_field
from ropewalk.rouge import has_words, rouge_l
from ropewalk.splits import Split, check_split, in_split
from ropewalk.tasks.base import (
    Example,
    Metric,
    Piece,
    TaskOptions,
    check_options,
    gold_positions,
)


@dataclass(frozen=True)
class Options:
    """The task's own options."""

    text: str = option("text", "Field of the long text.")
    summary: str = option("summary", "Field of the reference summary: a string, or a list of accepted ones.")
    id: str = option("id", "Field of the record's name; lines without it are named by their text.")
    instruction: str = option("Summarize the following text in a few sentences.", "What the prompt begins with.")
    max_new_tokens: int = option(256, "Tokens a generated summary may have.")


@dataclass(frozen=True)
class Document:
    """One text with its reference summaries."""

    id: str
    text: str
    summaries: tuple[str, ...]


class Summarize:
    """The task `summarize`. data: a jsonl(.gz) file of texts and summaries; there is one position."""

    name: ClassVar[str] = "summarize"
    OPTIONS: ClassVar[type] = Options

    def __init__(self, options: TaskOptions) -> None:
        check_options(options, self.name, "keys")
        self.own = parse_options(Options, f"task {self.name}", options.options)
        budget = self.own.max_new_tokens
        if not isinstance(budget, int) or budget < 1:
            raise DataError(f"summarize: option 'max_new_tokens' is {budget}, expected a whole number of at least 1")
        if options.data is None:
            raise DataError("task summarize needs --data: a jsonl file of texts and summaries")
        self.data, self.limit = options.data, options.limit
        self.positions = gold_positions(options.positions, 1)
        self.metric = Metric("rouge_l", generated=True, score=rouge_l, max_new_tokens=budget, graded=True)

    def settings(self) -> dict[str, object]:
        """What determines the examples; a file counts by the digest of its content, not by its name."""
        return {
            "task": self.name,
            "positions": list(self.positions),
            "limit": self.limit,
            "data": {"sha256": documents_digest(self.data)},
            "options": dataclasses.asdict(self.own),
        }

    def examples(self, split: Split) -> list[Example]:
        """The texts of the split."""
        check_split(split)
        documents = [document for document in self._documents() if in_split(document.text, split)]
        if not documents:
            raise DataError(f"{self.data}: no record in the split {split!r}; --split all takes every record")
        return [self._example(document) for document in documents[: self.limit]]

    def short(self) -> None:
        """There is no such: a text can't be cut without losing what its summary says."""
        return

    def _example(self, document: Document) -> Example:
        pieces = (
            Piece(f"{self.own.instruction}\n\n", "instruction"),
            Piece(document.text, "gold"),
            Piece("\n\nSummary:", "query"),
        )
        return Example(f"{document.id}@0", document.id, 0, pieces, document.summaries)

    def _documents(self) -> list[Document]:
        documents: list[Document] = []
        first: dict[str, str] = {}
        for line, where in read_documents(self.data):
            document = self._parse(line, where)
            if document.id in first:
                raise DataError(f"{where}: the same record as {first[document.id]} (id {document.id!r})")
            first[document.id] = where.rpartition(", ")[2]
            documents.append(document)
        return documents

    def _parse(self, line: dict[str, Any], where: str) -> Document:
        text = text_field(line, self.own.text, where)
        name = line.get(self.own.id)
        if name is None:
            name = hashlib.sha256(text.encode()).hexdigest()[:16]
        elif not isinstance(name, str | int) or not str(name).strip():
            raise DataError(f'{where}: field "{self.own.id}" is {name!r}, expected a name')
        several = isinstance(line.get(self.own.summary), list)
        given = texts_field(line, self.own.summary, where) if several else (text_field(line, self.own.summary, where),)
        if not all(has_words(summary) for summary in given):
            raise DataError(
                f'{where}: field "{self.own.summary}" has no word that ROUGE counts (the letters a to z and digits): '
                "its score would always be 0"
            )
        return Document(f"summarize-{name}", text.strip(), tuple(summary.strip() for summary in given))


TASK = Summarize
