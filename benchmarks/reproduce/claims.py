"""The paper's claims about the search, each as two arms at an equal budget, compared seed by seed.

    python benchmarks/search_efficiency.py run --model HuggingFaceTB/SmolLM2-135M-Instruct --arms claims --out FILE
    python benchmarks/reproduce/claims.py FILE...

A seed gives both arms the same search records, and all runs are tested on the same held-out records. The interval is
Student's over seeds of the difference of two test scores: it says how sure the claim is for this model and these test
records, whatever the search records and the search's luck. Holm's correction is over the claims of a table. The last
column is the spread over seeds of the first arm: how much the result depends on the search set.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the benchmarks share

from ropewalk import stats
from search_efficiency import read, setting_of
from tables import markdown

ALPHA = 0.05


@dataclass(frozen=True)
class Claim:
    """`one` finds better factors than `other`. by: which score of the test decides."""

    text: str
    one: str
    other: str
    by: str = "likelihood_gain"


NATS, POINTS, WORST = "likelihood_gain", "accuracy_gain", "worst_gain"
UNITS = {NATS: ("nats", 1, 4), POINTS: ("points", 100, 1), WORST: ("points, worst", 100, 1)}
CLAIMS = (
    Claim("layer-specific beats uniform", "bezier-ga", "uniform"),
    Claim("layer-specific beats uniform, our search", "default", "uniform"),
    Claim("a curve beats a line", "bezier-ga", "line"),
    Claim("a curve beats free factors, same algorithm", "bezier-ga", "layerwise-ga"),
    Claim("a curve by the paper's algorithm beats our free search", "bezier-ga", "default"),
    Claim("2 control points beat 4", "bezier-ga, 2 points", "bezier-ga"),
    Claim("3 control points beat 4", "bezier-ga, 3 points", "bezier-ga"),
    Claim("6 control points beat 4", "bezier-ga, 6 points", "bezier-ga"),
    Claim("factors from 1 are enough, curve", "bezier-ga, factors from 1", "bezier-ga"),
    Claim("factors from 1 are enough, free", "factors from 1", "default"),
    Claim("the first two layers are best left alone, curve", "bezier-ga, first 2 layers alone", "bezier-ga"),
    Claim("the first two layers are best left alone, free", "first 2 layers alone", "default"),
    Claim("accuracy as fitness beats likelihood, curve, by accuracy", "bezier-ga, accuracy", "bezier-ga", POINTS),
    Claim("accuracy as fitness beats likelihood, free, by accuracy", "accuracy", "default", POINTS),
    Claim("U beats the mean, free, by average accuracy", "default", "mean", POINTS),
    Claim("U beats the mean, curve, by average accuracy", "bezier-ga", "bezier-ga, mean", POINTS),
    Claim("U beats the worst position, free, by worst accuracy", "default", "worst, 4 records", WORST),
    Claim("U beats the worst position, curve, by worst accuracy", "bezier-ga", "bezier-ga, worst", WORST),
    Claim("λ 0.5,1,1.5 beats 0.8,1,1.2, by accuracy", "weights 0.5,1,1.5", "default", POINTS),
    Claim("λ 1,1,1 beats 0.8,1,1.2, by accuracy", "weights 1,1,1", "default", POINTS),
    Claim("λ 0.5,2,0.5 beats 0.8,1,1.2, by accuracy", "weights 0.5,2,0.5", "default", POINTS),
    Claim("λ 1.2,1,0.8 beats 0.8,1,1.2, by accuracy", "weights 1.2,1,0.8", "default", POINTS),
    Claim("the paper's algorithm with our bounds beats ours", "paper, our bounds", "default"),
)


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each claim whose arms have runs: differences over their common seeds, interval, p, and p by Holm."""
    found = []
    for claim in CLAIMS:
        one, other = (
            {row["seed"]: row[claim.by]["difference"] for row in rows if row["arm"] == arm}
            for arm in (claim.one, claim.other)
        )
        seeds = sorted(set(one) & set(other))
        if not seeds:
            continue
        differences = np.array([one[seed] - other[seed] for seed in seeds])
        found.append({"claim": claim, "seeds": len(seeds), "spread": _spread(list(one.values())), **_t(differences)})
    tested = [row for row in found if row["p"] is not None]
    for row, p in zip(tested, stats.holm([row["p"] for row in tested]) if tested else [], strict=True):
        row["p_holm"] = float(p)
    return found


def _t(differences: np.ndarray) -> dict[str, Any]:
    """Mean with Student's 95 % interval and two-sided p; without interval for a single seed."""
    count, mean = len(differences), float(differences.mean())
    if count < 2:
        return {"difference": mean, "low": None, "high": None, "p": None}
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    half = float(special.stdtrit(count - 1, 1 - ALPHA / 2)) * error
    p = 2 * float(special.stdtr(count - 1, -abs(mean) / error)) if error else float(mean == 0)
    return {"difference": mean, "low": mean - half, "high": mean + half, "p": p}


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def verdict(row: dict[str, Any]) -> str:
    """What the interval says: a claim counts as decided if Holm's p is below 5 %."""
    if row["p"] is None:
        return "one seed: not decided"
    if row["p_holm"] >= ALPHA:
        return "not decided"
    return "confirmed" if row["difference"] > 0 else "refuted"


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a table for each model, number of keys, budget and prompt."""
    parts = []
    for setting in dict.fromkeys(map(setting_of, rows)):
        model, keys, budget, prompt = setting
        lines = compared([row for row in rows if setting_of(row) == setting])
        if lines:
            words = "chat template" if prompt == "chat" else "bare prompt"
            title = f"**{model}, {keys} keys, {words}, {budget:,} evaluations a run.**"
            parts.append(f"{title}\n\n{markdown([_line(line) for line in lines])}")
    return "\n\n".join(parts)


def _line(row: dict[str, Any]) -> dict[str, Any]:
    claim = row["claim"]
    unit, scale, digits = UNITS[claim.by]
    interval = "" if row["low"] is None else f" ({scale * row['low']:+.{digits}f} to {scale * row['high']:+.{digits}f})"
    return {
        "claim": claim.text, "arms": f"{claim.one} − {claim.other}", "seeds": row["seeds"],
        "difference": f"{scale * row['difference']:+.{digits}f}{interval} {unit}",
        "p (Holm)": "–" if row["p"] is None else f"{row['p_holm']:.2g}",
        "verdict": verdict(row),
        "spread over seeds": "–" if row["spread"] is None else f"{scale * row['spread']:.{digits}f}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path)
    print(tables(read(parser.parse_args().reports)))


if __name__ == "__main__":
    main()
