"""ROUGE of a generated summary, by the library rouge-score (ROUGE, Lin 2004; that library's Porter stemmer is on).

Its tokenizer keeps the letters a to z and digits alone: scores of languages in other scripts mean nothing, and
`has_words` says whether a text has anything to be scored at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

KINDS = ("rouge1", "rouge2", "rougeL")


def rouge(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (longest common subsequence of the whole text), each the best of the
    references; keys as in `KINDS`, values in [0, 1].
    """
    scores = [_scorer().score(reference, prediction) for reference in references]
    return {kind: max((float(score[kind].fmeasure) for score in scores), default=0.0) for kind in KINDS}


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """F1 of ROUGE-L, the best of the references: the headline of `summarize`."""
    return rouge(prediction, references)["rougeL"]


def has_words(text: str) -> bool:
    """Whether ROUGE's tokenizer finds a word in `text`."""
    return re.search(r"[a-z0-9]", text.lower()) is not None


@cache
def _scorer() -> Any:
    from rouge_score import rouge_scorer  # a second to import, and only summaries need it

    return rouge_scorer.RougeScorer(list(KINDS), use_stemmer=True)
