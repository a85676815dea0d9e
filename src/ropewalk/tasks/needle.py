"""Needle in a haystack: a sentence with a value for a key stands at a depth of a long text, and the value is asked for.

The wording and the three variants follow RULER (arXiv 2404.06654, section 3 and appendix B). A position is a depth in
percent of the words before the needle; the needle goes to the nearest sentence boundary. The haystack of a record, its
keys, values and distractors are the same at every depth. Variants:

- single: one needle.
- multi-key: `distractors` needles of other keys stand spread over the text, wherever the gold needle is.
- multi-value: `values` needles of one key stand at the depth, a sentence apart, so that the evidence has a place. The
  score of an answer is the share of the values that it contains.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Literal

from ropewalk.errors import DataError
from ropewalk.haystack import Draws, generated_sentences, split_sentences
from ropewalk.long_texts import long_texts, text_sources
from ropewalk.metrics import kv_match
from ropewalk.options import option, parse_options
from ropewalk.splits import Split, check_split, region_of
from ropewalk.tasks.base import (
    Example,
    Kind,
    Metric,
    Piece,
    TaskOptions,
    check_options,
    gold_positions,
)

Variant = Literal["single", "multi-key", "multi-value"]
Value = Literal["number", "uuid"]

DEFAULT_LIMIT = 100
PLACES = 101  # depths in percent
SHORTEST = 50  # words: below that there is no depth to speak of
SEPARATOR = ", "  # between the values of one answer
TOKENS = {"number": 16, "uuid": 48}  # of one generated value, with room for a few words

INSTRUCTION = (
    "Some special magic {plural} are hidden within the following text. Make sure to memorize them. "
    "I will quiz you about the {plural} afterwards.\n\n"
)
NEEDLE = "One of the special magic {plural} for {key} is: {value}."
QUERY_ONE = "\n\nWhat is the special magic {kind} for {key} mentioned in the provided text?"
QUERY_ALL = "\n\nWhat are all the special magic {plural} for {key} mentioned in the provided text?"
OPENING_ONE = "The special magic {kind} for {key} mentioned in the provided text is: "
OPENING_ALL = "The special magic {plural} for {key} mentioned in the provided text are: "

_ADJECTIVES = (
    "amber", "brisk", "calm", "dapper", "eager", "fuzzy", "gentle", "hollow", "icy", "jolly", "keen", "lively",
    "mellow", "nimble", "opal", "proud", "quaint", "rustic", "sleek", "tidy", "upbeat", "vivid", "witty", "zesty",
)  # fmt: skip
_NOUNS = (
    "anchor", "beacon", "canyon", "dolphin", "ember", "falcon", "glacier", "hammock", "island", "jaguar", "kettle",
    "lagoon", "meadow", "nutmeg", "oyster", "pebble", "quarry", "raven", "saddle", "thimble", "urchin", "violin",
    "walnut", "zeppelin",
)  # fmt: skip
_KEYS = tuple(f"{adjective}-{noun}" for adjective in _ADJECTIVES for noun in _NOUNS)


@dataclass(frozen=True)
class Options:
    """The task's own options."""

    variant: Variant = option(
        "single", "single; multi-key: among needles of other keys; multi-value: several values of one key."
    )
    lengths: str = option("2000", "Words of the haystack; several, as 1000,2000,4000, take turns by record.")
    distractors: int = option(4, "multi-key: how many needles of other keys.")
    values: int = option(4, "multi-value: how many needles of the key that is asked for.")
    value: Value = option("number", "number: seven digits; uuid: 36 characters.")


@dataclass(frozen=True)
class Needles:
    """What is hidden in one record: the key that is asked for with its values, and the distractors with depths in
    [0, 1].
    """

    key: str
    values: tuple[str, ...]
    distractors: tuple[tuple[float, str, str], ...]


def share_found(text: str, answers: Sequence[str]) -> float:
    """The share of an answer's values that the text contains, whatever the case, in [0, 1]; the best of the answers."""
    shares = []
    for answer in answers:
        values = answer.split(SEPARATOR)
        shares.append(sum(kv_match(text, value) for value in values) / len(values))
    return max(shares, default=0.0)


