"""One sentence on a comparison: is anything worse?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ALPHA = 0.05
FEW = 3  # results that are named one by one

Row = Mapping[str, Any]


def verdict_sentence(rows: Sequence[Row]) -> str:
    """What the rows of `paired.compare` come to, those that were asked for. p-values are corrected for their number."""
    asked = [row for row in rows if row["asked"]]
    known = [row for row in asked if row["difference"]["p"] is not None]
    if not known:
        return "Nothing can be said: no result has an interval (fewer than two records, or values that are no numbers)."
    if all(row["difference"]["value"] == 0 for row in asked) and all(row["difference"]["p"] == 1 for row in known):
        return "No result differs between the arms."
    outside = [row for row in known if row["difference"]["p_holm"] < ALPHA]
    worse = [row for row in outside if gain(row) is not None and gain(row) < 0]  # type: ignore[operator]
    better = [row for row in outside if gain(row) is not None and gain(row) > 0]  # type: ignore[operator]
    changed = [row for row in outside if gain(row) is None]
    clauses = [
        *([f"{_listed(worse)} worse"] if worse else ["No task is worse beyond the noise"]),
        *([f"{_listed(better)} better"] if better else []),
        *([f"{_listed(changed)} different"] if changed else []),
    ]
    return f"{'; '.join(clauses)} ({_correction(len(known))}){'' if worse else _allowance(known)}."


def gain(row: Row) -> float | None:
    """The difference as a gain: below 0 is worse. None where the task does not say which direction is better."""
    difference, higher = row["difference"]["value"], row["higher_is_better"]
    if difference is None or higher is None:
        return None
    return float(difference if higher else -difference)


def label(row: Row) -> str:
    """The name of a result: its task and metric, and its filter where there is one."""
    kept = "" if row["filter"] == "none" else f", {row['filter']}"
    return f"{row['task']} ({row['metric']}{kept})"


def _listed(rows: Sequence[Row]) -> str:
    named = [f"{label(row)} by {abs(row['difference']['value']):.3g}" for row in rows[:FEW]]
    more = [f"{len(rows) - FEW} more"] if len(rows) > FEW else []
    words = [*named, *more]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"{listed} {'is' if len(rows) == 1 else 'are'}"


def _correction(results: int) -> str:
    return "p < 0.05" if results == 1 else f"p < 0.05 after Holm's correction for {results} results"


def _allowance(rows: Sequence[Row]) -> str:
    """How much worse a share of right answers may still be: no difference found is not no difference."""
    shares = [row for row in rows if row["difference"]["test"] == "McNemar" and row["higher_is_better"]]
    if not shares:
        return ""
    widest = min(shares, key=lambda row: row["difference"]["low"])
    low = widest["difference"]["low"]
    return f", but losses of up to {-low:.3f} in {label(widest)} are within its interval" if low < 0 else ""
