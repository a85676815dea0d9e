"""The query before the context too: the official query-aware prompts, to the character."""

from __future__ import annotations

from pathlib import Path

import pytest

from ropewalk.comparators import make_comparator
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, Piece
from task_data import task_options


def example_of(*pieces: tuple[str, str]) -> Example:
    return Example("r@0", "r", 0, tuple(Piece(text, kind) for kind, text in pieces), ("x",))  # type: ignore[arg-type]


def asked(text: str, *pieces: tuple[str, str]) -> str:
    return make_comparator(text).example(example_of(*pieces)).prompt


@pytest.mark.parametrize("task", ["kv", "mdqa"])
def test_official_tasks_become_their_query_aware_variant(task: str, tmp_path: Path) -> None:
    options = task_options(task, tmp_path)
    plain = make_task(task, options).examples("search")
    official = make_task(task, task_options(task, tmp_path, options={"variant": "query-aware"})).examples("search")
    method = make_comparator("query-first")
    assert [method.example(example).prompt for example in plain] == [example.prompt for example in official]
    assert [example.id for example in plain] == [example.id for example in official]


def test_where_the_query_goes() -> None:
    query = ("query", "\n\nWho was it?\nAnswer:")
    assert asked("query-first", ("instruction", "Read.\n\nText:\n"), ("gold", "It was I."), query) == (
        "Read.\n\nWho was it?\n\nText:\nIt was I.\n\nWho was it?\nAnswer:"
    )
    assert asked("query-first", ("gold", "It was I."), query) == "Who was it?\n\nIt was I.\n\nWho was it?\nAnswer:"
    assert (
        asked("query-first", ("instruction", "Read: "), ("gold", "I."), ("query", " Who:")) == "Read: Who:\n\nI. Who:"
    )
    assert asked("query-first:2", ("gold", "I."), ("query", "Who?")) == "Who?\n\nWho?\n\nI.Who?"


@pytest.mark.parametrize(
    "pieces",
    [[("text", "No question at all.")], [("gold", "I.")], [("instruction", "Answer. "), ("query", "Who?")]],
)
def test_without_query_or_context_nothing_changes(pieces: list[tuple[str, str]]) -> None:
    example = example_of(*pieces)
    assert make_comparator("query-first").example(example) is example
