"""Key-value retrieval of "Lost in the Middle" (arXiv 2307.03172, section 3): find one UUID's value in a JSON object.

Prompt and file format are the official ones, to the character. Records of a file have one gold pair, which is moved
to each position. Generated records (UUIDs drawn by SHAKE-256 from seed, split and index, the same on every machine)
stay as they are, and at each position another of their pairs is asked for: the prompts of a record then share all but
their query, and the engine computes what they share once. The query-aware variant names the key before the object too:
its prompts share the first sentence only, so each costs as much as a prompt of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeGuard

from ropewalk.errors import DataError
from ropewalk.metrics import kv_match
from ropewalk.options import option, parse_options
from ropewalk.records import digest, read_jsonl, text_field
from ropewalk.splits import Split, check_split, in_split
from ropewalk.tasks.base import (
    Example,
    Metric,
    Piece,
    TaskOptions,
    check_options,
    gold_positions,
)

Variant = Literal["plain", "query-aware"]

INSTRUCTION = "Extract the value corresponding to the specified key in the JSON object below.\n\n"
EARLY_QUERY = 'Key: "{key}"\n\n'  # of the query-aware variant
HEADING = "JSON data:\n"
QUERY = '\n\nKey: "{key}"\nCorresponding value:'

DEFAULT_KEYS = 75
DEFAULT_LIMIT = 100

# Generation begins after the opening quote. 64 tokens hold a UUID of 36 characters even at a token a character. The
# official match has no end, so generation has none but the end of the turn: a value after other words counts.
EXACT_MATCH = Metric(
    "exact_match", generated=False, score=lambda text, answers: kv_match(text, answers[0]), max_new_tokens=64
)


@dataclass(frozen=True)
class Options:
    """Options of kv beside --keys."""

    variant: Variant = option("plain", "plain, or query-aware: the key stands before the object too.")


@dataclass(frozen=True)
class KeyValueRecord:
    """One JSON object and the pair that is asked for; `others` are the distractors in their order."""

    id: str
    key: str
    value: str
    others: tuple[tuple[str, str], ...]

    def place(self, gold_index: int, variant: Variant) -> Example:
        """The example with the gold pair at `gold_index` among the others."""
        pairs = list(self.others)
        pairs.insert(gold_index, (self.key, self.value))
        pieces = [Piece(INSTRUCTION + HEADING, "instruction")]
        if variant == "query-aware":
            early = Piece(EARLY_QUERY.format(key=self.key), "query")
            pieces = [Piece(INSTRUCTION, "instruction"), early, Piece(HEADING, "instruction")]
        for index, (key, value) in enumerate(pairs):
            start = "{" if index == 0 else " "
            end = "}" if index == len(pairs) - 1 else ",\n"
            pieces.append(Piece(f'{start}"{key}": "{value}"{end}', "gold" if index == gold_index else "distractor"))
        pieces.append(Piece(QUERY.format(key=self.key), "query"))
        return Example(
            id=f"{self.id}@{gold_index}",
            record=self.id,
            gold_index=gold_index,
            pieces=tuple(pieces),
            answers=(self.value,),
            opening='"',
            closing='"',
        )


class KeyValueRetrieval:
    """The task `kv`. Options: keys (pairs in the object, the gold one included), variant, positions, data, limit, seed.

    A file's records are cut to `keys` pairs: the gold one and the first others.
    """

    name: ClassVar[str] = "kv"
    OPTIONS: ClassVar[type] = Options
    metric = EXACT_MATCH

    def __init__(self, options: TaskOptions) -> None:
        check_options(options, self.name)
        self.variant = parse_options(Options, f"task {self.name}", options.options).variant
        self.keys = DEFAULT_KEYS if options.keys is None else options.keys
        self.limit = options.limit
        self.seed = options.seed
        self.data = options.data
        if self.keys < 2:
            raise DataError(f"{self.keys} keys: expected at least 2, or nothing has to be found")
        self.positions = gold_positions(options.positions, self.keys)
        self._given = options

    def settings(self) -> dict[str, object]:
        """What determines the examples; a file counts by the digest of its content, not by its name."""
        return {
            "task": self.name,
            "variant": self.variant,
            "keys": self.keys,
            "positions": list(self.positions),
            "limit": self.limit,
            "seed": self.seed,
            "data": None if self.data is None else {"sha256": digest(self.data)},
        }

    def examples(self, split: Split) -> list[Example]:
        """Records of the split, each at every position."""
        check_split(split)
        if self.data is None:
            return [self._generated(split, index, place) for index in self._indices(split) for place in self.positions]
        records = self._from_file(self.data, split)
        return [record.place(place, self.variant) for record in records for place in self.positions]

    def short(self) -> KeyValueRetrieval | None:
        """The same records with an eighth of the keys, at the first and the last position."""
        keys = max(2, self.keys // 8)
        if keys == self.keys:
            return None
        return KeyValueRetrieval(dataclasses.replace(self._given, positions=(0, keys - 1), keys=keys))

    def _indices(self, split: Split) -> range:
        if split == "all":
            raise DataError(
                'split "all" is for records of a file (--data); generated ones are search, validation or test'
            )
        return range(DEFAULT_LIMIT if self.limit is None else self.limit)

    def _generated(self, split: Split, index: int, place: int) -> Example:
        pairs = generate_pairs(self.seed, split, index, self.keys)
        key, value = pairs.pop(place)
        record = KeyValueRecord(f"kv-{self.seed}-{split}-{index}", key, value, tuple(pairs))
        return record.place(place, self.variant)

    def _from_file(self, path: str | Path, split: Split) -> list[KeyValueRecord]:
        records = [record for record in read_records(path, self.keys) if in_split(record.key, split)]
        if not records:
            raise DataError(f"{path}: no record in the split {split!r}; --split all takes every record")
        return records[: self.limit]


TASK = KeyValueRetrieval


def generate_pairs(seed: int, split: Split, index: int, keys: int) -> list[tuple[str, str]]:
    """The `keys` pairs of version-4 UUIDs of generated record number `index` of a split.

    Fewer keys give the first pairs of more keys, so a record only grows with `keys`.
    """
    stream = hashlib.shake_256(f"ropewalk/kv/{seed}/{split}/{index}".encode()).digest(32 * keys)
    ids = [str(uuid.UUID(bytes=stream[start : start + 16], version=4)) for start in range(0, len(stream), 16)]
    return list(zip(ids[::2], ids[1::2], strict=True))


def read_records(path: str | Path, keys: int) -> Iterator[KeyValueRecord]:
    """Records of an official jsonl(.gz) file, cut to `keys` pairs: the gold one and the first `keys` - 1 others."""
    first: dict[str, str] = {}
    for document, where in read_jsonl(path):
        record = _parse_record(document, keys, where)
        if record.key in first:
            raise DataError(f'{where}: field "key" is the same as in {first[record.key]}')
        first[record.key] = where.rpartition(", ")[2]
        yield record


def _parse_record(document: dict[str, Any], keys: int, where: str) -> KeyValueRecord:
    key, value = text_field(document, "key", where), text_field(document, "value", where)
    pairs = document.get("ordered_kv_records")
    if not _is_pair_list(pairs):
        raise DataError(f'{where}: field "ordered_kv_records": expected a list of [key, value] pairs of strings')
    if [key, value] not in pairs:
        raise DataError(f'{where}: field "ordered_kv_records" does not hold the pair of "key" and "value"')
    if len({pair[0] for pair in pairs}) != len(pairs):
        raise DataError(f'{where}: field "ordered_kv_records" has the same key twice')
    if len(pairs) < keys:
        raise DataError(f"{where}: the record has {len(pairs)} pairs, --keys asks for {keys}")
    others = [(other[0], other[1]) for other in pairs if other[0] != key][: keys - 1]
    return KeyValueRecord(f"kv-{key}", key, value, tuple(others))


def _is_pair_list(pairs: Any) -> TypeGuard[list[list[str]]]:
    return isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in pairs
    )
