"""The choice task: passages and their continuations, a user's questions, and the choice that is the model's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.builtin_text import builtin_text
from ropewalk.errors import DataError, PrerequisiteError
from ropewalk.evaluate import Evaluator
from ropewalk.prompts import PromptRenderer
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

WORDS = [f"w{index}" for index in range(2000)]


def choice(data: Path | None = None, limit: int | None = None, seed: int = 0, **own: Any) -> Any:
    return make_task("choice", TaskOptions(None, None, data, limit, seed, own))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(" \n".join(WORDS))
    return path


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_first_choice_goes_on_and_the_others_stand_elsewhere_in_the_same_part(text: Path) -> None:
    shares = {"search": (0, 800), "validation": (800, 1200), "test": (1200, 2000)}
    for split, (low, high) in shares.items():
        for example in choice(text, passage=10, continuation=4).examples(split):
            passage = [int(word[1:]) for word in example.prompt.split()]
            assert passage == list(range(passage[0], passage[0] + 10))
            right, *wrong = ([int(word[1:]) for word in answer.split()] for answer in example.answers)
            assert right == list(range(passage[-1] + 1, passage[-1] + 5))
            assert len(wrong) == 3
            for other in wrong:
                assert other == list(range(other[0], other[0] + 4))
                assert not set(other) & {*passage, *right}
            assert all(low <= place < high for part in (passage, right, *wrong) for place in part)


def test_passages_do_not_overlap_and_follow_the_seed(text: Path) -> None:
    examples = choice(text, passage=10, continuation=4).examples("test")
    used = [word for example in examples for word in f"{example.prompt} {example.answers[0]}".split()]
    assert len(used) == len(set(used)) == 57 * 14
    assert examples == choice(text, passage=10, continuation=4).examples("test")
    other = choice(text, passage=10, continuation=4, seed=1).examples("test")
    assert [one.record for one in other] != [one.record for one in examples]
    assert {one.record for one in other} == {one.record for one in examples}


def test_without_data_the_built_in_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(builtin_text()) > 140_000
    examples = choice().examples("test")
    assert len(examples) == 100
    words = builtin_text().split()
    first = words.index("Special")  # the chapter on special method names comes first, so in the search's part
    assert first < 0.4 * len(words)
    assert choice().settings()["data"] == make_task("choice", TaskOptions(data="builtin")).settings()["data"]
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(PrerequisiteError, match="installed without its help texts"):
        choice().examples("test")


def test_a_users_questions_keep_their_choices(tmp_path: Path) -> None:
    lines = [
        {"prompt": "Two and two are", "choices": ["three", "four", "five"], "answer": 1},
        {"prompt": "The sky is", "choices": ["green", "blue"], "answer": "blue"},
    ]
    one, two = choice(write(tmp_path / "a.jsonl", *lines)).examples("all")
    assert (one.prompt, one.answers) == ("Two and two are", ("four", "three", "five"))
    assert two.answers == ("blue", "green")
    assert one.record != two.record


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"choices": ["a", "b"], "answer": 0}, 'field "prompt" is None'),
        ({"prompt": "x", "choices": "ab", "answer": 0}, 'field "choices" is'),
        ({"prompt": "x", "choices": ["a"], "answer": 0}, "expected at least two different ones"),
        ({"prompt": "x", "choices": ["a", "a"], "answer": 0}, "expected at least two different ones"),
        ({"prompt": "x", "choices": ["a", "b"], "answer": 2}, 'field "answer" is 2'),
        ({"prompt": "x", "choices": ["a", "b"], "answer": True}, 'field "answer" is True'),
        ({"prompt": "x", "choices": ["a", "b"]}, 'field "answer" is None'),
    ],
)
def test_a_malformed_line_names_file_line_and_field(line: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: ") as caught:
        choice(write(tmp_path / "a.jsonl", line)).examples("all")
    assert words in str(caught.value)


def test_what_cannot_be_asked_is_said(text: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="option 'choices' is 1, expected at least 2"):
        choice(text, choices="1")
    with pytest.raises(DataError, match="give a longer text or shorter passages"):
        choice(text, passage=700).examples("test")
    same = tmp_path / "same.txt"
    same.write_text("word " * 2000)
    with pytest.raises(DataError, match="too few different continuations"):
        choice(same).examples("test")
    twice = {"prompt": "x", "choices": ["a", "b"], "answer": 0}
    with pytest.raises(DataError, match=r"line 2: the same question as in .*line 1"):
        choice(write(tmp_path / "a.jsonl", twice, twice)).examples("all")


def test_the_models_choice_is_the_likeliest_a_token(loaded: tuple[Any, Any], text: Path) -> None:
    """Against each choice scored on its own, as an answer."""
    model, tokenizer = loaded
    task = choice(text, limit=6, passage=8, continuation=3)
    examples = task.examples("test")
    result = Evaluator(model, tokenizer, task, examples, chat_template=False).score(None)
    renderer = PromptRenderer(tokenizer, chat_template=False)
    assert result.metric == "choice_accuracy"
    for row, example in enumerate(examples):
        means = [mean_log_likelihood(model, prompt) for prompt in renderer.render_all(example)]
        assert result.scores[row, 0] == float(means[0] > max(means[1:]))
        assert result.log_likelihoods[row, 0] == pytest.approx(means[0], abs=1e-4)
        assert result.margins[row, 0] == pytest.approx(abs(means[0] - max(means[1:])), abs=1e-4)


def mean_log_likelihood(model: Any, prompt: Any) -> float:
    import torch

    ids = torch.tensor([prompt.ids])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double().log_softmax(-1)
    steps = range(prompt.first, len(prompt.ids))
    return float(np.mean([float(logits[step - 1, prompt.ids[step]]) for step in steps]))
