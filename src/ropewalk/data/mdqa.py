"""Multi-document question files in the official format: each question with its passage and BM25 distractors.

The official files (arXiv 2307.03172, section 2.1) take as distractors the passages that a retriever ranks highest
among those that contain no answer. Here the retriever is BM25, and "contains" is what the metric means by it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from ropewalk import files
from ropewalk.errors import DataError
from ropewalk.metrics import normalize_answer
from ropewalk.questions import Passage, Question, read_passage
from ropewalk.records import read_jsonl, text_field

OnProgress = Callable[[int, int], None]

EXCLUDED = "in an excluded file"
TOO_FEW = "too few distractors without an answer"


@dataclass(frozen=True)
class Built:
    """What was built. records: JSON objects of the official format. left_out: why -> questions."""

    records: list[dict[str, Any]]
    left_out: Mapping[str, int]


class PassageIndex:
    """Passages by BM25 over title and text; of passages with the same text the first counts."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        first: dict[str, Passage] = {}
        for passage in passages:
            first.setdefault(passage.text, passage)
        self.passages = list(first.values())
        self._normalized: dict[int, str] = {}
        tokens = bm25s.tokenize([_shown(passage) for passage in self.passages], show_progress=False)
        self._index = bm25s.BM25() if tokens.vocab else None
        if self._index is not None:
            self._index.index(tokens, show_progress=False)

    def ranked(self, query: str) -> Iterator[tuple[int, float]]:
        """Index and score of the passages that share a word with `query`, by falling score, then in their order."""
        words = bm25s.tokenize(query, return_ids=False, show_progress=False)[0]
        if self._index is None or not words:
            return
        scores = self._index.get_scores(words)
        found = np.flatnonzero(scores > 0)  # the others share no word: their order would mean nothing
        for index in found[np.argsort(-scores[found], kind="stable")]:
            yield int(index), float(scores[index])

    def normalized(self, index: int) -> str:
        """Title and text of a passage as the metric normalises them."""
        if index not in self._normalized:
            self._normalized[index] = normalize_answer(_shown(self.passages[index]))
        return self._normalized[index]


def build(
    questions: Sequence[Question],
    documents: int,
    passages: Iterable[Passage] | None = None,
    *,
    exclude: Iterable[str] = (),
    limit: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Built:
    """Each question with its gold passage first and `documents` - 1 distractors by falling BM25 score.

    passages: the corpus; None: the gold passages of the other questions. exclude: questions to leave out, with their
    passages. limit: questions to build. seed: draws the order in which questions are taken, and so which ones `limit`
    leaves. A question with too few distractors is left out and counted.

    Raises `DataError` if the corpus is too small or no question is left.
    """
    if documents < 2:
        raise DataError(f"{documents} documents: expected at least 2, the one with the answer and a distractor")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit} questions, expected at least 1")
    unwanted = set(exclude)
    kept = [question for question in questions if question.text not in unwanted]
    if not kept:
        raise DataError(f"all {len(questions)} questions are in the excluded files, none is left")
    index = PassageIndex(passages if passages is not None else (question.gold for question in kept))
    if len(index.passages) < documents - 1:
        raise DataError(
            f"{len(index.passages)} different passages: expected {documents - 1} or more for {documents} documents; "
            "give a larger corpus (--passages FILE)"
        )
    left_out = Counter({EXCLUDED: len(questions) - len(kept)})
    records: list[dict[str, Any]] = []
    goal = min(len(kept), limit or len(kept))
    for question in _drawn(kept, seed):
        distractors = _distractors(index, question, documents - 1)
        if len(distractors) == documents - 1:
            records.append(_record(question, distractors))
        else:
            left_out[TOO_FEW] += 1
        if on_progress:
            on_progress(len(records), goal)
        if len(records) == goal:
            break
    if not records:
        raise DataError(
            f"none of {len(kept)} questions has {documents - 1} distractors without an answer; "
            "give a larger corpus (--passages FILE) or ask for fewer documents"
        )
    return Built(records, {why: count for why, count in left_out.items() if count})


def read_excluded(sources: Iterable[str | Path]) -> set[str]:
    """The questions of these files, of which no other field is read."""
    return {text_field(document, "question", where) for source in sources for document, where in read_jsonl(source)}


def read_passages(source: str | Path) -> list[Passage]:
    """The passages of a jsonl(.gz) file of "title" and "text"."""
    return [read_passage(document, where) for document, where in read_jsonl(source)]


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a jsonl file, gzipped if its name ends in .gz, atomically; equal records give equal bytes."""
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    if path.suffix == ".gz":
        packed = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=packed, mtime=0) as stream:
            stream.write(content)
        content = packed.getvalue()
    files.write_bytes(path, content)


def _shown(passage: Passage) -> str:
    return f"{passage.title} {passage.text}"


def _drawn(questions: Sequence[Question], seed: int) -> list[Question]:
    """The questions in an order that follows from the seed and their texts alone."""
    return sorted(questions, key=lambda q: hashlib.sha256(f"ropewalk/data/mdqa/{seed}/{q.id}".encode()).digest())


def _distractors(index: PassageIndex, question: Question, count: int) -> list[dict[str, Any]]:
    """Up to `count` passages that are not the gold one and contain no answer, as the official format has them."""
    answers = [normalize_answer(answer) for answer in question.answers]
    gold = normalize_answer(question.gold.text)
    found: list[dict[str, Any]] = []
    for rank, (number, score) in enumerate(index.ranked(question.text)):
        passage, text = index.passages[number], index.normalized(number)
        if any(answer in text for answer in answers) or normalize_answer(passage.text) == gold:
            continue
        found.append(
            {
                "id": str(number),
                "title": passage.title,
                "text": passage.text,
                "score": f"{score:.4f}",
                "hasanswer": False,
                "original_retrieval_index": rank,
                "isgold": False,
            }
        )
        if len(found) == count:
            break
    return found


def _record(question: Question, distractors: list[dict[str, Any]]) -> dict[str, Any]:
    text = normalize_answer(_shown(question.gold))
    gold = {
        "title": question.gold.title,
        "text": question.gold.text,
        "hasanswer": any(normalize_answer(answer) in text for answer in question.answers),
        "isgold": True,
    }
    return {"question": question.text, "answers": list(question.answers), "ctxs": [gold, *distractors]}
