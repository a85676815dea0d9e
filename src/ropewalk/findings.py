"""What a reader of figures must not miss: warnings that have a name, as JSON {name, message}.

"lost in the tail": the middle gains and the last position loses, as under uniform scaling (arXiv 2503.04355).
"short-context regression": factors that help in a long context cost in a short one, or in short texts.
"no U to mend": the model as it is does not lose the middle on this task, so factors can't mend that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ropewalk.comparison import ALPHA, metric_words
from ropewalk.results import PERPLEXITY_METRIC
from ropewalk.verdict import perplexity_change

Finding = dict[str, str]

MAX_PERPLEXITY_RISE = 1.0  # per cent


def findings(summary: Mapping[str, Any], arm: str = "factors") -> list[Finding]:
    """All that holds for the figures of a test or a profile.

    summary: `vanilla` (figures of one result), and where there are such `gain` (paired comparisons with vanilla by
    arm) and `short` (with a `gain` of the factors on the task's short form).
    """
    found = [no_u_to_mend(summary["vanilla"])]
    if "gain" in summary:
        found.append(lost_in_the_tail(summary["gain"][arm]))
    if summary.get("short"):
        found.append(short_context_regression(summary["short"]["gain"]))
    return [finding for finding in found if finding is not None]


def no_u_to_mend(vanilla: Mapping[str, Any]) -> Finding | None:
    """Whether the inner positions are on average no lower than the two ends; needs three positions.

    Where no answer at all is right the likelihoods tell. A plain text has no evidence, so no middle to lose.
    """
    if len(vanilla["accuracy"]) < 3 or vanilla["metric"] == PERPLEXITY_METRIC:
        return None
    if max(vanilla["accuracy"]) > 0:
        middle, ends = _middle_and_ends(vanilla["accuracy"])
        shown = f"{100 * middle:.1f} % at the inner positions, {100 * ends:.1f} % at the ends"
    elif None not in vanilla["nll"]:
        middle, ends = (-value for value in _middle_and_ends(vanilla["nll"]))
        shown = f"no right answer, log-likelihood {middle:.3f} at the inner positions, {ends:.3f} at the ends"
    else:
        return None
    if middle < ends:
        return None
    return _finding(
        "no U to mend",
        f"the model as it is does not lose the middle on this task ({shown}): more distractors, a longer context or "
        "another task may show a U",
    )


def lost_in_the_tail(gain: Mapping[str, Any]) -> Finding | None:
    """Whether the last position is significantly below vanilla's, by score or by log-likelihood (Holm-corrected)."""
    last = gain["positions"][-1]
    likelihood_p = gain["log_likelihood_p_holm"]
    rows = [(gain["metric"], gain["accuracy"][-1] * 100, "points", gain["accuracy_p_holm"][-1])]
    if likelihood_p is not None:
        difference = gain["log_likelihood"][-1]["difference"]
        rows.append(("the answer log-likelihood", difference, "nats a token", likelihood_p[-1]))
    losses = _losses(rows)
    if len(gain["positions"]) < 2 or not losses:
        return None
    return _finding(
        "lost in the tail",
        f"with the factors the last position (@{last}) is significantly below vanilla: {losses}, Holm-corrected; "
        "a larger weight of the last position (--weights) or a narrower range (--low, --high) may keep it",
    )


def short_context_regression(gain: Mapping[str, Any]) -> Finding | None:
    """Whether the average over the short task is significantly below vanilla's, by score or by log-likelihood."""
    score, likelihood = gain["average"], gain["average_log_likelihood"]
    rows = [(gain["metric"], score["difference"] * 100, "points", score["p"])]
    if likelihood["p"] is not None:
        rows.append(("the answer log-likelihood", likelihood["difference"], "nats a token", likelihood["p"]))
    losses = _losses(rows)
    if not losses:
        return None
    return _finding(
        "short-context regression",
        f"in a short context the factors are significantly below vanilla: {losses}; use them for long prompts only, "
        "or search in a narrower range (--low, --high)",
    )


def short_text_regressions(checks: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Of a result's `short_texts`: perplexity significantly up by more than 1 %, significantly fewer right choices.

    Over some thousand tokens the smallest change is significant, hence the limit.
    """
    losses = []
    for check in checks.values():
        gain = check["gain"]
        if check["vanilla"]["metric"] == PERPLEXITY_METRIC:
            rise, p = (
                perplexity_change(gain["average_log_likelihood"])["difference"],
                gain["average_log_likelihood"]["p"],
            )
            if rise is not None and rise > MAX_PERPLEXITY_RISE and p < ALPHA:
                losses.append(f"perplexity {rise:+.2g} % (p = {p:.2g})")
        else:
            score = gain["average"]
            losses += filter(
                None, [_losses([(metric_words(gain["metric"]), score["difference"] * 100, "points", score["p"])])]
            )
    if not losses:
        return []
    return [
        _finding(
            "short-context regression",
            f"short texts suffer: {' and '.join(losses)}; --max-short-perplexity forbids it in a search",
        )
    ]


def _losses(rows: list[tuple[str, float, str, float]]) -> str:
    """The rows that are significantly negative, in words."""
    return " and ".join(
        f"{name} {difference:+.3g} {unit} (p = {p:.2g})"
        for name, difference, unit, p in rows
        if difference < 0 and p < ALPHA
    )


def _middle_and_ends(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values[1:-1])), (values[0] + values[-1]) / 2


def _finding(name: str, message: str) -> Finding:
    return {"name": name, "message": message}
