"""A rendered prompt for people to read: its text as the model gets it, and where the evidence and the answer stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ropewalk.prompts import RenderedPrompt, terminator_ids
from ropewalk.tasks.base import Example

Mark = Literal["", "gold", "scored"]
Stretch = tuple[int, int]  # characters of the text, [start, stop)


@dataclass(frozen=True)
class PromptView:
    """One prompt with one answer.

    text: decoded from the very ids, special tokens included. scored: where the scored tokens stand in it; a letter
    whose bytes are parted among tokens counts to them as a whole. gold: where the evidence stands; empty if the
    tokenizer changed it beyond recognition. tokens: of all ids, as the vocabulary stores them. answer_tokens: the
    scored ones, decoded. endings: tokens one of which must follow the answer; empty if anything may.
    """

    prompt: RenderedPrompt
    text: str
    scored: Stretch
    gold: tuple[Stretch, ...]
    tokens: tuple[str, ...]
    answer_tokens: tuple[str, ...]
    endings: tuple[str, ...]

    def stretches(self) -> Iterator[tuple[str, Mark]]:
        """The text from start to end in stretches, each with its mark."""
        marks: list[tuple[int, int, Mark]] = [(*stretch, "gold") for stretch in self.gold]
        at = 0
        for start, stop, mark in [*marks, (*self.scored, "scored")]:
            yield self.text[at:start], ""
            yield self.text[start:stop], mark
            at = stop
        yield self.text[at:], ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON: `ids`, `first` (the index of the first scored token), `tokens`, `text` and where things stand."""
        return {
            "ids": list(self.prompt.ids),
            "first": self.prompt.first,
            "tokens": list(self.tokens),
            "text": self.text,
            "scored": list(self.scored),
            "gold": [list(stretch) for stretch in self.gold],
            "answer": self.text[slice(*self.scored)],
            "terminator": self.prompt.terminator,
            "endings": list(self.endings),
        }


def view(tokenizer: Any, prompt: RenderedPrompt) -> PromptView:
    """The prompt as its own ids say it, not as the task meant it."""
    ids = list(prompt.ids)
    text, head = _decode(tokenizer, ids), _decode(tokenizer, ids[: prompt.first])
    start = _common(text, head)  # the head may end within a letter of several bytes
    endings = terminator_ids(tokenizer, prompt.terminator) if prompt.terminator else ()
    return PromptView(
        prompt=prompt,
        text=text,
        scored=(start, len(text)),
        gold=tuple(stretch for stretch in _gold(prompt.example, text) if stretch[1] <= start),
        tokens=tuple(tokenizer.convert_ids_to_tokens(ids)),
        answer_tokens=tuple(_token(tokenizer, token) for token in ids[prompt.first :]),
        endings=tuple(tokenizer.convert_ids_to_tokens(list(endings))),
    )


def piece_kinds(example: Example) -> dict[str, int]:
    """How many pieces of each kind the prompt has, in the order of their first appearance."""
    return dict(Counter(piece.kind for piece in example.pieces))


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _token(tokenizer: Any, token: int) -> str:
    """One token as text; as the vocabulary stores it where it is a part of a letter."""
    text = _decode(tokenizer, [token])
    return str(tokenizer.convert_ids_to_tokens(token)) if "\ufffd" in text else text


def _gold(example: Example, text: str) -> Iterator[Stretch]:
    """Where the gold pieces stand in the text, by their place in the whole prompt, which a template may have trimmed.

    Blanks at their ends are left out.
    """
    whole = example.prompt
    at = text.find(whole.strip())
    if example.span is not None or at < 0 or not whole.strip():
        return
    at -= len(whole) - len(whole.lstrip())
    for piece in example.pieces:
        if piece.kind == "gold":
            start = at + len(piece.text) - len(piece.text.lstrip())
            yield start, start + len(piece.text.strip())
        at += len(piece.text)


def _common(one: str, other: str) -> int:
    """How many letters two texts have in common from their start."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
