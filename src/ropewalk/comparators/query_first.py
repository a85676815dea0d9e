"""The prompt-side cure: the query before the context as well as after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from ropewalk.comparators.base import Comparator, at_least
from ropewalk.options import option
from ropewalk.tasks.base import Example, Piece


@dataclass(frozen=True)
class Options:
    """Whether at all."""

    copies: int = option(1, "Times that the query stands before the context; 0 changes nothing.")


class QueryFirst(Comparator):
    """Query-aware contextualisation: instruction, QUERY, context, query.

    The query's copy stands before the heading of the context and without its answer cue ("Answer:"), which makes
    the prompts of `kv` and `mdqa` the official query-aware ones, to the character. The model stays untouched.
    Source: "Lost in the Middle", arXiv 2307.03172, section 4.2. Cost: one forward pass, longer by the query's tokens;
    prompts that differ in their query share no prefix, so nothing of the context is computed once for many. The engine
    can run it.
    """

    name: ClassVar[str] = "query-first"
    summary: ClassVar[str] = "the query before the context too (a change of the prompt)"
    OPTIONS: ClassVar[type] = Options
    MAIN: ClassVar[str | None] = "copies"
    engine: ClassVar[bool] = True
    IDENTITY: ClassVar[dict[str, Any]] = {"copies": 0}

    def check(self) -> None:
        """Raise `DataError` for options that can't be meant."""
        at_least(self.name, 0, copies=self.options.copies)

    def installed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Nothing: the model stays as it is."""
        return nullcontext()

    def example(self, example: Example) -> Example:
        """The example with its query before the context; as it is if it has no query or no context."""
        query = early_query(example.pieces)
        context = next((i for i, piece in enumerate(example.pieces) if piece.kind in ("gold", "distractor")), None)
        if not query or context is None or not self.options.copies:
            return example
        copies = [Piece(query + "\n\n", "query")] * self.options.copies
        before, after = _split_heading(example.pieces[:context])
        return dataclasses.replace(example, pieces=(*before, *copies, *after, *example.pieces[context:]))


COMPARATOR = QueryFirst


def early_query(pieces: Sequence[Piece]) -> str:
    """The query's text without the cue that asks for the answer: its last line, if that ends in a colon."""
    lines = "".join(piece.text for piece in pieces if piece.kind == "query").strip().split("\n")
    if len(lines) > 1 and lines[-1].rstrip().endswith(":"):
        lines.pop()
    return "\n".join(lines).strip()


def _split_heading(pieces: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """What stands before the context, split where its heading begins: after the last empty line."""
    if not pieces:
        return [], []
    *earlier, last = pieces
    cut = last.text.rfind("\n\n")
    if cut < 0:
        return [*earlier, last], []
    head, heading = last.text[: cut + 2], last.text[cut + 2 :]
    return [*earlier, Piece(head, last.kind)], [Piece(heading, last.kind)] if heading else []
