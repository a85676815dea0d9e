"""Differences as points with intervals, in the form that `ropewalk.report.intervals` draws."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def point(arm: str, x: object, row: Json) -> list[Json]:
    """One point of an arm at x; none where the difference is not finite."""
    if row["difference"] is None:
        return []
    return [{"arm": arm, "x": x, "y": row["difference"], "low": row["low"], "high": row["high"]}]
