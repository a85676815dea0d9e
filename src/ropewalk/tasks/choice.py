"""Multiple choice by likelihood, without anything to download: how well a text goes on, or a user's own questions.

Of a text: which of several continuations follows this passage? The wrong ones stand elsewhere in the same part of the
text, so that only the passage tells them apart. Of a jsonl(.gz) file: a line's `prompt`, its `choices` and the
`answer`, which is the right one's text or its 0-based number. The model's choice is the one with the largest mean
log-likelihood a token. There is one position: this is a check of what factors leave intact, in a context of a hundred
tokens or so.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ropewalk.builtin_text import BUILTIN
from ropewalk.errors import DataError
from ropewalk.options import option, parse_options
from ropewalk.records import digest, read_jsonl, read_text, text_field, texts_field
from ropewalk.splits import Split, check_split, in_split, region_of
from ropewalk.tasks.base import Example, Metric, Piece, TaskOptions, check_options, gold_positions

DEFAULT_LIMIT = 100

CHOICE_ACCURACY = Metric("choice_accuracy", generated=False, score=None, by_choice=True)


@dataclass(frozen=True)
class Options:
    """The task's own options."""

    choices: int = option(4, "Of a text: continuations to choose from, one of them right.")
    passage: int = option(64, "Of a text: words of the passage.")
    continuation: int = option(12, "Of a text: words of a continuation.")


class Choice:
    """The task `choice`. data: a text file, or a jsonl(.gz) file of questions; without one the built-in text."""

    name: ClassVar[str] = "choice"
    OPTIONS: ClassVar[type] = Options
    metric = CHOICE_ACCURACY

    def __init__(self, options: TaskOptions) -> None:
        check_options(options, self.name, "keys")
        self.own = parse_options(Options, f"task {self.name}", options.options)
        for entry, least in (("choices", 2), ("passage", 1), ("continuation", 1)):
            value = getattr(self.own, entry)
            if value < least:
                raise DataError(f"task choice: option {entry!r} is {value}, expected at least {least}")
        self.limit = DEFAULT_LIMIT if options.limit is None else options.limit
        self.positions = gold_positions(options.positions, 1)
        self.data, self.seed = str(BUILTIN if options.data is None else options.data), options.seed
        self.asks_lines = self.data.removesuffix(".gz").endswith(".jsonl")

    def settings(self) -> dict[str, object]:
        """What determines the examples; a file counts by the digest of its content, not by its name."""
        return {
            "task": self.name,
            "positions": list(self.positions),
            "limit": self.limit,
            "data": {"sha256": digest(self.data)},
            "seed": None if self.asks_lines else self.seed,
            "options": None if self.asks_lines else dataclasses.asdict(self.own),
        }

    def examples(self, split: Split) -> list[Example]:
        """The questions of the split: lines by a hash of their content, passages by their place in the text."""
        check_split(split)
        examples = self._questions(split) if self.asks_lines else self._continuations(split)
        return examples[: self.limit]

    def short(self) -> None:
        """There is no such: a passage is short as it is."""
        return

    def _continuations(self, split: Split) -> list[Example]:
        """A passage each, none of which overlap, in an order drawn from the seed."""
        words = read_text(self.data).split()
        low, high = (int(len(words) * share) for share in region_of(split))
        span = self.own.passage + self.own.continuation
        starts = np.arange(low, high - span + 1, span)
        if len(starts) < max(self.own.choices, min(self.limit, 2)):
            raise DataError(
                f"{self.data}: {high - low} words in the split {split!r} hold {len(starts)} passages of {span} words; "
                f"a question with {self.own.choices} choices needs as many: give a longer text or shorter passages"
            )
        order = np.random.default_rng([self.seed, 0]).permutation(len(starts))
        return [self._continuation(words, starts, int(place), split) for place in order[: self.limit]]

    def _continuation(self, words: list[str], starts: Any, place: int, split: Split) -> Example:
        """The passage at `place` and its own continuation, with those of other passages."""

        def after(start: int) -> str:
            begin = start + self.own.passage
            return " ".join(words[begin : begin + self.own.continuation])

        right = after(int(starts[place]))
        wrong: list[str] = []
        for other in np.random.default_rng([self.seed, 1, place]).permutation(len(starts)):
            text = after(int(starts[other]))
            if text != right and text not in wrong:
                wrong.append(text)
            if len(wrong) == self.own.choices - 1:
                break
        else:
            raise DataError(f"{self.data}: too few different continuations of {self.own.continuation} words")
        passage = " ".join(words[starts[place] : starts[place] + self.own.passage])
        return _example(f"choice-{split}-{place}", passage, (right, *wrong))

    def _questions(self, split: Split) -> list[Example]:
        examples: list[Example] = []
        first: dict[str, str] = {}
        for line, where in read_jsonl(self.data):
            prompt, choices, right = _parse(line, where)
            content = "\n".join((prompt, *sorted(choices)))
            if content in first:
                raise DataError(f"{where}: the same question as in {first[content]}")
            first[content] = where.rpartition(", ")[2]
            if in_split(content, split):
                name = hashlib.sha256(content.encode()).hexdigest()[:16]
                others = (choice for choice in choices if choice != right)
                examples.append(_example(f"choice-{name}", prompt, (right, *others)))
        if not examples:
            raise DataError(f"{self.data}: no record in the split {split!r}; --split all takes every record")
        return examples


TASK = Choice


def _example(record: str, prompt: str, choices: tuple[str, ...]) -> Example:
    return Example(f"{record}@0", record, 0, (Piece(prompt, "query"),), choices)


def _parse(line: dict[str, Any], where: str) -> tuple[str, tuple[str, ...], str]:
    """Prompt, choices and the right one of a line. Raises `DataError` that names line and field."""
    prompt, choices = text_field(line, "prompt", where), texts_field(line, "choices", where)
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise DataError(f'{where}: field "choices" is {list(choices)}, expected at least two different ones')
    answer = line.get("answer")
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return prompt, choices, choices[answer]
    if isinstance(answer, str) and answer in choices:
        return prompt, choices, answer
    raise DataError(f'{where}: field "answer" is {answer!r}, expected one of the choices or its number from 0')
