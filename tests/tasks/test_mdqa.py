"""The mdqa task: prompts against the official templates, numbering after placement, stable orders, wrong options."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropewalk.errors import DataError
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, TaskOptions

# The prompt files of the official evaluation (arXiv 2307.03172), with their fields for str.format.
QA = """Write a high-quality answer for the given question using only the provided search results (some of which might be irrelevant).

{search_results}

Question: {question}
Answer:"""  # noqa: E501
QA_RANDOM = """Write a high-quality answer for the given question using only the provided search results (some of which might be irrelevant). The search results are ordered randomly.

{search_results}

Question: {question}
Answer:"""  # noqa: E501
QA_QUERY_AWARE = """Write a high-quality answer for the given question using only the provided search results (some of which might be irrelevant).

Question: {question}

{search_results}

Question: {question}
Answer:"""  # noqa: E501
CLOSED_BOOK = """Question: {question}
Answer:"""
TEMPLATES = {"plain": QA, "oracle": QA, "closedbook": CLOSED_BOOK, "random": QA_RANDOM, "query-aware": QA_QUERY_AWARE}


def official_prompt(variant: str, question: str, documents: list[tuple[str, str]]) -> str:
    lines = [f"Document [{number + 1}](Title: {title}) {text}" for number, (title, text) in enumerate(documents)]
    return TEMPLATES[variant].format(question=question, search_results="\n".join(lines))


def document(name: str = "", documents: int = 5, gold: int = 0, **fields: Any) -> dict[str, Any]:
    contexts = [{"title": f"T{name}{i}", "text": f"text {name}{i}", "isgold": False} for i in range(documents)]
    contexts[gold] |= {"title": f"Gold {name}", "text": f"{{gold}} text {name}\nof two lines", "isgold": True}
    return {"question": f"what is {{it}} {name}", "answers": [f"answer {name}", "alias"], "ctxs": contexts} | fields


def texts(content: dict[str, Any]) -> tuple[tuple[str, str], list[tuple[str, str]]]:
    """Title and text of the gold document, and of the others."""
    pairs = [((c["title"], c["text"]), c["isgold"]) for c in content["ctxs"]]
    return next(pair for pair, gold in pairs if gold), [pair for pair, gold in pairs if not gold]


def write(path: Path, *documents: Any) -> Path:
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in documents)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def examples_of(path: Path, positions: Any = None, seed: int = 0, **options: Any) -> list[Example]:
    return make_task("mdqa", TaskOptions(positions, data=path, seed=seed, options=options)).examples("all")


@pytest.mark.parametrize("variant", ["plain", "query-aware"])
@pytest.mark.parametrize("gold", [0, 2, 4])
def test_the_gold_document_is_moved_and_the_prompt_is_official(tmp_path: Path, variant: str, gold: int) -> None:
    content = document(gold=gold)
    golden, others = texts(content)
    examples = examples_of(write(tmp_path / "q.jsonl.gz", content), (0, 1, 4), variant=variant)
    for example, place in zip(examples, (0, 1, 4), strict=True):
        documents = [*others[:place], golden, *others[place:]]
        assert example.prompt == official_prompt(variant, content["question"], documents)
        assert (example.gold_index, example.answers) == (place, ("answer ", "alias"))
        assert (example.opening, example.closing) == ("", "")
        golds = [piece.text for piece in example.pieces if piece.kind == "gold"]
        assert [text.rstrip("\n") for text in golds] == [f"Document [{place + 1}](Title: Gold ) {golden[1]}"]


def test_oracle_and_closed_book_have_one_position(tmp_path: Path) -> None:
    content = document(gold=3)
    path = write(tmp_path / "q.jsonl", content)
    (oracle,), (closed,) = examples_of(path, variant="oracle"), examples_of(path, variant="closedbook")
    assert oracle.prompt == official_prompt("oracle", content["question"], [texts(content)[0]])
    assert closed.prompt == official_prompt("closedbook", content["question"], [])
    assert oracle.gold_index == closed.gold_index == 0
    assert oracle.record == closed.record == examples_of(path)[0].record
    for variant in ("oracle", "closedbook"):
        with pytest.raises(DataError, match="expected different ascending 0-based places from 0 to 0"):
            examples_of(path, (0, 1), variant=variant)


def test_the_random_order_keeps_the_gold_place_and_is_the_same_at_every_position(tmp_path: Path) -> None:
    contents = [document(str(index), documents=9) for index in range(6)]
    path = write(tmp_path / "q.jsonl", *contents)
    orders = set()
    for number, content in enumerate(contents):
        golden, others = texts(content)
        examples = examples_of(path, (0, 4, 8), variant="random")[3 * number : 3 * number + 3]
        found = re.findall(r"\(Title: (.*?)\)", examples[0].prompt)[1:]
        order = [others[[title for title, _ in others].index(title)] for title in found]
        assert sorted(order) == sorted(others)
        for example, place in zip(examples, (0, 4, 8), strict=True):
            documents = [*order[:place], golden, *order[place:]]
            assert example.prompt == official_prompt("random", content["question"], documents)
        orders.add(tuple(others.index(pair) for pair in order))
    assert len(orders) > 3  # every record has its own order
    assert tuple(range(8)) not in orders


def test_the_random_order_follows_the_seed_and_nothing_else(tmp_path: Path) -> None:
    contents = [document(str(index), documents=9) for index in range(4)]
    one, other = write(tmp_path / "a.jsonl", *contents), write(tmp_path / "b.jsonl", *contents[::-1])
    prompts = {e.id: e.prompt for e in examples_of(one, variant="random", seed=3)}
    assert prompts == {e.id: e.prompt for e in examples_of(other, variant="random", seed=3)}
    assert prompts != {e.id: e.prompt for e in examples_of(one, variant="random", seed=4)}
    digest = hashlib.sha256("".join(prompts[key] for key in sorted(prompts)).encode()).hexdigest()
    assert digest == "d3ad134cc6a27f87abb7cc0eda6968b1e705fd5a8f4ed848e67c31829175e533"


def test_fewer_documents_are_the_gold_one_and_the_first_others(tmp_path: Path) -> None:
    content = document(documents=9, gold=8)
    golden, others = texts(content)
    path = write(tmp_path / "q.jsonl", content)
    (example,) = examples_of(path, (2,), documents=3)
    assert example.prompt == official_prompt("plain", content["question"], [*others[:2], golden])
    (shuffled,) = examples_of(path, (2,), documents="3", variant="random")
    assert sorted(re.findall(r"Title: (\w+)", shuffled.prompt)) == ["Gold", "T0", "T1"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.data())
def test_documents_are_numbered_from_one_in_the_order_shown(tmp_path: Path, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    shown = data.draw(st.integers(2, count))
    gold = data.draw(st.integers(0, count - 1))
    place = data.draw(st.integers(0, shown - 1))
    variant = data.draw(st.sampled_from(["plain", "random", "query-aware"]))
    path = write(tmp_path / "q.jsonl", document(documents=count, gold=gold))
    (example,) = examples_of(path, (place,), documents=shown, variant=variant)
    numbers = [int(number) for number in re.findall(r"^Document \[(\d+)\]\(Title: ", example.prompt, re.M)]
    assert numbers == list(range(1, shown + 1))
    assert example.prompt.count("{gold} text") == 1
    assert f"Document [{place + 1}](Title: Gold ) {{gold}} text" in example.prompt
    kinds = [piece.kind for piece in example.pieces if piece.kind in ("gold", "distractor")]
    assert kinds.index("gold") == place
    assert len(kinds) == shown


def test_by_default_all_documents_are_shown_at_five_positions(tmp_path: Path) -> None:
    task = make_task("mdqa", TaskOptions(data=write(tmp_path / "q.jsonl", document(documents=20))))
    assert task.positions == (0, 5, 10, 14, 19)
    assert task.settings()["documents"] == 20


def test_splits_are_by_question_and_limit_takes_the_first(tmp_path: Path) -> None:
    contents = [document(str(index)) for index in range(60)]
    forward, backward = write(tmp_path / "a.jsonl", *contents), write(tmp_path / "b.jsonl.gz", *contents[::-1])

    def records(path: Path, split: Any, limit: int | None = None) -> list[str]:
        options = TaskOptions(1, data=path, limit=limit, options={"variant": "oracle"})
        return [example.record for example in make_task("mdqa", options).examples(split)]

    parts = {split: records(forward, split) for split in ("search", "validation", "test")}
    assert sorted(record for part in parts.values() for record in part) == sorted(records(forward, "all"))
    assert all(parts.values())
    assert len(set(records(forward, "all"))) == 60
    assert all(set(records(backward, split)) == set(part) for split, part in parts.items())
    assert records(forward, "test", 3) == parts["test"][:3]
    assert parts["test"][0] == records(forward, "test", 1)[0]


def test_the_record_follows_the_question_alone(tmp_path: Path) -> None:
    examples = examples_of(write(tmp_path / "a.jsonl", document()), 2)
    other = examples_of(write(tmp_path / "b.jsonl", document("x"), document(documents=5, gold=3, answers=["b"])), 2)[2:]
    record = "mdqa-" + hashlib.sha256(b"what is {it} ").hexdigest()[:16]
    assert {example.record for example in [*examples, *other]} == {record}
    assert [example.id for example in examples] == [f"{record}@0", f"{record}@4"]


def test_short_is_the_oracle_variant_of_the_same_records(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", *(document(str(index)) for index in range(9)))
    options = TaskOptions(3, data=path, limit=4, options={"documents": 4, "variant": "random"})
    task = make_task("mdqa", options)
    short = task.short()
    assert short is not None
    oracle = make_task("mdqa", replace(options, positions=None, options={"variant": "oracle"}))
    assert short.examples("all") == oracle.examples("all")
    assert short.settings() == oracle.settings()
    assert [example.record for example in short.examples("all")] == [e.record for e in task.examples("all")[::3]]
    assert short.short() is None
    assert make_task("mdqa", replace(options, positions=None, options={"variant": "closedbook"})).short() is None


def test_aliases_that_match_everything_do_not_count_and_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", document(answers=["the symbol ×", "*", "a saltire"]), document("b"))
    task = make_task("mdqa", TaskOptions(data=path))
    example = task.examples("all")[0]
    assert example.answers == ("the symbol ×", "a saltire")
    assert task.settings()["blank_aliases"] == {example.record.removeprefix("mdqa-"): ["*"]}
    assert task.metric.score is not None
    assert task.metric.score("no idea", example.answers) == 0.0


def test_the_metric_is_generated_and_cut_at_the_first_line(tmp_path: Path) -> None:
    metric = make_task("mdqa", TaskOptions(data=write(tmp_path / "q.jsonl", document()))).metric
    assert (metric.name, metric.generated, metric.max_new_tokens) == ("best_subspan_em", True, 100)
    assert metric.stop == ("\n",)
    assert metric.score is not None
    assert metric.score("It is the Answer, x.\nmore", ("answer x",)) == 1.0
    assert metric.score("no\nanswer x", ("answer x",)) == 0.0


def test_settings_tell_what_makes_prompts_differ(tmp_path: Path) -> None:
    def settings_of(path: Path, seed: int = 0, **options: Any) -> dict[str, object]:
        return make_task("mdqa", TaskOptions(data=path, seed=seed, options=options)).settings()

    one, copy = write(tmp_path / "a.jsonl", document()), write(tmp_path / "b.jsonl.gz", document())
    assert settings_of(one) == settings_of(copy) == settings_of(one, seed=1, documents="5", variant="plain")
    different = [
        settings_of(one),
        settings_of(one, documents=4),
        settings_of(one, variant="query-aware"),
        settings_of(one, variant="random"),
        settings_of(one, variant="random", seed=1),
        settings_of(write(tmp_path / "c.jsonl", document("c"))),
    ]
    assert all(a != b for index, a in enumerate(different) for b in different[:index])
    assert all(json.loads(json.dumps(some)) == some for some in different)


def test_without_a_file_the_error_says_how_to_get_one() -> None:
    with pytest.raises(
        DataError, match=r"needs a file of questions \(--data FILE\).*ropewalk data official.*data mdqa"
    ):
        make_task("mdqa", TaskOptions())


@pytest.mark.parametrize(
    ("options", "own", "message"),
    [
        ({"keys": 10}, {}, "10 keys: task mdqa has none"),
        ({"limit": 0}, {}, "limit is 0 records"),
        ({"positions": 6}, {}, "6 positions among 5 places"),
        ({"positions": (0, 5)}, {}, "places from 0 to 4"),
        ({}, {"documents": 1}, "option 'documents' is 1, expected at least 2"),
        ({}, {"documents": "ten"}, "option 'documents' is 'ten', expected a whole number"),
        ({}, {"documents": 6}, "line 1: the record has 5 documents, option 'documents' asks for 6"),
        ({}, {"documents": 1, "variant": "oracle"}, "the variant oracle has its own number"),
        ({}, {"documents": 5, "variant": "closedbook"}, "the variant closedbook has its own number"),
        (
            {},
            {"variant": "shuffled"},
            "option 'variant' is 'shuffled', expected one of: plain, oracle, closedbook, ran",
        ),
    ],
)
def test_impossible_options_are_refused(
    tmp_path: Path, options: dict[str, Any], own: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "q.jsonl", document())
    with pytest.raises(DataError, match=message):
        make_task("mdqa", TaskOptions(data=path, options=own, **options))


def test_records_of_different_length_need_a_number(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", document("a", documents=5), document("b", documents=3))
    with pytest.raises(
        DataError, match="line 2: the record has 3 documents and others have more; with option documents=3"
    ):
        examples_of(path)
    assert {len(example.pieces) for example in examples_of(path, documents=3)} == {1 + 3 + 1}


def test_records_of_the_gold_document_alone_ask_for_another_variant(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", document(documents=1))
    with pytest.raises(DataError, match="line 1: the record has its gold document alone: use the variant oracle or"):
        examples_of(path)
    assert len(examples_of(path, variant="oracle")) == 1


def test_a_split_without_a_record_is_refused(tmp_path: Path) -> None:
    task = make_task("mdqa", TaskOptions(data=write(tmp_path / "q.jsonl", document())))
    empty = [split for split in ("search", "validation", "test") if not _has_records(task, split)]
    assert len(empty) == 2


def _has_records(task: Any, split: str) -> bool:
    try:
        return bool(task.examples(split))
    except DataError as error:
        assert f"q.jsonl: no record in the split '{split}'; --split all takes every record" in str(error)  # noqa: PT017
        return False
