"""From the files of a quality run to its JSON report, and from reports to the tables of docs/results.md."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from quality_settings import Asked, arm_of, plan

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the benchmarks share

from ropewalk import files, stats
from ropewalk.comparison import compare
from ropewalk.results import PERPLEXITY_METRIC, TaskResult
from tables import markdown

Json = dict[str, Any]
FIGURES = (
    "metric", "accuracy", "interval", "average", "average_interval", "worst", "utilisation", "records", "skipped",
    "average_nll", "average_perplexity", "failures",
)  # fmt: skip
GAINS = ("accuracy", "accuracy_p", "accuracy_p_holm", "average", "worst", "utilisation", "average_log_likelihood")
ORDER = ("kv", "oracle", "mdqa", "mix")
GOALS_OF = "qwen2.5-coder-0.5b-instruct"  # the model that the goals were set for


def quality_report(folder: Path) -> Json:
    """Everything of one model: searches, choices, each test's arms compared with vanilla in pairs, and what is missing.

    p_holm of an arm is corrected over all arms of its test; those by position over the positions. A run that was cut
    short gives a report of what there is.
    """
    model = files.read_json(folder / "model.json")
    names = [name for name in ORDER if (folder / name / "factors.json").exists()]
    order = {name: place for place, name in enumerate(model["asked"]["tests"])}
    tests = sorted(
        (path.parent for path in folder.glob("tests/*/vanilla.json")),
        key=lambda path: (order.get(path.name, len(order)), path.name),
    )
    return {
        "benchmark": "quality",
        **model,
        "searches": {name: _searched(folder / name) for name in names},
        "tests": {path.name: _tested(path, names, model["provenance"]) for path in tests},
        "missing": _missing(folder, model),
    }


def _missing(folder: Path, model: Json) -> Json:
    """Searches whose choice, and arms of tests whose examples, have no file of all that was asked for."""
    asked = Asked(**{name: tuple(own) for name, own in model["asked"].items()})
    searches: dict[str, None] = {}
    tests: dict[str, list[str]] = {}
    for search, method, names in plan(asked, model["keys"]):
        arm = arm_of(search, method)
        if not (folder / search / "choice" / f"{method}.json").exists():
            searches[arm] = None
        for test in names:
            arms = [one for one in ("vanilla", arm) if not (folder / "tests" / test / f"{one}.json").exists()]
            if arms:
                tests[test] = list(dict.fromkeys([*tests.get(test, []), *arms]))
    return {"searches": list(searches), "tests": tests}


def _searched(folder: Path) -> Json:
    runs = {path.parent.name: files.read_json(path) for path in sorted(folder.glob("*/found.json"))}
    choices = {path.stem: files.read_json(path)["found"] for path in sorted((folder / "choice").glob("*.json"))}
    kept = ("factors", "evaluations", "validation_evaluations", "seconds", "failed", "objective")
    return {
        "runs": {label: {**run["asked"], **{name: run["found"][name] for name in kept}} for label, run in runs.items()},
        "choices": choices,
    }


def _tested(folder: Path, searches: Sequence[str], begun: Json) -> Json:
    """begun: provenance of the whole run, for files that are older than that of each test."""
    documents = {path.stem: files.read_json(path) for path in folder.glob("*.json")}
    results = {name: TaskResult.from_dict(one["found"]["result"]) for name, one in documents.items()}
    arms = ["vanilla", *sorted(set(results) - {"vanilla"}, key=lambda name: (_rank(name), name))]
    gain = {arm: _gain(results["vanilla"], results[arm]) for arm in arms[1:]}
    corrected = stats.holm([one["average"]["p"] for one in gain.values()]) if gain else []
    for one, p in zip(gain.values(), corrected, strict=True):
        one["average"]["p_holm"] = float(p)
    over = {
        f"{name} over {control}": _gain(results[control], results[name])["average"]
        for name in searches
        for control in arms
        if control.startswith(f"{name} ") and name in results
    }
    return {
        "task": documents["vanilla"]["asked"]["task"],
        "positions": list(results["vanilla"].positions),
        "engine": documents["vanilla"]["found"]["engine"],
        "device": {arm: documents[arm]["found"].get("provenance", begun)["device"] for arm in arms},
        "arms": {arm: {key: value for key, value in results[arm].summary().items() if key in FIGURES} for arm in arms},
        "gain": gain,
        "over": over,
        "seconds": {arm: documents[arm]["found"]["seconds"] for arm in arms},
    }


def _rank(arm: str) -> int:
    first = arm.split()[0]
    return ORDER.index(first) if first in ORDER else len(ORDER)


def _gain(reference: TaskResult, other: TaskResult) -> Json:
    found = compare(reference, other)
    return {name: found[name] for name in GAINS}


# --- tables


def tables(reports: Sequence[Json]) -> str:
    """Markdown: for each model how it was searched, every test, and the goals where they were set for it."""
    return "\n\n".join(_model_tables(report) for report in reports)


def _model_tables(report: Json) -> str:
    facts = report["provenance"]
    prompt = "chat template" if report["chat"] else "bare prompt"
    head = (
        f"**{report['name']}** ({prompt}, {facts['dtype']}, {facts['device']}, torch {facts['versions']['torch']}; "
        f"weights: {report['source']})"
    )
    searched = _search_rows(report)
    parts = [head, markdown(searched)] if searched else [head]
    parts += [
        f"{_title(name, test, facts['device'])}\n\n{markdown(_test_rows(test))}{_over(test)}"
        for name, test in report["tests"].items()
    ]
    if report["name"] == GOALS_OF:
        parts.append("The goals that were set for this model:\n\n" + markdown(goals(report)))
    return "\n\n".join([*parts, *_missing_words(report["missing"])])


def _missing_words(missing: Json) -> list[str]:
    """What was asked for and not made, in a paragraph; none where nothing is missing."""
    searches = [f"searches {', '.join(missing['searches'])}"] if missing["searches"] else []
    by_arms: dict[str, list[str]] = {}
    for test, arms in missing["tests"].items():
        by_arms.setdefault(", ".join(arms), []).append(test)
    tests = [f"{arms} on {', '.join(names)}" for arms, names in by_arms.items()]
    return [f"Asked for and not measured yet: {'; '.join([*searches, *tests])}."] if searches or tests else []


def _search_rows(report: Json) -> list[Json]:
    return [
        {
            "search": name, "run": label, "evaluations": f"{run['evaluations']:,}", "seconds": f"{run['seconds']:.0f}",
            "chosen on validation": found["choices"].get(
                run["method"], {"chosen": "–"})["chosen"],
            "average on validation": _on_validation(run, found["choices"].get(run["method"])),
            "factors": _span(run["factors"]),
        }
        for name, found in report["searches"].items()
        for label, run in found["runs"].items()
    ]  # fmt: skip


def _on_validation(run: Json, choice: Json | None) -> str:
    """Of the run's best finalist, and vanilla's, over the choice's tasks; a dash where no choice was made."""
    if choice is None:
        return "–"
    own = f"{run['recipe']}, seed {run['seed']}, finalist" if run["method"] == "default" else "finalist"
    labels = [label for label in next(iter(choice["accuracy"].values())) if label.startswith(own)]
    best, vanilla = (max(_average(choice, label) for label in some) for some in (labels, ["vanilla"]))
    return f"{100 * best:.1f} (vanilla {100 * vanilla:.1f})"


