"""What a reading of long inputs comes to: figures with intervals, paired differences, sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk import stats
from ropewalk.comparison import ALPHA, compare
from ropewalk.extrapolate import NOTHING, SCHEMES, SEARCHED, TRIANGLE, Arm, Reading
from ropewalk.results import TaskResult

MEASURES = ("far", "kv", "needle")  # of a paired difference


def figures(reading: Reading) -> dict[str, Any]:
    """One length as JSON: a block an arm, and three families of paired differences, Holm-corrected within each.

    `over_nothing`: of every scheme without factors and with them. `over_scheme`: of factors over their scheme alone.
    `over_triangle`: of searched factors over the triangle. In each, by arm: `far`, the difference of the mean
    log-likelihood a token of the far tokens, `kv` and `needle`, differences of accuracy; all with `difference`, `low`,
    `high`, `p` and `p_holm`.
    """
    arms = reading.arms
    others = [name for name in arms if name != NOTHING]
    factored = [name for name in others if "+" in name]
    pairs = [
        (name, f"{scheme_of(name)}+{TRIANGLE}")
        for name in factored
        if name.endswith(SEARCHED) and f"{scheme_of(name)}+{TRIANGLE}" in arms
    ]
    return {
        "length": reading.length,
        "factor": reading.factor,
        "far_from": arms[NOTHING].results["perplexity"].positions[-1],
        "tasks": {name: dict(result.task) for name, result in arms[NOTHING].results.items()},
        "arms": {name: _block(arm) for name, arm in arms.items()},
        "over_nothing": _family({name: _gains(arms[NOTHING], arms[name]) for name in others}),
        "over_scheme": _family({name: _gains(arms[scheme_of(name)], arms[name]) for name in factored}),
        "over_triangle": _family({name: _gains(arms[hand], arms[name]) for name, hand in pairs}),
    }


def scheme_of(arm: str) -> str:
    """The base scheme of an arm's name."""
    return arm.partition("+")[0]


def sentences(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the figures say, a sentence for each scheme and each set of searched factors, beyond the trained length."""
    return [sentence for block in blocks for sentence in _sentences(block)]


def _block(arm: Arm) -> dict[str, Any]:
    """Figures of one arm."""
    return {
        "rope": arm.rope,
        "factors": None if arm.factors is None else list(arm.factors.values),
        "search": None if arm.search is None else dict(arm.search),
        "far": _level(arm.results["perplexity"]),
        **{name: result.summary() for name, result in arm.results.items()},
    }


def _level(result: TaskResult) -> dict[str, Any]:
    """Mean negative log-likelihood of the far tokens, its interval by window, the perplexity; null if not finite."""
    values = -result.log_likelihoods[:, [-1]]
    if not np.isfinite(values).all():
        return {"nll": None, "low": None, "high": None, "perplexity": None, "windows": len(values)}
    drawn = stats.cluster_bootstrap(values, _only)
    level = {"nll": drawn.estimate, "low": drawn.low, "high": drawn.high}
    return level | {"perplexity": math.exp(min(drawn.estimate, 700.0)), "windows": len(values)}


def _gains(reference: Arm, other: Arm) -> dict[str, Any]:
    """Paired differences of every measure that both arms have."""
    gains: dict[str, Any] = {}
    for task, result in other.results.items():
        compared = compare(reference.results[task], result)
        if task == "perplexity":
            gains["far"] = dict(compared["average_log_likelihood"])
        else:
            gains[task] = dict(compared["average"])
    return gains


def _family(gains: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same with p-values corrected over the arms, for each measure by itself."""
    for measure in MEASURES:
        rows = [row[measure] for row in gains.values() if measure in row and row[measure]["p"] is not None]
        for row, p in zip(rows, stats.holm([row["p"] for row in rows]), strict=True):
            row["p_holm"] = float(p)
    return gains


def _only(means: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(means[..., 0])


def _sentences(block: Mapping[str, Any]) -> Iterator[str]:
    at = f"At {block['length']} tokens"
    for scheme in SCHEMES:
        if scheme in block["over_nothing"]:
            yield f"{at} {scheme} {_verdict(block['over_nothing'][scheme], 'nothing')}"
    for arm, row in block["over_scheme"].items():
        scheme, _, kind = arm.partition("+")
        if kind == TRIANGLE:
            yield f"{at} {scheme} with the triangle {_verdict(row, f'{scheme} alone')}"
        elif _is_identity(block, arm):
            yield f"{at} the search under {scheme} found no factors that are better than none."
        else:
            yield f"{at} {scheme} with searched factors {_verdict(row, f'{scheme} alone')}"
    for arm, row in block["over_triangle"].items():
        if not _is_identity(block, arm):
            scheme = scheme_of(arm)
            yield f"{at} {scheme} with searched factors {_verdict(row, f'{scheme} with the triangle')}"


def _is_identity(block: Mapping[str, Any], arm: str) -> bool:
    return all(value in (None, 1.0) for value in block["arms"][arm]["factors"])


def _verdict(row: Mapping[str, Any], other: str) -> str:
    """How the far tokens are read, then the differences of all measures with their intervals."""
    far = row["far"]
    if far["difference"] is None:
        return f"can't be compared with {other}: some log-likelihoods are not finite."
    parts = [_difference(far, 1.0, "+.3f", "nats a token")]
    parts += [f"{task} {_difference(row[task], 100.0, '+.1f', 'points')}" for task in ("kv", "needle") if task in row]
    if far["p_holm"] >= ALPHA:
        said = f"reads the far tokens as {other} does, within the noise"
    else:
        said = f"reads the far tokens {'better' if far['difference'] > 0 else 'WORSE'} than {other}"
    return f"{said}: {'; '.join(parts)}."


def _difference(row: Mapping[str, Any], scale: float, form: str, unit: str) -> str:
    value, low, high = (f"{scale * row[part]:{form}}" for part in ("difference", "low", "high"))
    return f"{value} {unit} [{low} to {high}], p = {row['p_holm']:.2g}"
