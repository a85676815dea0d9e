"""Text to hide needles in: sentences of a given text, or filler sentences generated from a label.

All chance comes from SHAKE-256, so the same label gives the same text on every machine and with every Python.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

LONGEST_SENTENCE = 100  # words; longer stretches without a full stop (tables, code) are cut, or no needle fits in

_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*\s+|\n\s*\n\s*")
_STRETCH = re.compile(rf"\s*(?:\S+(?:\s+|$)){{1,{LONGEST_SENTENCE}}}")

_WHO = (
    "the baker", "an old sailor", "the new teacher", "our neighbour", "the station master", "a young painter",
    "the gardener", "her cousin", "the night porter", "a retired judge", "the ferry captain", "the librarian",
    "his aunt", "a travelling merchant", "the village doctor", "the clockmaker", "a tired courier", "the miller",
    "the choir leader", "a curious student", "the innkeeper", "the carpenter", "a visiting scholar", "the shepherd",
)  # fmt: skip
_DID = (
    "repaired", "described", "carried home", "forgot about", "drew a picture of", "wrote a letter about", "looked for",
    "sold", "admired", "borrowed", "cleaned", "argued about", "asked after", "gave away", "painted", "bought back",
    "hid", "found", "measured", "waited for", "spoke of", "weighed", "dreamt of", "wrapped up",
)  # fmt: skip
_WHAT = (
    "the wooden table", "a basket of pears", "the broken lantern", "two pairs of boots", "the iron gate",
    "a map of the coast", "the red bicycle", "a sack of flour", "the stone bridge", "a pot of honey", "the long ladder",
    "an umbrella", "the garden wall", "a silver spoon", "the church bell", "a coil of rope", "the kitchen stove",
    "a letter from abroad", "the wicker chair", "a bundle of hay", "the old piano", "a jar of ink", "the small boat",
    "a woollen coat",
)  # fmt: skip
_WHEN = (
    "before breakfast", "late in the evening", "on a rainy afternoon", "after the market had closed", "in early spring",
    "when the snow had melted", "just before noon", "at the end of the week", "during the harvest", "all summer long",
    "while the others slept", "on the first day of autumn", "once the fog had lifted", "not long ago",
    "as the sun went down", "between two meetings",
)  # fmt: skip
_WHERE = (
    "near the harbour", "behind the mill", "at the edge of the forest", "in the upper town", "by the river",
    "in front of the school", "under the arcades", "on the way to the station", "in a quiet side street",
    "at the foot of the hill", "beside the well", "across the square", "in the back room", "on the other bank",
    "next to the orchard", "inside the barn",
)  # fmt: skip
_WEATHER = (
    "The wind turned", "Rain fell softly", "The streets were empty", "Smoke rose from the chimneys",
    "Somebody was singing", "The road was dusty", "A dog barked", "The air smelled of bread", "The bells were silent",
    "Leaves covered the ground", "The lamps were lit", "Children were playing",
)  # fmt: skip
_TEMPLATES = (
    "{who} {did} {what} {where} {when}.",
    "{when}, {who} {did} {what}.",
    "{where}, {who} {did} {what}, and {who2} only smiled.",
    "{who} said that {who2} {did} {what} {when}.",
    "{weather} {where}, so {who} {did} {what}.",
    "nobody knew why {who} {did} {what} {where}.",
    "{weather}, and {when} {who} {did} {what}.",
    "although {who} {did} {what}, {who2} {did2} {what2} {where}.",
    "it was {who} who {did} {what}; {who2} {did2} {what2}.",
    "{weather} {where}.",
    "{when} {who} and {who2} met {where} and {did} {what}.",
    "if {who} had not been {where}, {who2} would never have seen {what}.",
)


class Draws:
    """Numbers that follow from a label alone."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._block = 0
        self._numbers: list[int] = []

    def below(self, bound: int) -> int:
        """A whole number from 0 to `bound` - 1."""
        if not self._numbers:
            stream = hashlib.shake_256(f"{self._label}/{self._block}".encode()).digest(8 * 64)
            self._numbers = [int.from_bytes(stream[start : start + 8], "big") for start in range(0, len(stream), 8)]
            self._block += 1
        return self._numbers.pop() % bound

    def fraction(self) -> float:
        """A number from 0 to below 1."""
        return self.below(2**53) / 2**53

    def choice(self, items: Sequence[Item]) -> Item:
        """One of `items`."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different places of `items`, in the order they were drawn."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(count)]


def generated_sentences(label: str, words: int) -> list[str]:
    """Filler sentences of at least `words` words together, in paragraphs; each with the white space behind it."""
    draws = Draws(label)
    sentences: list[str] = []
    total, left = 0, 4 + draws.below(5)
    while total < words:
        sentence, left = _sentence(draws), left - 1
        total += len(sentence.split())
        sentences.append(sentence + (" " if left else "\n\n"))
        left = left or 4 + draws.below(5)
    return sentences


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each with the white space behind it: joined they are the text again.

    A sentence ends at a full stop, question or exclamation mark before white space, at an empty line, or after
    `LONGEST_SENTENCE` words.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    starts = [0, *ends]
    parts = [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True) if start < end]
    return [piece for part in parts for piece in _cut(part)]


def _cut(part: str) -> list[str]:
    if len(part.split()) <= LONGEST_SENTENCE:
        return [part]
    return [match.group() for match in _STRETCH.finditer(part)]


def _sentence(draws: Draws) -> str:
    who, who2 = draws.sample(_WHO, 2)
    did, did2 = draws.sample(_DID, 2)
    what, what2 = draws.sample(_WHAT, 2)
    places = {"when": draws.choice(_WHEN), "where": draws.choice(_WHERE), "weather": draws.choice(_WEATHER)}
    text = draws.choice(_TEMPLATES).format(who=who, who2=who2, did=did, did2=did2, what=what, what2=what2, **places)
    return text[0].upper() + text[1:]