def _average(choice: Json, label: str) -> float:
    """Over positions, then tasks."""
    return fmean(fmean(own[label]) for own in choice["accuracy"].values())


def _span(factors: Sequence[float | None]) -> str:
    given = [value for value in factors if value is not None]
    return f"{min(given):.2f} to {max(given):.2f}"


def _title(name: str, test: Json, device: str) -> str:
    """device: of the run, which is named where a test was made on another."""
    arm = test["arms"]["vanilla"]
    skipped = f", {arm['skipped']} too long" if arm["skipped"] else ""
    places = ", ".join(map(str, test["positions"]))
    others = sorted({own for own in test["device"].values() if own != device})
    where = f" Made on: {', '.join(others)}." if others else ""
    metric = "perplexity" if arm["metric"] == PERPLEXITY_METRIC else arm["metric"].replace("_", " ")
    return f"*{name}*: {metric}, {arm['records']} records{skipped}, positions {places}.{where}"


def _test_rows(test: Json) -> list[Json]:
    if test["arms"]["vanilla"]["metric"] == PERPLEXITY_METRIC:
        return [_perplexity_row(arm, test) for arm in test["arms"]]
    return [_accuracy_row(arm, test) for arm in test["arms"]]


def _accuracy_row(arm: str, test: Json) -> Json:
    figures, gain = test["arms"][arm], test["gain"].get(arm)
    average = gain and gain["average"]
    return {
        "arm": arm,
        "by position": " ".join(f"{100 * value:.0f}" for value in figures["accuracy"]),
        "average": f"{100 * figures['average']:.1f}",
        "points over vanilla": _points(average),
        "p (Holm over arms)": f"{average['p_holm']:.2g}" if average else "–",
        "worst": f"{100 * figures['worst']:.0f}",
    }


