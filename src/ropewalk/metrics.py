"""The official metrics of generated answers: best-subspan exact match and the substring rule of kv retrieval.

Source: the evaluation code of "Lost in the Middle" (arXiv 2307.03172), to the character.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def best_subspan_em(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the prediction's first line contains one of the answers, both normalised, else 0.0."""
    first_line = normalize_answer(prediction.split("\n")[0].strip())
    return float(any(normalize_answer(answer) in first_line for answer in answers))


def kv_match(prediction: str, value: str) -> float:
    """1.0 if the prediction contains the value, whatever the case, else 0.0; lines are not cut."""
    return float(value.lower() in prediction.lower())
