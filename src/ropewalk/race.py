"""Racing: a candidate that a paired test already puts below its rival stops before it has seen all prompts.

All candidates see the same records in the same order, so the difference from the rival on the first of them is paired,
record by record. The test is a one-sided t-test (Student) after each stage. What it asks is how the whole of these
records will come out, which are not many, so the error is that of a sample without replacement. The level is strict,
for the test is made several times, and a good candidate that is stopped is lost (later generations are then made of
other parents, and end elsewhere), while a bad one that goes on only costs prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from scipy import special

Rows = tuple[tuple[int, ...], ...]  # for each task the records, by their row

LEVEL = 0.005  # one-sided, at each stage
FEWEST = 4  # records of a task that a stage sees at least: fewer have no variance to speak of
SHARES = (0.25, 0.5, 0.75)  # of the records, seen after each stage but the last


def stages(rows: Rows) -> list[Rows]:
    """The records of each stage; together they are all of `rows`, in their order."""
    bounds = [[0] * len(rows)]
    for share in SHARES:
        bound = [min(len(own), max(FEWEST, round(share * len(own)))) for own in rows]
        if bound != bounds[-1]:
            bounds.append(bound)
    whole = [len(own) for own in rows]
    if bounds[-1] != whole:
        bounds.append(whole)
    return [
        tuple(own[low:high] for own, low, high in zip(rows, start, stop, strict=True))
        for start, stop in pairwise(bounds)
    ]


def is_behind(difference: tuple[float, float] | None, seen: Sequence[int], of: Sequence[int]) -> bool:
    """Whether a difference from the rival, (mean, standard error), will beyond doubt be below zero over all records.

    seen: how many records of each task it was taken over; of: how many there are. None is a difference that can't be
    tested. The mean over all N is off the mean over n of them by the standard error times sqrt(1 - n / N).
    """
    if difference is None or min(seen) < 2:
        return False
    left = max(1 - own / whole for own, whole in zip(seen, of, strict=True))
    mean, error = difference[0], difference[1] * math.sqrt(left)
    return bool(mean + float(special.stdtrit(min(seen) - 1, 1 - LEVEL)) * error < 0)
