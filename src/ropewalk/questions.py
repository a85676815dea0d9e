"""Questions with the passage that answers them: the official multi-document format, and a flat one for users' files.

A line of a jsonl(.gz) file has "question", "answers" (a list: each is accepted) and either the official "ctxs" (a list
of documents with "title", "text" and "isgold", true for exactly one), or "title" and "text" of that one passage.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.errors import DataError
from ropewalk.metrics import blank_answers
from ropewalk.records import read_jsonl, text_field, texts_field


@dataclass(frozen=True)
class Passage:
    """A document as prompts show it; the title may be empty."""

    title: str
    text: str


@dataclass(frozen=True)
class Question:
    """One line of a file. distractors: the other documents, in the file's order.

    answers: those that can be wrong. blank: the aliases of which the metric's normalisation leaves nothing ("*"), left
    out of `answers` because with one of them every prediction would count as right.
    """

    text: str
    answers: tuple[str, ...]
    blank: tuple[str, ...]
    gold: Passage
    distractors: tuple[Passage, ...]
    where: str

    @property
    def id(self) -> str:
        """Stable in every file: a digest of the question's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def read_questions(source: str | Path) -> list[Question]:
    """All questions of a file, in its order. Raises `DataError` with line and field; a question twice is an error."""
    first: dict[str, str] = {}
    questions = []
    for document, where in read_jsonl(source):
        question = _question(document, where)
        if question.text in first:
            raise DataError(f'{where}: field "question" is the same as in {first[question.text]}')
        first[question.text] = where.rpartition(", ")[2]
        questions.append(question)
    if not questions:
        raise DataError(f"{source}: no question in it, expected a JSON object a line")
    return questions


def read_passage(document: dict[str, Any], where: str) -> Passage:
    """The passage in the fields "title" (may be empty or missing) and "text"."""
    title = document.get("title", "")
    if not isinstance(title, str):
        raise DataError(f'{where}: field "title" is {title!r}, expected a string')
    return Passage(title, text_field(document, "text", where))


def _question(document: dict[str, Any], where: str) -> Question:
    text, answers = text_field(document, "question", where), texts_field(document, "answers", where)
    blank = tuple(blank_answers(answers))
    kept = tuple(answer for answer in answers if answer not in blank)
    if not kept:
        raise DataError(
            f'{where}: field "answers" is {list(answers)}: without punctuation and articles nothing is left, '
            "so every prediction would be right; expected an answer with a word"
        )
    if "ctxs" not in document:
        return Question(text, kept, blank, read_passage(document, where), (), where)
    passages, golds = _documents(document["ctxs"], where)
    if len(golds) != 1:
        raise DataError(f'{where}: field "ctxs": {len(golds)} documents have "isgold" true, expected exactly one')
    others = tuple(passage for index, passage in enumerate(passages) if index != golds[0])
    return Question(text, kept, blank, passages[golds[0]], others, where)


def _documents(contexts: Any, where: str) -> tuple[list[Passage], list[int]]:
    """All documents of "ctxs", and the indices of those with "isgold" true."""
    if not isinstance(contexts, list):
        raise DataError(f'{where}: field "ctxs" is {contexts!r:.80}, expected a list of documents')
    passages, golds = [], []
    for index, context in enumerate(contexts):
        place = f"{where}, ctxs[{index}]"
        if not isinstance(context, dict):
            raise DataError(f"{place}: expected a JSON object, got {type(context).__name__}")
        gold = context.get("isgold", False)
        if not isinstance(gold, bool):
            raise DataError(f'{place}: field "isgold" is {gold!r}, expected true or false')
        passages.append(read_passage(context, place))
        golds += [index] * gold
    return passages, golds
