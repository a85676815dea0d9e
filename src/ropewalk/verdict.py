"""What the figures of a test say, in words: the verdict, what the arms are called, whether a constraint holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ropewalk.comparison import ALPHA, metric_words

Figures = Mapping[str, Any]
LABELS = {  # of the arms, in the order in which they are shown
    "vanilla": "vanilla",
    "uniform": "uniform, same mean",
    "uniform_best": "best uniform",
    "line_best": "best line",
    "larger_search": "larger search",
    "published_mdqa": "published, mdqa",
    "published_kv": "published, kv",
    "factors": "found factors",
}

Verdict = Literal["mended", "likelier", "mixed", "unproven", "worse", "vanilla"]

HEADS: dict[Verdict, str] = {
    "mended": "Mended: better on records that the search has not seen, and nowhere worse outside the noise",
    "likelier": "Right answers become likelier outside the noise, but the share of them does not change measurably",
    "mixed": "Mixed: some of it is better and some of it worse, both outside the noise; look at the table before use",
    "unproven": "Not proven: on records that the search has not seen the difference is within the noise",
    "worse": "Not mended: on records that the search has not seen the factors are worse, so there is no checkpoint",
    "vanilla": "Not mended: nothing that was tried beats the model as it is, so there is no checkpoint",
}
CARRIES: tuple[Verdict, ...] = ("mended", "likelier", "mixed", "unproven")  # of which a checkpoint is written


def judge(result: Figures, is_identity: bool) -> Verdict:
    """What the test says: averages over the positions and each position, of every task, by score and by likelihood.

    Averages count from p < 0.05 on, positions where they are worse after Holm's correction: a model that lost its tail
    is not mended, whatever its average.
    """
    if is_identity:
        return "vanilla"
    gains = [block["gain"]["factors"] for block in result["tasks"].values()]
    scores, likelihoods = ([_sign(gain[key]) for gain in gains] for key in ("average", "average_log_likelihood"))
    worse = -1 in (*scores, *likelihoods) or any(map(_lost_positions, gains))
    if 1 not in (*scores, *likelihoods):
        return "worse" if worse else "unproven"
    if worse:
        return "mixed"
    return "mended" if 1 in scores else "likelier"


def constraint_sentence(check: Mapping[str, Any]) -> str:
    """Whether a constraint holds on the test records, with its figures."""
    value = "not finite" if check["value"] is None else f"{check['value']:+.3g}"
    holds = "holds" if check["holds"] else "does NOT hold"
    noise = "too few records to tell" if check["margin"] is None else f"noise {check['margin']:.2g}"
    figures = f"{value} {check['unit']}, limit {check['limit']:g}, {noise}"
    return f"Constraint {check['name']}: {holds} on the test ({figures})."


def short_text_sentences(checks: Mapping[str, Figures]) -> Iterator[str]:
    """What the factors do to short texts, a sentence a check, with intervals. checks: `short_texts` of a result."""
    for check in checks.values():
        before, after, gain = check["vanilla"], check["factors"], check["gain"]
        records = f"{before['records']} {'windows' if 'perplexity' in before else 'questions'}"
        if "perplexity" not in before:
            row, what, unit = gain["average"], metric_words(gain["metric"]), "points"
            values = [f"{100 * arm['average']:.1f} %" for arm in (before, after)]
            change = {name: None if row[name] is None else 100 * row[name] for name in ("difference", "low", "high")}
        else:
            row, what, unit = gain["average_log_likelihood"], "perplexity", "%"
            values = [_perplexity(arm["average_perplexity"]) for arm in (before, after)]
            change = perplexity_change(row)
        if change["difference"] is None:
            yield f"In short texts: {what} {values[0]}, with the factors not finite ({records})."
            continue
        size = f"{change['difference']:+.2g} {unit} [{change['low']:+.2g}, {change['high']:+.2g}], p = {row['p']:.2g}"
        yield f"In short texts: {what} {values[0]}, with the factors {values[1]} ({size}; {records})."


def perplexity_change(log_likelihood: Figures) -> dict[str, float | None]:
    """By how many per cent perplexity rises: from the difference of mean log-likelihoods, its interval turned round."""
    ends = {"difference": "difference", "low": "high", "high": "low"}
    return {
        name: None if log_likelihood[end] is None else 100 * math.expm1(-log_likelihood[end])
        for name, end in ends.items()
    }


def _perplexity(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _sign(row: Figures) -> int:
    """1 for a significant gain, -1 for a significant loss, else 0, also where something is not finite."""
    if row["p"] is None or row["p"] >= ALPHA:
        return 0
    return 1 if row["difference"] > 0 else -1


def _lost_positions(gain: Figures) -> list[int]:
    """The gold positions that are significantly worse, by score or by likelihood."""
    likelihoods = [row["difference"] for row in gain["log_likelihood"]]
    likelihood_p = gain["log_likelihood_p_holm"] or [1.0] * len(likelihoods)
    return [
        position
        for position, score, p, likelihood, other_p in zip(
            gain["positions"], gain["accuracy"], gain["accuracy_p_holm"], likelihoods, likelihood_p, strict=True
        )
        if (score < 0 and p < ALPHA) or (likelihood is not None and likelihood < 0 and other_p < ALPHA)
    ]