def _over(test: Json) -> str:
    """What a search's factors gain over its controls, in a sentence below the test's table; nothing without any."""
    said = [f"{pair}: {_points(row)} points, p = {row['p']:.1g}" for pair, row in test["over"].items()]
    return f"\n\n{'; '.join(said)} (p not corrected)." if said else ""


def headline(report: Json) -> str:
    """The test of the kv factors beside the model as it is and the best of the simpler kinds, for the README."""
    test = report["tests"][f"kv-{report['keys']}"]
    words = {
        "vanilla": "1 in every layer: the model as it is", "kv uniform": "the best single factor for all layers",
        "kv line": "the best straight line over the layers", "kv": "found: the best of four searches on validation",
    }  # fmt: skip
    rows = [_accuracy_row(arm, test) for arm in words if arm in test["arms"]]
    shown = ("by position", "average", "points over vanilla")
    return markdown([{"factors": words[row["arm"]]} | {name: row[name] for name in shown} for row in rows])


def _points(row: Mapping[str, float] | None) -> str:
    if not row:
        return "–"
    return f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"


def _perplexity_row(arm: str, test: Json) -> Json:
    gain = test["gain"].get(arm)
    row = gain and gain["average_log_likelihood"]
    return {
        "arm": arm,
        "perplexity": f"{test['arms'][arm]['average_perplexity']:.3f}",
        "per cent over vanilla": _percent(row) if row else "–",
        "p": f"{row['p']:.2g}" if row else "–",
    }


def _percent(row: Mapping[str, float]) -> str:
    """Of the perplexity, out of a difference of log-likelihoods: a higher likelihood is a lower perplexity."""
    middle, low, high = (100 * math.expm1(-row[name]) for name in ("difference", "high", "low"))
    return f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"


def goals(report: Json) -> list[Json]:
    """Each goal beside what was measured, or that it was not."""
    rows = []
    for row, test, arm, goal in (
        ("quality-kv", "kv-75", "kv", "average at least 65, worst at least 40, first and last not below vanilla"),
        ("quality-kv, oracle", "throwaway", "oracle", "what exists: a search on these very records"),
        ("quality-mdqa", "mdqa-10", "mdqa", "at least +4 points, p < 0.05"),
        ("quality-transfer", "kv-140", "kv", "at least +10 points"),
        ("quality-transfer", "mdqa-10", "kv", "not below vanilla"),
        ("quality-transfer", "mdqa-20", "kv", "not below vanilla"),
        ("quality-transfer", "perplexity", "kv", "within 1 per cent"),
    ):
        found = report["tests"].get(test)
        if found is None or arm not in found["arms"]:
            rows.append({"row": row, "test": test, "goal": goal, "measured": "not measured yet", "met": "–"})
            continue
        perplexity = test == "perplexity"
        measured = _perplexity_row(arm, found)["per cent over vanilla"] if perplexity else _measured(arm, found)
        rows.append({"row": row, "test": test, "goal": goal, "measured": measured, "met": _met(row, arm, test, found)})
    return rows


def _measured(arm: str, test: Json) -> str:
    row = _accuracy_row(arm, test)
    low, high = (f"{100 * end:.1f}" for end in test["arms"][arm]["average_interval"])
    return f"{row['by position']}, average {row['average']} ({low} to {high}); {row['points over vanilla']} points"


def _met(row: str, arm: str, name: str, test: Json) -> str:
    figures, vanilla, gain = test["arms"][arm], test["arms"]["vanilla"], test["gain"][arm]
    points = 100 * gain["average"]["difference"]
    if row == "quality-kv":
        ends = all(figures["accuracy"][end] >= vanilla["accuracy"][end] for end in (0, -1))
        return _yes(100 * figures["average"] >= 65 and 100 * figures["worst"] >= 40 and ends)
    if row == "quality-mdqa":
        return _yes(points >= 4 and gain["average"]["p"] < 0.05)
    if row != "quality-transfer":
        return "–"
    if name == "perplexity":
        return _yes(abs(math.expm1(-gain["average_log_likelihood"]["difference"])) <= 0.01)
    return _yes(points >= (10 if name == "kv-140" else 0))


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
