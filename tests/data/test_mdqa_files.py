"""Built question files: distractors by BM25 without an answer, the same bytes every time, and what is left out."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest

from ropewalk.data.mdqa import (
    EXCLUDED,
    TOO_FEW,
    PassageIndex,
    build,
    read_excluded,
    read_passages,
    write_records,
)
from ropewalk.errors import DataError
from ropewalk.metrics import normalize_answer
from ropewalk.questions import Passage, Question, read_questions
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

THINGS = ["river", "bridge", "tower", "castle", "harbor", "temple"]
TOWNS = ["Avon", "Brill", "Corfe", "Dover", "Epsom", "Frome", "Goole", "Hythe"]


def question(text: str, answer: str, passage: str, *aliases: str) -> Question:
    return Question(text, (answer, *aliases), (), Passage("", passage), (), "here")


def some(count: int = 48) -> list[Question]:
    """Questions over every pair of thing and town; each passage shares a word with several questions."""
    pairs = [(thing, town) for thing in THINGS for town in TOWNS][:count]
    return [
        question(
            f"who built the {thing} of {town}", f"Mason{index}x", f"The {thing} of {town} was built by Mason{index}x."
        )
        for index, (thing, town) in enumerate(pairs)
    ]


def bm25(query: str, texts: list[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """BM25 in Lucene's form (Robertson and Zaragoza 2009), in float64."""
    words = [re.findall(r"\w\w+", text.lower()) for text in texts]
    mean = sum(map(len, words)) / len(words)
    scores = [0.0] * len(texts)
    for term in re.findall(r"\w\w+", query.lower()):
        holding = sum(term in document for document in words)
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        for index, document in enumerate(words):
            count = document.count(term)
            scores[index] += idf * count / (count + k1 * (1 - b + b * len(document) / mean))
    return scores


def test_ranking_is_bm25_without_passages_that_share_no_word() -> None:
    texts = ["red river bridge", "river river delta", "blue castle", "bridge", "green hills far away beyond river"]
    ranked = list(PassageIndex(Passage("", text) for text in texts).ranked("river bridge"))
    expected = bm25("river bridge", texts)
    assert [index for index, _ in ranked] == sorted((0, 1, 3, 4), key=lambda index: -expected[index])
    assert [score for _, score in ranked] == pytest.approx([expected[index] for index, _ in ranked], rel=1e-5)


def test_equal_scores_keep_the_order_and_equal_texts_count_once() -> None:
    passages = [Passage(title, text) for title, text in (("", "same here"), ("", "here same"), ("x", "same here"))]
    index = PassageIndex(passages)
    assert index.passages == passages[:2]
    assert [number for number, _ in index.ranked("same")] == [0, 1]


@pytest.mark.parametrize("query", ["", "?!", "unknown words", "a"])
def test_a_query_that_shares_no_word_finds_nothing(query: str) -> None:
    assert list(PassageIndex([Passage("", "some text"), Passage("", "more")]).ranked(query)) == []
    assert list(PassageIndex([Passage("", "..."), Passage("", "!")]).ranked("text")) == []


def test_every_record_is_official_with_the_gold_document_first() -> None:
    questions = some()
    built = build(questions, 5)
    assert built.left_out == {}
    assert Counter(record["question"] for record in built.records) == Counter(q.text for q in questions)
    for record in built.records:
        gold, *others = record["ctxs"]
        assert (gold["isgold"], gold["hasanswer"]) == (True, True)
        assert record["answers"][0] in gold["text"]
        assert len(others) == len({other["text"] for other in others} - {gold["text"]}) == 4
        assert all((other["isgold"], other["hasanswer"]) == (False, False) for other in others)
        scores = [float(other["score"]) for other in others]
        assert scores == sorted(scores, reverse=True)
        assert scores[-1] > 0
        ranks = [other["original_retrieval_index"] for other in others]
        assert ranks == [1, 2, 3, 4]  # the first is the gold passage itself
        thing, town = re.findall(r"the (\w+) of (\w+)", record["question"])[0]
        assert all(thing in other["text"] or town in other["text"] for other in others)


def test_distractors_contain_no_alias_in_title_or_text() -> None:
    asked = question("where is the blue bridge", "the Isle of Man", "The blue bridge is on the Isle of Man.", "Mann")
    corpus = [
        Passage("Blue bridge", "A blue bridge on an ISLE OF... MAN."),
        Passage("Isle of Man", "The bridge is blue."),
        Passage("Songs", "Thomas Mann wrote of a blue bridge."),
        Passage("Gold again", "the blue Bridge is on the isle of man"),
        Passage("One", "A blue bridge far away."),
        Passage("Two", "No bridge in sight."),
        Passage("Three", "Nothing to share."),
    ]
    (record,) = build([asked], 3, corpus).records
    assert [context["title"] for context in record["ctxs"]] == ["", "One", "Two"]
    assert [context["id"] for context in record["ctxs"][1:]] == ["4", "5"]
    with pytest.raises(DataError, match=r"none of 1 questions has 3 distractors without an answer; give a larger"):
        build([asked], 4, corpus)


