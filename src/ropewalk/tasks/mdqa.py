"""Multi-document question answering of "Lost in the Middle" (arXiv 2307.03172, section 2), from a file of questions.

Prompts and metric are the official ones, to the character: the gold document is moved to each position, the others
keep their order, and documents are numbered after that. The one difference: an alias of which the metric's
normalisation leaves nothing ("*") does not count, while officially it makes every answer right; `settings` names it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ropewalk.errors import DataError
from ropewalk.metrics import best_subspan_em
from ropewalk.options import option, parse_options
from ropewalk.questions import Passage, Question, read_questions
from ropewalk.records import digest
from ropewalk.splits import Split, check_split, in_split
from ropewalk.tasks.base import (
    Example,
    Metric,
    Piece,
    TaskOptions,
    check_options,
    gold_positions,
)

Variant = Literal["plain", "oracle", "closedbook", "random", "query-aware"]

INSTRUCTION = (
    "Write a high-quality answer for the given question using only the provided search results "
    "(some of which might be irrelevant)."
)
RANDOM_ORDER = " The search results are ordered randomly."
QUERY = "Question: {question}\nAnswer:"
EARLY_QUERY = "Question: {question}\n\n"  # of the query-aware variant
DOCUMENT = "Document [{number}](Title: {title}) {text}"

# Officially 100 tokens are generated and cut at the first newline: stopping there gives the same score.
METRIC = Metric("best_subspan_em", generated=True, score=best_subspan_em, max_new_tokens=100, stop=("\n",))


@dataclass(frozen=True)
class Options:
    """Options of mdqa."""

    documents: int | None = option(
        None, "Documents in a prompt, the gold one and the first others; default: as many as the file's records have."
    )
    variant: Variant = option(
        "plain",
        "plain; oracle: the gold document alone; closedbook: none; random: the others shuffled, and the prompt says "
        "so; query-aware: the question stands before the documents too.",
    )


class MultiDocumentQA:
    """The task `mdqa`. Options: data (needed), documents, variant, positions, limit, seed (of the random order).

    The variants oracle and closedbook have the single position 0.
    """

    name: ClassVar[str] = "mdqa"
    OPTIONS: ClassVar[type] = Options
    metric = METRIC

    def __init__(self, options: TaskOptions) -> None:
        own = parse_options(Options, f"task {self.name}", options.options)
        if options.data is None:
            raise DataError(
                "task mdqa needs a file of questions (--data FILE): `ropewalk data official` fetches official ones, "
                "`ropewalk data mdqa` builds one from questions and passages"
            )
        if options.keys is not None:
            raise DataError(f"{options.keys} keys: task mdqa has none; its option documents says how many documents")
        check_options(options, self.name)
        self.data = options.data
        self.variant = own.variant
        self.limit = options.limit
        self.seed = options.seed
        self.questions = read_questions(options.data)
        self.documents = _count(own, self.questions)
        self.positions = gold_positions(options.positions, max(1, self.documents))
        self._digest = digest(options.data)
        self._given = options

    def settings(self) -> dict[str, object]:
        """What determines the examples, and the aliases that don't count (question id -> aliases)."""
        return {
            "task": self.name,
            "variant": self.variant,
            "documents": self.documents,
            "positions": list(self.positions),
            "limit": self.limit,
            "seed": self.seed if self.variant == "random" else None,
            "data": {"sha256": self._digest},
            "blank_aliases": {question.id: list(question.blank) for question in self.questions if question.blank},
        }

    def examples(self, split: Split) -> list[Example]:
        """Questions of the split in the file's order, each with its gold document at every position."""
        check_split(split)
        questions = [question for question in self.questions if in_split(question.text, split)]
        if not questions:
            raise DataError(f"{self.data}: no record in the split {split!r}; --split all takes every record")
        return [self._example(question, place) for question in questions[: self.limit] for place in self.positions]

    def short(self) -> MultiDocumentQA | None:
        """The oracle variant of the same questions: the gold document alone."""
        if self.documents < 2:
            return None
        return MultiDocumentQA(dataclasses.replace(self._given, positions=None, options={"variant": "oracle"}))

    def _example(self, question: Question, place: int) -> Example:
        record = f"{self.name}-{question.id}"
        return Example(
            id=f"{record}@{place}",
            record=record,
            gold_index=place,
            pieces=tuple(self._pieces(question, place)),
            answers=question.answers,
        )

    def _pieces(self, question: Question, place: int) -> list[Piece]:
        query = Piece(QUERY.format(question=question.text), "query")
        if self.variant == "closedbook":
            return [query]
        instruction = INSTRUCTION + (RANDOM_ORDER if self.variant == "random" else "")
        pieces = [Piece(instruction + "\n\n", "instruction")]
        if self.variant == "query-aware":
            pieces.append(Piece(EARLY_QUERY.format(question=question.text), "query"))
        passages = list(question.distractors[: self.documents - 1])
        if self.variant == "random":
            passages = shuffled(passages, f"{self.seed}/{question.id}")
        passages.insert(place, question.gold)
        return [*pieces, *_numbered(passages, place), query]


TASK = MultiDocumentQA


def shuffled(passages: Sequence[Passage], name: str) -> list[Passage]:
    """The passages in an order drawn by SHA-256 from `name`, the same on every machine and at every gold position."""

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"ropewalk/mdqa/{name}/{index}".encode()).digest()

    return [passages[index] for index in sorted(range(len(passages)), key=rank)]


def _numbered(passages: Sequence[Passage], place: int) -> list[Piece]:
    """Documents as the prompt shows them, counted from 1 in the order given; the one at `place` is the gold one."""
    pieces = []
    for index, passage in enumerate(passages):
        text = DOCUMENT.format(number=index + 1, title=passage.title, text=passage.text)
        end = "\n\n" if index == len(passages) - 1 else "\n"
        pieces.append(Piece(text + end, "gold" if index == place else "distractor"))
    return pieces


def _count(own: Options, questions: Sequence[Question]) -> int:
    """Documents of a prompt. Raises `DataError` where a record has fewer, or where it is not clear how many."""
    if own.variant in ("oracle", "closedbook"):
        if own.documents is not None:
            raise DataError(f"option 'documents' is {own.documents}: the variant {own.variant} has its own number")
        return int(own.variant == "oracle")
    fewest = min(questions, key=lambda question: len(question.distractors))
    there = 1 + len(fewest.distractors)
    if there < 2:
        raise DataError(f"{fewest.where}: the record has its gold document alone: use the variant oracle or closedbook")
    if own.documents is None:
        if any(len(question.distractors) >= there for question in questions):
            raise DataError(
                f"{fewest.where}: the record has {there} documents and others have more; "
                f"with option documents={there} each gives as many"
            )
        return there
    if own.documents < 2:
        raise DataError(
            f"option 'documents' is {own.documents}, expected at least 2 (variant oracle: the gold one alone)"
        )
    if own.documents > there:
        raise DataError(
            f"{fewest.where}: the record has {there} documents, option 'documents' asks for {own.documents}"
        )
    return own.documents
