"""An entry of the zoo as it is read: the factors, what is said of them, and the figures of their test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.errors import FactorsError
from ropewalk.factors import ScalingFactors
from ropewalk.zoo import ENTRIES, FACTORS, TEST, UNVERIFIED, entry_names

Json = Mapping[str, Any]
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*")
TESTED = "tested"
LICENCE = "Apache-2.0"  # of the factors and figures, as of all of this repository; weights have their own


@dataclass(frozen=True)
class Entry:
    """name: MODEL/NAME. about: `found.entry` of the factors. result: see `result_of`; None for an unverified one."""

    name: str
    factors: ScalingFactors
    result: Json | None

    @property
    def about(self) -> Json:
        """Who found them, when, for which model: name, status, hub_id, licence, by, date; source where published."""
        about = self.factors.found.get("entry")
        return about if isinstance(about, Mapping) else {}

    @property
    def is_unverified(self) -> bool:
        """Whether nobody tested them here."""
        return self.about.get("status") == UNVERIFIED

    def gains(self) -> Iterator[dict[str, Any]]:
        """For each tested task: `task`, `metric`, `records`, averages, and the paired `gain` with interval and p."""
        for name, block in ({} if self.result is None else self.result["tasks"]).items():
            row = block["gain"]["factors"]["average"]
            yield {
                "task": name,
                "settings": block["task"],
                "metric": block["vanilla"]["metric"],
                "positions": block["positions"],
                "records": block["vanilla"]["records"],
                "vanilla": block["vanilla"]["average"],
                "factors": block["factors"]["average"],
                "gain": row["difference"],
                **{key: row[key] for key in ("low", "high", "p")},
            }

    def figures(self) -> dict[str, Any]:
        """As `ropewalk zoo --json` has it."""
        return {
            "name": self.name,
            "layers": self.factors.num_layers,
            "model": self.factors.model.get("name"),
            "digest": self.factors.digest,
            **{key: self.about.get(key) for key in ("status", "hub_id", "licence", "by", "date", "source")},
            "tests": list(self.gains()),
        }


def read_entry(folder: Path, name: str) -> Entry:
    """The entry in a folder. Raises `RopewalkError` for a file that is missing or damaged."""
    test = folder / TEST
    return Entry(
        name, ScalingFactors.load(folder / FACTORS), result_of(files.read_json(test)) if test.exists() else None
    )


def read_entries(entries: Path = ENTRIES) -> list[Entry]:
    """All entries, by name."""
    return [read_entry(entries / name, name) for name in entry_names(entries)]


def result_of(document: Any) -> dict[str, Any]:
    """The figures of a test as a run's result.json has them, `tasks` and `provenance`, from it or from `eval --json`.

    Raises `FactorsError` for anything else.
    """
    from ropewalk.comparison import verdict_sentence

    try:
        if "tasks" in document:
            _ = [block["gain"]["factors"]["average"]["low"] for block in document["tasks"].values()]
            _ = document["provenance"]["model"]["fingerprint"], document["search"]
            return dict(document)
        sentence = verdict_sentence(document["gain"]["factors"])
        return {
            **document,
            "tasks": {document["task"]["task"]: {**document, "sentence": sentence}},
            "provenance": {**document["provenance"], "model": document["model"], "command": document["command"]},
        }
    except (KeyError, TypeError, AttributeError):
        raise FactorsError(
            "expected the figures of a test: a run's result.json, or what ropewalk eval --factors … --json FILE writes"
        ) from None
