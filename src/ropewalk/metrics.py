"""The official metrics of generated answers: best-subspan exact match and the substring rule of kv retrieval.

Source: the evaluation code of "Lost in the Middle" (arXiv 2307.03172), to the character.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import regex  # not re: a combining mark belongs to its word here, and an article before one is not an article

_ARTICLES = regex.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces.

    Other punctuation stays (“quotes”, dashes, ×); what stood around removed punctuation is joined ("a-b" gives "ab").
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def best_subspan_em(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the prediction's first line contains one of the answers, both normalised, else 0.0.

    The first line ends at the first newline character, so a prediction that begins with one is empty. No answers: 0.0.
    An answer of which normalisation leaves nothing ("", "*", "the") is contained in every prediction, the empty one
    included, as officially: leave such answers out before (`blank_answers` names them), as the task mdqa does.
    """
    first_line = normalize_answer(prediction.split("\n")[0].strip())
    return float(any(normalize_answer(answer) in first_line for answer in answers))


def blank_answers(answers: Sequence[str]) -> list[str]:
    """The answers of which normalisation leaves nothing: with one of them, best-subspan EM is always 1."""
    return [answer for answer in answers if not normalize_answer(answer)]


def kv_match(prediction: str, value: str) -> float:
    """1.0 if the prediction contains the value, whatever the case, else 0.0; lines are not cut.

    An empty value is contained in everything, as officially; the task kv refuses records with one.
    """
    return float(value.lower() in prediction.lower())