def test_the_gold_text_is_no_distractor_even_where_it_names_no_answer() -> None:
    asked = question("is the bridge blue", "yes", "The bridge is as blue as the sky.")
    corpus = [Passage("x", "the bridge is as blue as the sky"), Passage("y", "A red bridge.")]
    (record,) = build([asked], 2, corpus).records
    assert [context["title"] for context in record["ctxs"]] == ["", "y"]
    assert record["ctxs"][0]["hasanswer"] is False


def test_excluded_questions_are_left_out_with_their_passages() -> None:
    questions = some()
    excluded = [q.text for q in questions[:10]]
    built = build(questions, 4, exclude=[*excluded, "another question"])
    assert built.left_out == {EXCLUDED: 10}
    assert not {record["question"] for record in built.records} & set(excluded)
    assert len(built.records) == 38
    shown = {context["text"] for record in built.records for context in record["ctxs"]}
    assert not shown & {q.gold.text for q in questions[:10]}
    with pytest.raises(DataError, match="all 48 questions are in the excluded files"):
        build(questions, 4, exclude=[q.text for q in questions])


def test_questions_with_too_few_distractors_are_left_out_and_counted() -> None:
    odd = question("unheard syllables", "none", "Something else.")
    built = build([odd, *some(16)], 4)
    assert built.left_out == {TOO_FEW: 1}
    assert len(built.records) == 16


def test_the_seed_draws_which_questions_and_limit_takes_the_first() -> None:
    questions = some()
    all_of_them = build(questions, 3, seed=7).records
    assert build(questions, 3, seed=7, limit=5).records == all_of_them[:5]
    other = build(questions, 3, seed=8, limit=5).records
    assert [record["question"] for record in other] != [record["question"] for record in all_of_them[:5]]
    backward = build(questions[::-1], 3, seed=7, limit=5).records
    assert [record["question"] for record in backward] == [record["question"] for record in all_of_them[:5]]


def test_progress_ends_at_the_goal() -> None:
    heard: list[tuple[int, int]] = []
    build(some(), 3, limit=6, on_progress=lambda done, total: heard.append((done, total)))
    assert heard == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(
    ("documents", "limit", "message"),
    [
        (1, None, "1 documents: expected at least 2"),
        (3, 0, "limit is 0 questions, expected at least 1"),
        (60, None, r"48 different passages: expected 59 or more for 60 documents; give a larger corpus \(--passages"),
    ],
)
def test_impossible_wishes_are_refused(documents: int, limit: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(some(), documents, limit=limit)


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(DataError, match="0 different passages: expected 1 or more"):
        build(some(), 2, [])


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz"])
def test_equal_records_give_equal_bytes_that_the_task_reads(tmp_path: Path, name: str) -> None:
    records = build(some(), 6).records
    for folder in ("a", "b"):
        write_records(tmp_path / folder / name, records)
    content = (tmp_path / "a" / name).read_bytes()
    assert content == (tmp_path / "b" / name).read_bytes()
    plain = gzip.decompress(content) if name.endswith(".gz") else content
    assert [json.loads(line) for line in plain.splitlines()] == records
    assert content[4:8] == bytes(4) or not name.endswith(".gz")  # no time in the header
    task = make_task("mdqa", TaskOptions(positions=6, data=tmp_path / "a" / name))
    assert task.positions == (0, 1, 2, 3, 4, 5)
    assert len(task.examples("all")) == 48 * 6


def test_the_same_records_on_every_machine() -> None:
    text = json.dumps([[context.get("id") for context in record["ctxs"]] for record in build(some(), 6).records])
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "6e09d52a2d6d0b25a1caaff2531d06ee95ed51ef2130e0e746cf444389b055f7"
    )


def test_files_of_passages_and_excluded_questions(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"title": "T", "text": "one"}\n{"text": "two"}\n')
    assert read_passages(path) == [Passage("T", "one"), Passage("", "two")]
    path.write_text('{"title": "T"}\n')
    with pytest.raises(DataError, match=r'p\.jsonl, line 1: field "text" is None'):
        read_passages(path)
    path.write_text('{"question": "who"}\n{"question": "what", "answers": 3}\n')
    assert read_excluded([path, path]) == {"who", "what"}
    assert read_excluded([]) == set()
    path.write_text('{"q": "who"}\n')
    with pytest.raises(DataError, match=r'p\.jsonl, line 1: field "question" is None'):
        read_excluded([path])


def test_a_flat_file_of_a_user_becomes_an_official_one(tmp_path: Path) -> None:
    flat, out = tmp_path / "flat.jsonl", tmp_path / "out.jsonl"
    lines = [{"question": q.text, "answers": [*q.answers, "*"], "title": "T", "text": q.gold.text} for q in some()]
    flat.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_records(out, build(read_questions(flat), 3).records)
    for question_ in read_questions(out):
        assert question_.blank == ()
        assert len(question_.distractors) == 2
        answer = normalize_answer(question_.answers[0])
        assert all(answer not in normalize_answer(passage.text) for passage in question_.distractors)
