"""What a test on held-out records found of the factors, as much as a model card shows of it: a block a task.

A block has `task`, `keys` where the task has such, `metric` (in words), `records` at each position, `sentence`, and
`rows`: one for each gold position, then the average and U. A row has `name`, for vanilla and for the factors `score` in
[0, 1] and its 95 % `interval`, and of the difference `gain`, `p`, `log_likelihood` (nats a token, None where it is not
finite) and `log_likelihood_p`. p-values of positions are corrected by Holm's method, those of averages are not. The
first block may have `short_texts`: what the factors do to short texts, in sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.comparison import metric_words
from ropewalk.factors import ScalingFactors
from ropewalk.verdict import short_text_sentences

Json = Mapping[str, Any]
Series = tuple[list[float], list[Sequence[float]]]  # scores and their intervals, by position
RESULT = "result.json"
CANDIDATE = ("control_points", "offsets")  # by which a result is known to be that of some factors
BLOCK = {"task", "metric", "records", "sentence", "rows"}
ROW = {"name", "vanilla", "factors", "gain", "p", "log_likelihood", "log_likelihood_p"}


def known_test(factors: ScalingFactors, file: Path | None = None) -> list[dict[str, Any]]:
    """What is known of a test of these factors: kept in `found.test`, or in the run's result.json beside their file.

    Empty if there is neither, or if the result is that of other factors.
    """
    kept = factors.found.get("test")
    if isinstance(kept, list) and kept and all(map(_is_block, kept)):
        return kept
    path = None if file is None else file.parent / RESULT
    if path is None or not path.is_file():
        return []
    result = files.read_json(path)
    if not isinstance(result, dict) or not is_of(result, factors):
        return []
    return tests_of(result)


def tests_of(result: Json) -> list[dict[str, Any]]:
    """The blocks of a run's result."""
    blocks = [tested(name, block) for name, block in result["tasks"].items()]
    if sentences := list(short_text_sentences(result.get("short_texts", {}))):
        blocks[0]["short_texts"] = sentences
    return blocks


def tested(name: str, block: Json) -> dict[str, Any]:
    """A task's block of a run's result, in the form above."""
    vanilla, factors, gain = block["vanilla"], block["factors"], block["gain"]["factors"]
    likelihood_p = gain["log_likelihood_p_holm"] or [None] * len(block["positions"])
    rows = [
        {
            "name": f"@{position}",
            "vanilla": {"score": vanilla["accuracy"][at], "interval": vanilla["interval"][at]},
            "factors": {"score": factors["accuracy"][at], "interval": factors["interval"][at]},
            "gain": gain["accuracy"][at],
            "p": gain["accuracy_p_holm"][at],
            "log_likelihood": gain["log_likelihood"][at]["difference"],
            "log_likelihood_p": likelihood_p[at],
        }
        for at, position in enumerate(block["positions"])
    ]
    for label, key in (("average", "average"), ("U", "utilisation")):
        score, likelihood = gain[key], gain[f"{key}_log_likelihood"]
        rows.append(
            {
                "name": label,
                "vanilla": {"score": vanilla[key], "interval": vanilla[f"{key}_interval"]},
                "factors": {"score": factors[key], "interval": factors[f"{key}_interval"]},
                "gain": score["difference"],
                "p": score["p"],
                "log_likelihood": likelihood["difference"],
                "log_likelihood_p": likelihood["p"],
            }
        )
    keys = {"keys": block["task"]["keys"]} if block["task"].get("keys") else {}
    words = {"metric": metric_words(vanilla["metric"]), "records": vanilla["records"], "sentence": block["sentence"]}
    return {"task": name, **keys, **words, "rows": rows}


def title(block: Json) -> str:
    """The task, its size, and what the numbers are."""
    keys = f", {block['keys']} keys" if block.get("keys") else ""
    records = f"{block['records']} test records at each position"
    return f"{block['task']}{keys}: {block['metric']} in % [95 % interval], {records}"


def table(block: Json, arm: str) -> Iterator[str]:
    """The rows as a Markdown table. arm: how the column of the factors is called."""
    yield f"| position | vanilla | {arm} | points | p (Holm) | log-likelihood, nats/token | p (Holm) |"
    yield "|---|---|---|---|---|---|---|"
    for row in block["rows"]:
        is_mean = not row["name"].startswith("@")
        label = f"{row['name']} (p not corrected)" if is_mean else row["name"]
        cells = [percent(row[name], 1 if is_mean else 0) for name in ("vanilla", "factors")]
        cells += [_points(row["gain"]), _p(row["p"]), _number(row["log_likelihood"]), _p(row["log_likelihood_p"])]
        yield f"| {label} | {' | '.join(cells)} |"


def percent(entry: Json, digits: int) -> str:
    """A score with its interval, in percent."""
    low, high = entry["interval"]
    return f"{100 * entry['score']:.{digits}f} [{100 * low:.0f}–{100 * high:.0f}]"


def positions(block: Json) -> tuple[list[int], tuple[Series, Series]]:
    """The gold positions, and for vanilla and the factors the scores and intervals there."""
    rows = [row for row in block["rows"] if row["name"].startswith("@")]
    vanilla, factors = (
        ([row[arm]["score"] for row in rows], [row[arm]["interval"] for row in rows]) for arm in ("vanilla", "factors")
    )
    return [int(row["name"][1:]) for row in rows], (vanilla, factors)


def is_of(result: Json, factors: ScalingFactors) -> bool:
    """Whether a run's result is that of these factors: the same model, the same candidate."""
    try:
        model, search = result["provenance"]["model"], result["search"]
        candidate = factors.found.get("candidate", factors.found)
        same = all(search.get(name) == candidate.get(name) for name in CANDIDATE)
        known = any(candidate.get(name) is not None for name in CANDIDATE)
        return bool(known and same and model["fingerprint"] == factors.model.get("fingerprint") and result["tasks"])
    except (KeyError, TypeError, AttributeError):  # another program's, or of an older version
        return False


def _is_block(block: Any) -> bool:
    if not isinstance(block, Mapping) or not block.keys() >= BLOCK or not isinstance(block["rows"], list):
        return False
    return all(isinstance(row, Mapping) and row.keys() >= ROW for row in block["rows"])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
