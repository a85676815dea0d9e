"""What is wrong with an entry of the zoo: its files, its digests, its test, and a card that says what the JSON says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ropewalk.errors import RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.zoo import CARD, FACTORS, TEST, UNVERIFIED
from ropewalk.zoo.card import card
from ropewalk.zoo.entry import LICENCE, NAME, TESTED, Entry, Json, read_entry

MODEL = {"name", "model_type", "num_layers", "fingerprint"}
ABOUT = {"name", "status", "hub_id", "licence", "by", "date"}


def problems(folder: Path, name: str) -> list[str]:
    """A sentence for everything that keeps the folder from being the entry `name`; none if all is well."""
    try:
        entry = read_entry(folder, name)
    except RopewalkError as error:
        return [str(error)]
    found = [*wrong(entry), *_files(entry, folder)]
    if not found and (folder / CARD).read_text(encoding="utf-8") != card(entry):
        found.append(f"{CARD} is not the card that factors.json and test.json give: it is written, never edited")
    return found


def wrong(entry: Entry) -> list[str]:
    """The same of what an entry says, without its files."""
    about = list(_about(entry))
    return about or list(_unverified(entry) if entry.is_unverified else _test(entry))


def _about(entry: Entry) -> Iterator[str]:
    about = entry.about
    if not NAME.fullmatch(entry.name):
        yield f"name {entry.name!r}: expected MODEL/NAME of small letters, digits, dots and hyphens"
    wanted = ABOUT | ({"source", "published"} if entry.is_unverified else set())
    if missing := sorted(key for key in wanted if not about.get(key)):
        yield f"found.entry of factors.json lacks {', '.join(missing)}"
        return
    if about["name"] != entry.name:
        yield f"found.entry.name is {about['name']!r}, the folder is {entry.name!r}"
    if about["status"] not in (TESTED, UNVERIFIED):
        yield f"found.entry.status is {about['status']!r}, expected {TESTED} or {UNVERIFIED}"
    if about["licence"] != LICENCE:
        yield f"the licence is {about['licence']!r}, expected {LICENCE}, that of the repository"
    if entry.factors.is_identity:
        yield "all factors are 1: that is the model as it is"


def _files(entry: Entry, folder: Path) -> Iterator[str]:
    wanted = {FACTORS, CARD} | (set() if entry.is_unverified else {TEST})
    there = {path.name for path in folder.iterdir()}
    if there != wanted:
        yield f"the folder holds {', '.join(sorted(there))}; expected {', '.join(sorted(wanted))}"


def _unverified(entry: Entry) -> Iterator[str]:
    if entry.factors.found.get("test"):
        yield "found.test claims a test, and the entry is called unverified"


def _test(entry: Entry) -> Iterator[str]:
    from ropewalk.export.parts import evidence

    factors, result = entry.factors, entry.result
    if result is None:
        yield f"there is no {TEST}, and without a test the entry can only be unverified"
        return
    tested, own = result["provenance"]["model"], factors.model
    if not own.keys() >= MODEL:
        yield f"factors.json names no model ({', '.join(sorted(MODEL))}), so nobody knows which weights they are for"
        return
    if own["num_layers"] != factors.num_layers:
        yield f"{factors.num_layers} factors for a model of {own['num_layers']} layers"
    if tested["fingerprint"] != own["fingerprint"]:
        yield f"the test is of the model {tested}, the factors are for {own}"
    if not _is_of(result, factors):
        yield "the test is not one of these factors"
    if (split := result.get("split", "test")) != "test" and not _is_of_other_data(result, factors.found):
        yield f"the test is on the split {split!r}: only records that no search sees count (--split test)"
    rows = [(block["task"], row) for block in evidence.tests_of(result) for row in block["rows"]]
    for task, row in rows:
        if not all(_has_interval(row[arm]) for arm in ("vanilla", "factors")):
            yield f"{task} {row['name']}: a score without a 95 % interval around it"
    for row in entry.gains():
        if None in (row["low"], row["high"], row["p"]) or not row["low"] <= row["gain"] <= row["high"]:
            yield f"{row['task']}: the gain has no 95 % interval"
    if factors.found.get("test") != json.loads(json.dumps(evidence.tests_of(result))):
        yield "found.test of factors.json is not what test.json says"


def _is_of(result: Json, factors: ScalingFactors) -> bool:
    """By the values where the result has them, as `eval` writes it, else by the candidate of the run."""
    from ropewalk.export.parts import evidence

    if result.get("factor_values") is not None:
        return list(result["factor_values"]) == list(factors)
    return evidence.is_of(result, factors)


def _is_of_other_data(result: Json, found: Json) -> bool:
    """Whether every task was tested on a file, and none of these is a file that the search had."""
    searched = json.dumps({key: value for key, value in found.items() if key != "test"})
    data = [block["task"].get("data") for block in result["tasks"].values()]
    digests = [one["sha256"] for given in data if given for one in (given if isinstance(given, list) else [given])]
    return all(data) and not any(digest in searched for digest in digests)


def _has_interval(score: Json) -> bool:
    low, high = score["interval"]
    return low is not None and high is not None and bool(low <= score["score"] <= high)