class NeedleInHaystack:
    """The task `needle`. data: text files, comma-separated, or a folder of them, which take turns by record;
    without any, filler sentences are generated.
    """

    name: ClassVar[str] = "needle"
    OPTIONS: ClassVar[type] = Options

    def __init__(self, options: TaskOptions) -> None:
        check_options(options, self.name, "keys")
        self.own = parse_options(Options, f"task {self.name}", options.options)
        self.lengths = _lengths(self.own.lengths)
        self.limit = DEFAULT_LIMIT if options.limit is None else options.limit
        self.seed, self.data = options.seed, options.data
        self.sources = () if options.data is None else text_sources(str(options.data))
        self.positions = gold_positions(options.positions, PLACES)
        _check(self.own, options.options)
        several = self.own.variant == "multi-value"
        self.num_values = self.own.values if several else 1
        self.num_distractors = self.own.distractors if self.own.variant == "multi-key" else 0
        # One value stands on the line that the opening begins; several may be listed on lines of their own.
        self.metric = Metric(
            "values_found" if several else "value_found",
            generated=True,
            score=share_found,
            max_new_tokens=TOKENS[self.own.value] * self.num_values,
            stop=() if several else ("\n",),
            graded=several,
        )

    def settings(self) -> dict[str, object]:
        """What determines the examples; a file counts by the digest of its content, not by its name."""
        digests = [{"sha256": text.sha256} for text in long_texts(self.sources)]
        return {
            "task": self.name,
            "positions": list(self.positions),
            "limit": self.limit,
            "seed": self.seed,
            "data": None if not digests else digests[0] if len(digests) == 1 else digests,
            "options": {
                "variant": self.own.variant,
                "lengths": list(self.lengths),
                "distractors": self.num_distractors,
                "values": self.num_values,
                "value": self.own.value,
            },
        }

    def examples(self, split: Split) -> list[Example]:
        """Records of the split, each at every depth."""
        check_split(split)
        if split == "all" and self.data is None:
            raise DataError('split "all" is for a text (--data); generated ones are search, validation or test')
        texts = [_Text(text.label, split_sentences(text.text), split) for text in long_texts(self.sources)]
        return [example for index in range(self.limit) for example in self._record(split, index, texts)]

    def short(self) -> NeedleInHaystack | None:
        """The same question in an eighth of the shortest text, at the first and the last depth."""
        length = max(SHORTEST, min(self.lengths) // 8)
        if length >= min(self.lengths):
            return None
        own = {**dataclasses.asdict(self.own), "lengths": str(length)}
        if self.own.variant != "multi-key":
            del own["distractors"]
        if self.own.variant != "multi-value":
            del own["values"]
        return NeedleInHaystack(TaskOptions((0, PLACES - 1), None, self.data, self.limit, self.seed, own))

    def _record(self, split: Split, index: int, texts: Sequence[_Text]) -> list[Example]:
        words = self.lengths[index % len(self.lengths)]
        text = texts[index // len(self.lengths) % len(texts)] if texts else None  # each with every length
        label = f"ropewalk/needle/{self.seed}/{split}/{index}"
        needles = self._needles(Draws(f"{label}/needles"))
        haystack = generated_sentences(f"{label}/text", words) if text is None else text.take(Draws(label), words)
        record = f"needle-{self.seed}-{split}-{index}"
        by_text = text is not None and len(texts) > 1 and len(self.lengths) == 1
        group = text.name if text is not None and by_text else f"{words} words"
        return [
            Example(
                id=f"{record}@{depth}",
                record=record,
                gold_index=depth,
                pieces=self._pieces(needles, haystack, depth),
                answers=(SEPARATOR.join(needles.values),),
                opening=self._worded(OPENING_ALL if self.num_values > 1 else OPENING_ONE, needles.key),
                group=group,
            )
            for depth in self.positions
        ]

    def _needles(self, draws: Draws) -> Needles:
        keys = draws.sample(_KEYS, 1 + self.num_distractors)
        values: list[str] = []
        while len(values) < self.num_values + self.num_distractors:
            value = _value(draws, self.own.value)
            if value not in values:
                values.append(value)
        others = zip(keys[1:], values[self.num_values :], strict=True)
        # One in each of equal stretches, or they might all lie in one corner.
        depths = [(place + draws.fraction()) / self.num_distractors for place in range(self.num_distractors)]
        distractors = tuple((depth, key, value) for depth, (key, value) in zip(depths, others, strict=True))
        return Needles(keys[0], tuple(values[: self.num_values]), distractors)

    def _pieces(self, needles: Needles, haystack: Sequence[str], depth: int) -> tuple[Piece, ...]:
        hidden: list[tuple[int, Kind, str]] = [
            (_boundary(haystack, at), "distractor", self._worded(NEEDLE, key, value))
            for at, key, value in needles.distractors
        ]
        last = len(haystack) - len(needles.values) + 1  # values stand a sentence apart, and all within the text
        first = max(0, min(_boundary(haystack, depth / 100), last))
        for place, value in enumerate(needles.values, start=first):
            hidden.append((min(place, len(haystack)), "gold", self._worded(NEEDLE, needles.key, value)))
        return (
            Piece(self._worded(INSTRUCTION), "instruction"),
            *_with_needles(haystack, hidden),
            Piece(self._worded(QUERY_ALL if self.num_values > 1 else QUERY_ONE, needles.key), "query"),
        )

    def _worded(self, text: str, key: str = "", value: str = "") -> str:
        kind = "UUID" if self.own.value == "uuid" else "number"
        return text.format(kind=kind, plural=f"{kind}s", key=key, value=value)


TASK = NeedleInHaystack


class _Text:
    """The sentences of a given text that belong to a split, and haystacks taken from them."""

    def __init__(self, name: str, sentences: Sequence[str], split: Split) -> None:
        low, high = (int(len(sentences) * fraction) for fraction in region_of(split))
        self.name, self._split = name, split
        self._sentences = sentences[low:high]
        self._words = [0, *accumulate(len(sentence.split()) for sentence in self._sentences)]

    def take(self, draws: Draws, words: int) -> Sequence[str]:
        """Sentences in a row with at least `words` words, from a drawn place on."""
        starts = [place for place, before in enumerate(self._words) if self._words[-1] - before >= words]
        if not starts:
            raise DataError(
                f"{self.name}: its part for the split {self._split!r} has {self._words[-1]} words, a haystack needs "
                f"{words}; give a longer text or smaller --option lengths"
            )
        start = draws.choice(starts)
        stop = next(place for place, before in enumerate(self._words) if before - self._words[start] >= words)
        return self._sentences[start:stop]


def _lengths(given: Any) -> tuple[int, ...]:
    parts = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int) else list(given)
    try:
        lengths = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        raise DataError(f"needle: option 'lengths' is {given!r}, expected words as 2000 or 1000,2000,4000") from None
    if not lengths or min(lengths) < SHORTEST or len(set(lengths)) != len(lengths):
        raise DataError(f"needle: option 'lengths' is {given!r}, expected different numbers of at least {SHORTEST}")
    return lengths


def _check(own: Options, given: Any) -> None:
    for name, variant, least, most in (
        ("distractors", "multi-key", 1, len(_KEYS) - 1),
        ("values", "multi-value", 2, SHORTEST // 2),
    ):
        if name in given and own.variant != variant:
            raise DataError(f"needle: option {name!r} is for variant {variant}, not for {own.variant}; leave it out")
        count = getattr(own, name)
        if not isinstance(count, int) or not least <= count <= most:
            raise DataError(f"needle: option {name!r} is {count}, expected a whole number from {least} to {most}")


def _value(draws: Draws, kind: Value) -> str:
    if kind == "number":
        return str(1_000_000 + draws.below(9_000_000))
    return str(uuid.UUID(int=draws.below(2**64) << 64 | draws.below(2**64), version=4))


def _boundary(haystack: Sequence[str], depth: float) -> int:
    """The place between two sentences that is nearest to `depth` (0 to 1) of the words."""
    words = [0, *accumulate(len(sentence.split()) for sentence in haystack)]
    return min(range(len(words)), key=lambda place: abs(words[place] - depth * words[-1]))


def _with_needles(haystack: Sequence[str], hidden: Sequence[tuple[int, Kind, str]]) -> list[Piece]:
    """The text with each needle as a sentence of its own at its place; equal places keep the order of `hidden`."""
    pieces: list[Piece] = []
    done = 0
    for place, kind, needle in sorted(hidden, key=lambda entry: entry[0]):
        if done < place:
            pieces.append(Piece("".join(haystack[done:place]), "text"))
            done = place
        glued = bool(pieces) and not pieces[-1].text[-1].isspace()
        pieces.append(Piece(f"{' ' if glued else ''}{needle} ", kind))
    if done < len(haystack):
        pieces.append(Piece("".join(haystack[done:]), "text"))
    last = pieces[-1]
    pieces[-1] = Piece(last.text.rstrip(), last.kind)
    return pieces
