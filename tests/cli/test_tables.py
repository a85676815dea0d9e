"""Tables and sentences from real figures: verdicts, graded scores, groups, plain texts; warnings and remarks."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ropewalk.cli import tables
from ropewalk.comparison import compare
from ropewalk.findings import findings
from ropewalk.results import OWN_LOOP, TaskResult
from ropewalk.verdict import LABELS

ARMS = {"vanilla": "vanilla", "factors": "found factors"}
# The most arms that one result has.
DEMO = [name for name in LABELS if not name.startswith("published")]
PAPER = ["vanilla", "uniform", "published_mdqa", "published_kv", "factors"]


def result(scores: Any, **changes: Any) -> TaskResult:
    scores = np.asarray(scores, dtype=np.float64)
    fields: dict[str, Any] = {
        "task": {"task": "kv"},
        "positions": tuple(range(0, 10 * scores.shape[1], 10)),
        "records": tuple(str(row) for row in range(len(scores))),
        "scores": scores,
        "log_likelihoods": np.full(scores.shape, -0.5),
        "margins": np.ones(scores.shape),
        "answer_tokens": np.ones(scores.shape, dtype=np.int64),
    }
    return TaskResult(**(fields | changes))


def summary(vanilla: TaskResult, factors: TaskResult, **more: Any) -> dict[str, Any]:
    figures = {
        "positions": list(vanilla.positions),
        "engine": OWN_LOOP,
        "vanilla": vanilla.summary(),
        "factors": factors.summary(),
        "gain": {"factors": compare(vanilla, factors)},
        **more,
    }
    return figures | {"warnings": findings(figures)}


def shown(*parts: Any, width: int = 120) -> str:
    screen = Console(width=width, record=True, file=io.StringIO())
    for part in parts:
        screen.print(part)
    return screen.export_text()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


U = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])


def test_verdicts() -> None:
    text = shown(*tables.figures(summary(result(U), result(np.ones((4, 3)))), ARMS))
    assert ["@10", "25", "[5–70]", "100", "[51–100]"] in rows(text)
    assert ["found", "factors", "███", "100.0"] in [row[:4] for row in rows(text)]
    assert ["vanilla", "█▃▇", "66.7"] in [row[:3] for row in rows(text)]
    assert ["@0", "0.5000", "0.5000"] in rows(text)
    assert "group" not in text
    assert "perplexity" not in text


def test_graded_scores_are_named() -> None:
    graded = {"graded": True, "metric": "rouge_l", "generated": True}
    figures = summary(result(U / 2, **graded), result(U, **graded))
    text = shown(*tables.figures(figures, ARMS))
    assert "rouge l, %" in text
    gain = shown(tables.gain_table({"over vanilla": figures["gain"]["factors"]}))
    assert ["rouge", "l,", "points", "+33.3"] in [row[:4] for row in rows(gain)]
    assert "rouge l, points" in shown(tables.position_table(figures["gain"]["factors"]))


def test_groups_are_rows() -> None:
    groups = ("4k", "8k", "8k", "4k")
    text = shown(*tables.figures(summary(result(U, groups=groups), result(U, groups=groups)), ARMS))
    assert text.count("by group:") == 1
    assert [row[:2] for row in rows(text)[-2:]] == [["4k", "66.7"], ["8k", "66.7"]]
    named = ("runs/a-folder-of-long-texts/[a]-novel.txt", "8k", "8k", "runs/a-folder-of-long-texts/[a]-novel.txt")
    text = shown(*tables.figures(summary(result(U, groups=named), result(U, groups=named)), ARMS))
    assert "…ong-texts/[a]-novel.txt" in text


def test_plain_texts_have_a_perplexity() -> None:
    names = {"graded": True, "metric": "next_token_accuracy", "groups": ("a.txt", "a.txt", "b.txt", "b.txt")}
    text = shown(*tables.figures(summary(result(U / 2, **names), result(U / 2, **names)), ARMS))
    assert text.count("(perplexity)") == 3  # average, by position, by group
    assert ["@10", "0.5000", "(1.65)", "0.5000", "(1.65)"] in rows(text)
    assert "next token" in text
    assert ["a.txt", "0.5000", "(1.65)", "0.5000", "(1.65)"] in rows(text)


def test_remarks_say_what_was_left_out_what_failed_and_what_is_lost() -> None:
    likelihoods = np.full((12, 3), -0.5)
    worse = likelihoods - np.array([0.0, 0.0, 1.0])
    worse[0, 0] = np.nan
    right = np.ones((12, 3))
    vanilla = result(right, skipped=("a", "b"))
    factors = result(right * [1, 1, 0], log_likelihoods=worse, skipped=("a", "b"))
    short = {"vanilla": vanilla.summary(), "gain": compare(vanilla, factors)}
    lines = [text.plain for text in tables.remarks(summary(vanilla, factors, short=short), ARMS)]
    assert lines[0] == "2 records were left out at every position: a prompt of theirs is over the model's limit."
    assert lines[1] == "found factors: 1 log-likelihoods are not finite and count as wrong."
    assert lines[2] == "In a short context (12 records): accuracy -33.3 points, log-likelihood – nats/token."
    assert [line.split(": ")[1] for line in lines[3:]] == [
        "no U to mend", "lost in the tail", "short-context regression",
    ]  # fmt: skip
    assert list(tables.remarks(summary(result(U), result(U)), ARMS)) == []
    slower = summary(result(U), result(U), engine="model.forward, for it is a mamba")
    (line,) = tables.remarks(slower, ARMS)
    assert line.plain == "Scored by model.forward, for it is a mamba: slower, and no less right."


@pytest.mark.parametrize(
    ("right", "says"),
    [
        ((40, 2, 40), "The middle is lost: worst inner position 5 %, ends 100 %"),
        ((20, 18, 20), "the intervals overlap"),
        ((20, 30, 20), ""),
        ((20, 10), "Give three or more positions"),
        ((20,), ""),
    ],
)
def test_the_shape(right: tuple[int, ...], says: str) -> None:
    block = result([[float(row < count) for count in right] for row in range(40)]).summary()
    sentence = tables.shape_sentence(block)
    assert says in sentence
    assert bool(sentence) == bool(says)


def test_the_shape_where_nothing_is_right() -> None:
    likelihoods = np.full((4, 3), -0.5) - [0, 1, 0]
    block = result(np.zeros((4, 3)), log_likelihoods=likelihoods).summary()
    assert "No answer is right" in tables.shape_sentence(block)


def test_bars_of_eight_heights() -> None:
    assert tables.sparkline([0.0, 0.124, 0.126, 0.5, 0.99, 1.0]) == "▁▁▂▅██"
    many = tables.sparkline([1.0] * 30 + [0.0] * 30)
    assert many == "█" * 10 + "▁" * 10


def test_one_arm_has_its_figures_in_one_table() -> None:
    text = shown(*tables.figures(summary(result(U), result(U)), {"vanilla": "vanilla"}))
    assert ["@10", "25", "[5–70]", "0.5000"] in rows(text)
    assert text.count("@10") == 1


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"metric": "next_token_accuracy", "graded": True},
        {
            "metric": "best_subspan_em",
            "generated": True,
            "groups": ("a/folder/of/texts/with-a-long-name.txt", "8k") * 6,
        },
    ],
)
@pytest.mark.parametrize("labels", [["vanilla"], ["vanilla", "factors"], DEMO, PAPER])
def test_all_arms_of_a_search_fit_80_columns(more: dict[str, Any], labels: list[str]) -> None:
    """Ten positions, five-digit ones among them; every cell at its widest."""
    positions = tuple(range(10000, 10010))
    found = result(np.ones((12, 10)), positions=positions, log_likelihoods=np.full((12, 10), -12.3456), **more)
    arms = {name: LABELS[name] for name in labels}
    comparison = compare(found, found)
    figures = summary(found, found, gain={"factors": comparison}) | {name: found.summary() for name in arms}
    over = {f"found factors over {label}": comparison for label in arms.values()}
    parts = [*tables.figures(figures, arms), tables.position_table(comparison), tables.gain_table(over)]
    text = shown(*parts, width=80)
    assert max(map(len, text.splitlines())) <= 80
    whole = shown(*parts, width=300)
    assert [line.rstrip() for line in text.splitlines()] == [
        line.rstrip() for line in whole.splitlines()
    ]  # nothing cut
    assert "100 [76–100]" in text
    assert ("(2.3e+05)" in text) == (more.get("metric") == "next_token_accuracy")
    assert text.count("█" * 10) == len(arms)
    assert ("by group" in text) == ("groups" in more)
