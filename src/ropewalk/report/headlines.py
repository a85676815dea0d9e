"""What a run came to, in the words of the page's headline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ropewalk.verdict import Verdict


@dataclass(frozen=True)
class Headline:
    """tone: decides the colour. badge: in a few words. meaning: in a sentence."""

    tone: Literal["good", "mixed", "bad", "plain"]
    badge: str
    meaning: str


HEADLINES: Mapping[Verdict, Headline] = {
    "mended": Headline(
        "good",
        "Better than vanilla",
        "Better on records that the search has not seen, and nowhere worse outside the noise.",
    ),
    "likelier": Headline(
        "good",
        "Likelier answers, not more of them",
        "The right answers become likelier, outside the noise; of a gain in accuracy there is none beyond noise.",
    ),
    "mixed": Headline(
        "mixed",
        "Mixed",
        "Some of it is better and some of it worse, both outside the noise: look at the positions before use.",
    ),
    "unproven": Headline(
        "plain",
        "No gain beyond noise",
        "On records that the search has not seen the difference to vanilla is within the noise.",
    ),
    "worse": Headline(
        "bad",
        "Worse than vanilla",
        "On records that the search has not seen the factors are worse: do not use them.",
    ),
    "vanilla": Headline("plain", "Vanilla stays", "Nothing that was tried beats the model as it is."),
}
UNFINISHED = Headline("plain", "Unfinished", "There is no test yet, so nothing can be said of a gain.")
