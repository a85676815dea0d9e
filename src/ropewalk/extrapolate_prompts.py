"""Prompts of a given length: the far tokens of long texts, key-value objects, needles in filler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ropewalk.errors import DataError
from ropewalk.prompts import PromptRenderer
from ropewalk.records import read_text
from ropewalk.splits import Split, region_of
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Task, TaskOptions

FAR = 4  # the last such part of a window holds the far tokens
POSITIONS = 3  # of the evidence in kv and needle: first, middle, last
SLACK = 0.97  # of a length is aimed at: records differ a little, and none may be longer


@dataclass(frozen=True)
class LongTexts:
    """Text files with their lengths in tokens of one tokenizer."""

    sources: tuple[str, ...]
    tokens: tuple[int, ...]

    @classmethod
    def read(cls, data: str, tokenizer: Any) -> LongTexts:
        """The files of a folder, or a comma-separated list of them. Raises `DataError` as task perplexity does."""
        task: Any = make_task("perplexity", TaskOptions(data=data))
        task.settings()  # reads all of them, and refuses the same text twice
        counts = [
            len(tokenizer(read_text(one), add_special_tokens=False, verbose=False)["input_ids"]) for one in task.sources
        ]
        return cls(tuple(task.sources), tuple(counts))

    def windows(self, length: int, split: Split, limit: int) -> Task | None:
        """Windows of `length` tokens, a BOS among them, whose last `1 / FAR` is scored: the far tokens.

        A window begins where the far tokens of the one before it do not reach, so none is scored twice, though what
        they are read after overlaps. Of every text that has room in the split there are as many, at most `limit`: the
        number that gives the most windows in all. None if no text has room for one.
        """
        low, high = region_of(split)
        window = length - 1
        far = window // FAR
        room = [(int(count * high) - int(count * low) - window) // far + 1 for count in self.tokens]

        def windows_in_all(each: int) -> int:
            return each * sum(count >= each for count in room)

        each = max(range(limit, 0, -1), key=windows_in_all)
        fits = [source for source, count in zip(self.sources, room, strict=True) if count >= each]
        if not fits:
            return None
        options = {"window": window, "stride": far}
        return make_task("perplexity", TaskOptions(data=",".join(fits), limit=each, options=options))


def kv_task(length: int, limit: int, seed: int, renderer: PromptRenderer) -> Task | None:
    """Key-value retrieval with as many pairs as fit into `length` tokens; None if not even a few do."""

    def made(keys: int, records: int = limit) -> Task:
        return make_task("kv", TaskOptions(positions=min(POSITIONS, keys), keys=keys, limit=records, seed=seed))

    return _largest(made, length, POSITIONS, 2, renderer)


def needle_task(length: int, limit: int, seed: int, renderer: PromptRenderer) -> Task | None:
    """A needle in as much filler as fits into `length` tokens; None if not even the shortest text does."""

    def made(words: int, records: int = limit) -> Task:
        options = TaskOptions(positions=POSITIONS, limit=records, seed=seed, options={"lengths": str(words)})
        return make_task("needle", options)

    return _largest(made, length, 50, 50, renderer)


def _largest(made: Callable[..., Task], length: int, smallest: int, step: int, renderer: PromptRenderer) -> Task | None:
    """The task of the largest size whose test prompts, answers included, all fit into `length` tokens.

    Tokens grow with the size as a straight line does, up to the differences between records: a first guess from two
    sizes of one record, then smaller ones until the longest prompt of all fits.
    """

    def longest(size: int, *records: int) -> int:
        examples = made(size, *records).examples("test")
        return max(len(renderer.render(example).ids) for example in examples)

    first, second = longest(smallest, 1), longest(smallest + step, 1)
    per_size = max((second - first) / step, 1e-9)
    size = smallest + int((length * SLACK - first) / per_size)
    while size >= smallest:
        tokens = longest(size)
        if tokens <= length:
            return made(size)
        size -= max(1, int((tokens - length) / per_size))
    return None


def parse_lengths(text: str) -> tuple[int, ...]:
    """Tokens, ascending, from "2k,4096"; k is 1024."""
    lengths: list[int] = []
    for part in text.split(","):
        word = part.strip().lower()
        digits = word.removesuffix("k")
        if not digits.isdecimal() or int(digits) < 1:
            raise DataError(
                f"--lengths {text!r}: {part.strip()!r} is no length; expected tokens, as 4096 or 4k (k is 1024)"
            )
        lengths.append(int(digits) * (1024 if word.endswith("k") else 1))
    if len(set(lengths)) < len(lengths):
        raise DataError(f"--lengths {text!r}: a length is given twice; give it once")
    return tuple(sorted(lengths))


def length_words(length: int) -> str:
    """8192 as 8k, other numbers as they are."""
    return f"{length // 1024}k" if length % 1024 == 0 else str(length)


def parse_names(option: str, given: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names of "linear,dynamic", each once; "none" for no name. Raises `DataError` that lists those there are."""
    names = tuple(dict.fromkeys(part.strip() for part in given.split(",")))
    if names == ("none",):
        return ()
    if not all(name in known for name in names):
        raise DataError(f"{option} {given!r}: expected none, or of these with commas between: {', '.join(known)}")
    return names
