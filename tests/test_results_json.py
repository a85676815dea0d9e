"""Results as JSON, example by example, and back: exact, and with errors that name field and example."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ropewalk.errors import DataError
from ropewalk.results import TaskResult

ARRAYS = ("scores", "log_likelihoods", "margins", "answer_tokens")
LIKELIHOODS = st.floats(max_value=0) | st.just(math.nan)


@st.composite
def results(draw: st.DrawFn) -> TaskResult:
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 4)))
    graded = draw(st.booleans())
    texts = draw(st.lists(st.text(), min_size=math.prod(shape), max_size=math.prod(shape)) | st.none())
    return TaskResult(
        task={"task": "kv", "keys": 10, "text": draw(st.text())},
        positions=tuple(draw(st.lists(st.integers(0, 99), min_size=shape[1], max_size=shape[1], unique=True))),
        records=tuple(draw(st.lists(st.text(), min_size=shape[0], max_size=shape[0], unique=True))),
        scores=draw(arrays(np.float64, shape, elements=st.floats(0, 1) if graded else st.sampled_from([0.0, 1.0]))),
        log_likelihoods=draw(arrays(np.float64, shape, elements=LIKELIHOODS)),
        margins=draw(arrays(np.float64, shape, elements=st.floats())),
        answer_tokens=draw(arrays(np.int64, shape, elements=st.integers(0, 2**40))),
        metric=draw(st.text()),
        generated=draw(st.booleans()),
        graded=graded,
        texts=None if texts is None else tuple(tuple(texts[row :: shape[0]]) for row in range(shape[0])),
        groups=tuple(draw(st.lists(st.text(), min_size=shape[0], max_size=shape[0]))),
        skipped=tuple(draw(st.lists(st.text()))),
    )


@given(results())
def test_json_text_and_back_is_exact(one: TaskResult) -> None:
    again = TaskResult.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
    for name in TaskResult.__dataclass_fields__:
        if name in ARRAYS:
            np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
            assert getattr(again, name).dtype == getattr(one, name).dtype
        else:
            assert getattr(again, name) == getattr(one, name)


def small(**changes: Any) -> TaskResult:
    fields: dict[str, Any] = {
        "task": {"task": "kv"},
        "positions": (0, 4),
        "records": ("a", "b"),
        "scores": np.array([[1.0, 0.0], [0.0, 0.0]]),
        "log_likelihoods": np.array([[-0.25, -1.5], [math.nan, -math.inf]]),
        "margins": np.array([[0.5, 0.25], [math.nan, 0.125]]),
        "answer_tokens": np.array([[3, 3], [4, 4]]),
    }
    return TaskResult(**(fields | changes))


def test_one_object_an_example() -> None:
    document = small(texts=(("yes", "no"), ("", "?")), groups=("4k", "8k"), skipped=("c",), generated=True).to_dict()
    assert document["skipped"] == ["c"]
    assert (document["metric"], document["generated"], document["graded"]) == ("exact_match", True, False)
    assert document["examples"][1] == {
        "id": "a@4",
        "record": "a",
        "position": 4,
        "verdict": False,
        "score": 0.0,
        "log_likelihood": -1.5,
        "margin": 0.25,
        "tokens": 3,
        "group": "4k",
        "text": "no",
    }
    assert [example["log_likelihood"] for example in document["examples"][2:]] == [None, "-inf"]


def test_a_graded_score_has_no_verdict_and_no_answer_no_text() -> None:
    one = small(scores=np.array([[0.5, 1.0], [0.0, 0.25]]), graded=True)
    assert [example["verdict"] for example in one.to_dict()["examples"]] == [None] * 4
    assert all("text" not in example for example in one.to_dict()["examples"])
    with pytest.raises(DataError, match="exact_match is graded"):
        _ = one.verdicts


MISSING = object()


def changed(name: str, value: Any, where: dict[str, Any]) -> None:
    if value is MISSING:
        del where[name]
    else:
        where[name] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("score", MISSING, "example 'a@4' .*\"score\""),
        ("score", 0.5, 'field "score" is 0.5, expected 0 or 1'),
        ("score", None, 'field "score" is None, expected a number'),
        ("verdict", True, 'field "verdict" is True, expected False'),
        ("verdict", MISSING, '"verdict"'),
        ("log_likelihood", "low", "field \"log_likelihood\" is 'low', expected a number"),
        ("log_likelihood", MISSING, '"log_likelihood"'),
        ("margin", [], '"margin"'),
        ("tokens", 1.5, 'field "tokens" is 1.5, expected a whole number'),
        ("tokens", None, '"tokens"'),
        ("text", 3, 'field "text"'),
        ("position", 3, "each record at every one of the positions"),
        ("position", MISSING, 'no field "position"'),
        ("record", "z", "each record at every one of the positions"),
        ("record", 7, 'field "record" is 7, expected a str'),
    ],
)
def test_a_malformed_example_is_named(name: str, value: Any, message: str) -> None:
    document = small().to_dict()
    changed(name, value, document["examples"][1])
    with pytest.raises(DataError, match=message):
        TaskResult.from_dict(document)


@pytest.mark.parametrize("name", ["task", "positions", "metric", "generated", "graded", "skipped", "examples"])
@pytest.mark.parametrize("value", [MISSING, 7])
def test_a_malformed_document_is_named(name: str, value: Any) -> None:
    document = small().to_dict()
    changed(name, value, document)
    with pytest.raises(DataError, match=f'field "{name}"'):
        TaskResult.from_dict(document)


@pytest.mark.parametrize("document", [[], {}, {"vanilla": {}}])
def test_what_is_no_result(document: Any) -> None:
    with pytest.raises(DataError, match="a task result"):
        TaskResult.from_dict(document)


def test_an_empty_result_is_refused() -> None:
    with pytest.raises(DataError, match="0 examples of 0 records"):
        TaskResult.from_dict(small().to_dict() | {"examples": []})


def test_a_text_at_one_example_only_is_refused() -> None:
    document = small(texts=(("yes", "no"), ("", "?"))).to_dict()
    del document["examples"][2]["text"]
    with pytest.raises(DataError, match=r"example 'b@0' .* no field .text."):
        TaskResult.from_dict(document)


def test_the_documented_result_is_one() -> None:
    text = (Path(__file__).parent.parent / "docs" / "results.md").read_text()
    (block,) = re.findall(r"```json\n(.*?)```", text, re.S)
    assert TaskResult.from_dict(json.loads(block)).to_dict() == json.loads(block)


def test_the_documented_figures_are_those_there_are() -> None:
    text = (Path(__file__).parent.parent / "docs" / "results.md").read_text()
    one = small(metric="next_token_accuracy", groups=("4k", "8k"))
    for name in one.summary():
        assert name in text or name.removesuffix("_interval") in text
    documented = re.findall(r"^\| (`.*?) \|", text[: text.index("Beside the arms")], re.M)
    names = {name for row in documented for name in re.findall(r"`(\w+)`", row)} - {"_interval"}
    assert names <= set(one.summary())
