"""A user's own prompts from a jsonl(.gz) file, with answers and, if there is such, the place of the evidence.

Lines of `pieces` with the `position` of the gold one: it is moved to each of the positions, and "{number}" in a piece
is its place after that, counted from 1. Lines of `prompt` and `position`: the prompts of one `id` are a record and stay
as they are. Lines without a position: there is one position, 0. See `ropewalk.prompt_lines` for the fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ropewalk.errors import DataError
from ropewalk.metrics import best_subspan_em, blank_answers, kv_match
from ropewalk.named_files import documents_digest
from ropewalk.options import option, parse_options
from ropewalk.prompt_lines import PIECES, Layout, Line, PromptRecord, read_prompts, rendered_pieces
from ropewalk.records import read_text
from ropewalk.splits import Split, check_split, in_split
from ropewalk.tasks.base import Example, Metric, TaskOptions, check_options, gold_positions

MetricName = Literal["best_subspan_em", "exact_match"]

PROMPT = "{prompt}"


@dataclass(frozen=True)
class Options:
    """The task's own options."""

    template: str | None = option(
        None,
        "File with the prompt's text: {name} is the line's field of that name, {pieces} its pieces. Default: {pieces}.",
    )
    separator: str = option("\\n", "What stands between pieces; \\n is a line break.")
    metric: MetricName = option(
        "best_subspan_em",
        "best_subspan_em: the generated first line contains an answer, both normalised; exact_match: the answer is "
        "the model's own choice token by token, nothing is generated.",
    )
    max_new_tokens: int = option(100, "Tokens a generated answer may have.")
    opening: str = option("", 'What the model\'s turn begins with, e.g. a quote or "Answer: "; \\n is a line break.')
    closing: str = option("", "What must follow the answer for an exact match, e.g. a quote.")


def contains_answer(text: str, answers: Sequence[str]) -> float:
    """1.0 if the text contains one of the answers, whatever the case, else 0.0."""
    return max((kv_match(text, answer) for answer in answers), default=0.0)


class OwnPrompts:
    """The task `jsonl`. data: the file, read when the task is made, for its lines say which positions there are."""

    name: ClassVar[str] = "jsonl"
    OPTIONS: ClassVar[type] = Options

    def __init__(self, options: TaskOptions) -> None:
        check_options(options, self.name, "keys")
        self.own = parse_options(Options, f"task {self.name}", options.options)
        if options.data is None:
            raise DataError("task jsonl needs --data: a jsonl file of prompts and answers")
        self.data, self.limit = options.data, options.limit
        self.metric = _metric(self.own)
        self.template = None if self.own.template is None else _template(self.own.template)
        self.layout, self.records = read_prompts(self.data)
        self._digest = documents_digest(self.data)
        if self.metric.score is best_subspan_em:
            _check_answers(self.records)
        self.positions = _positions(options.positions, self.layout, self.records)

    def settings(self) -> dict[str, object]:
        """What determines the examples; files count by the digests of their contents, not by their names."""
        template = None if self.template is None else hashlib.sha256(self.template.encode()).hexdigest()
        return {
            "task": self.name,
            "positions": list(self.positions),
            "limit": self.limit,
            "data": {"sha256": self._digest},
            "options": {
                "template": None if template is None else {"sha256": template},
                "separator": _unescaped(self.own.separator),
                "metric": self.own.metric,
                "max_new_tokens": self.own.max_new_tokens,
                "opening": _unescaped(self.own.opening),
                "closing": self.own.closing,
            },
        }

    def examples(self, split: Split) -> list[Example]:
        """Records of the split, each at every position; a record's split follows from its id, or else its content."""
        check_split(split)
        records = [record for record in self.records if in_split(record.name, split)]
        if not records:
            raise DataError(f"{self.data}: no record in the split {split!r}; --split all takes every record")
        return [self._example(record, place) for record in records[: self.limit] for place in self.positions]

    def short(self) -> None:
        """There is no such: what may be left out of a user's prompt is not known."""
        return

    def _example(self, record: PromptRecord, place: int) -> Example:
        line = record.lines[place] if self.layout == "listed" else record.line
        template = (PIECES if line.pieces else PROMPT) if self.template is None else self.template
        moved_to = place if self.layout == "moved" else None
        return Example(
            id=f"jsonl-{record.name}@{place}",
            record=f"jsonl-{record.name}",
            gold_index=place,
            pieces=rendered_pieces(template, _unescaped(self.own.separator), line, moved_to),
            answers=line.answers,
            opening=_unescaped(self.own.opening),
            closing=self.own.closing,
            group=record.group,
        )


TASK = OwnPrompts


def _metric(own: Options) -> Metric:
    budget = own.max_new_tokens
    if not isinstance(budget, int) or budget < 1:
        raise DataError(f"jsonl: option 'max_new_tokens' is {budget}, expected a whole number of at least 1")
    if own.metric == "exact_match":
        return Metric("exact_match", generated=False, score=contains_answer, max_new_tokens=budget)
    # The metric cuts at the first newline: stopping there gives the same score.
    return Metric("best_subspan_em", generated=True, score=best_subspan_em, max_new_tokens=budget, stop=("\n",))


def _template(source: str) -> str:
    """The text of a template file without the line break that editors put at its end."""
    return read_text(source).removesuffix("\n").removesuffix("\r")


def _check_answers(records: Sequence[PromptRecord]) -> None:
    for line in (line for record in records for line in record.lines.values()):
        if blank := blank_answers(line.answers):
            raise DataError(
                f"{line.where}: the answer {blank[0]!r} is empty after the metric's normalisation (articles and "
                "punctuation go), so anything would contain it; leave it out"
            )


def _positions(given: int | tuple[int, ...] | None, layout: Layout, records: Sequence[PromptRecord]) -> tuple[int, ...]:
    if layout == "single":
        return gold_positions(given, 1)
    if layout == "listed":
        places = list(records[0].lines)
        if given is None or isinstance(given, int):
            return tuple(
                places[index] for index in gold_positions(len(places) if given is None else given, len(places))
            )
        if unknown := [place for place in given if place not in places]:
            raise DataError(f"positions {list(given)}: the file's records have {places}, not {unknown[0]}")
        return gold_positions(given, places[-1] + 1)
    lines = [record.line for record in records]
    fewest, most = (pick(lines, key=_count) for pick in (min, max))
    if _count(fewest) != _count(most) and not isinstance(given, tuple):
        raise DataError(
            f"{fewest.where}: {_count(fewest)} pieces, while {most.where.rpartition(', ')[2]} has {_count(most)}: a "
            "count of positions would mean different places; give the positions themselves, as 0,4,9"
        )
    return gold_positions(given, _count(fewest))


def _count(line: Line) -> int:
    return len(line.pieces)


def _unescaped(text: str) -> str:
    r"""A command line can hardly give a line break, so \n and \t stand for what they do in JSON."""
    return text.replace("\\n", "\n").replace("\\t", "\t")
