"""Short texts before and after: what is read, what is said of it, and when it is a warning."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.comparison import compare
from ropewalk.errors import DataError
from ropewalk.events import Scored, Stage
from ropewalk.factors import ScalingFactors
from ropewalk.findings import short_text_regressions
from ropewalk.haystack import generated_sentences
from ropewalk.results import TaskResult
from ropewalk.short_texts import prompts_of, short_text_checks, short_text_test
from ropewalk.verdict import short_text_sentences


def test_both_checks_before_and_after(loaded: tuple[Any, Any]) -> None:
    checks, events = short_text_checks(*loaded, records=5), []
    assert list(checks) == ["perplexity", "choice"]
    assert [check.settings["data"] for check in checks.values()] == [
        [{"sha256": checks["choice"].settings["data"]["sha256"]}],
        checks["choice"].settings["data"],
    ]
    factors = ScalingFactors.uniform(1.5, 4)
    found = short_text_test(checks, factors, events.append)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name, check in checks.items():
        vanilla, patched = check.score(None), check.score(factors)
        assert found[name]["vanilla"]["average_nll"] == pytest.approx(-vanilla.log_likelihoods.mean())
        assert found[name]["gain"] == compare(vanilla, patched)
        assert found[name]["vanilla"]["records"] == 5
        assert check.settings["prompt"]["format"] == "plain"
    assert sum(event.prompts for event in events if isinstance(event, Scored)) == prompts_of(checks) == 20
    assert [event.name for event in events if isinstance(event, Stage)] == ["Short texts", "Short texts"]
    assert found["perplexity"]["gain"]["average_log_likelihood"]["difference"] != 0


def test_windows_fit_the_model_and_are_short(loaded: tuple[Any, Any], roomy_path: Path) -> None:
    from small_search import load

    model, tokenizer = loaded
    limit = model.config.max_position_embeddings
    assert short_text_checks(model, tokenizer, 2)["perplexity"].settings["options"]["window"] == limit - 2 < 512
    roomy = short_text_checks(*load(roomy_path), 2)["perplexity"]
    assert roomy.settings["options"]["window"] == 512


def test_as_many_as_the_test_has_records_up_to_a_limit(loaded: tuple[Any, Any]) -> None:
    checks = short_text_checks(*loaded, records=1000)
    assert [len(check.examples) for check in checks.values()] == [16, 100]


def test_a_text_of_ones_own(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("".join(generated_sentences("own", 900)))
    checks = short_text_checks(*loaded, records=2, source=str(path))
    assert checks["choice"].settings["data"] != short_text_checks(*loaded, records=2)["choice"].settings["data"]
    path.write_text("Too short.")
    with pytest.raises(DataError, match="give a longer text"):
        short_text_checks(*loaded, records=2, source=str(path))
    with pytest.raises(DataError, match="no such file"):
        short_text_checks(*loaded, records=2, source=str(tmp_path / "no.txt"))


def result(scores: Any, logs: Any, metric: str) -> TaskResult:
    scores, logs = np.array(scores, dtype=float)[:, None], np.array(logs, dtype=float)[:, None]
    names = tuple(f"r{row}" for row in range(len(scores)))
    graded = metric != "choice_accuracy"
    return TaskResult(
        task={}, positions=(0,), records=names, scores=scores, log_likelihoods=logs, margins=np.zeros_like(logs),
        answer_tokens=np.full(logs.shape, 100), metric=metric, generated=False, graded=graded,
    )  # fmt: skip


def checks_of(rise: float, lost: int, noise: float = 0.001) -> dict[str, Any]:
    """40 windows whose log-likelihood falls by `rise` on average, 40 questions of which `lost` are no longer right."""
    drawn = np.random.default_rng(0).normal(size=40) * noise
    logs = np.linspace(-3, -2, 40)
    texts = [result(np.full(40, 0.5), values, "next_token_accuracy") for values in (logs, logs - rise + drawn)]
    right = np.ones(40)
    fewer = right.copy()
    fewer[:lost] = 0
    questions = [result(values, -np.ones(40), "choice_accuracy") for values in (right, fewer)]
    return {
        name: {"vanilla": one.summary(), "factors": other.summary(), "gain": compare(one, other)}
        for name, (one, other) in {"perplexity": texts, "choice": questions}.items()
    }


def test_the_sentences_have_figures_and_intervals() -> None:
    checks = checks_of(rise=0.02, lost=8)
    texts, choice = short_text_sentences(checks)
    gain = checks["perplexity"]["gain"]["average_log_likelihood"]
    low, high = (100 * math.expm1(-gain[end]) for end in ("high", "low"))
    assert low < 100 * math.expm1(-gain["difference"]) < high
    assert f"({100 * math.expm1(-gain['difference']):+.2g} % [{low:+.2g}, {high:+.2g}], p = {gain['p']:.2g}" in texts
    assert texts.startswith("In short texts: perplexity 12.")
    assert texts.endswith("40 windows).")
    assert "choice accuracy 100.0 %, with the factors 80.0 % (-20 points [" in choice
    assert choice.endswith("40 questions).")


def test_what_is_not_finite_is_said() -> None:
    checks = checks_of(rise=math.nan, lost=0)
    assert next(short_text_sentences(checks)).endswith("with the factors not finite (40 windows).")
    assert short_text_regressions(checks) == []


@pytest.mark.parametrize(
    ("rise", "lost", "noise", "words"),
    [
        (0.0, 0, 0.001, None),
        (0.005, 0, 0.001, None),  # significant, and next to nothing
        (0.05, 0, 1.0, None),  # much, and within the noise
        (-0.05, 0, 0.001, None),
        (0.05, 0, 0.001, "perplexity +5"),
        (0.0, 12, 0.001, "choice accuracy -30 points"),
    ],
)
def test_a_real_loss_is_a_warning(rise: float, lost: int, noise: float, words: str | None) -> None:
    found = short_text_regressions(checks_of(rise, lost, noise))
    assert [one["name"] for one in found] == ([] if words is None else ["short-context regression"])
    if words is not None:
        assert words in found[0]["message"]
