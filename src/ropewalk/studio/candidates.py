"""The candidates of a run, read from its study as it grows, never written."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

from ropewalk.errors import DataError, RopewalkError
from ropewalk.report.history import History, read_history
from ropewalk.search.space import SearchSpace
from ropewalk.studio.draft import Draft, Shape, drafted

MOST_SHOWN = 300


class Candidates:
    """directory: of a search, finished or at work; its study may not be there yet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.trouble = ""  # why the study could not be read the last time
        self._history: History | None = None
        self._stamp: tuple[float, ...] = ()
        self._lock = threading.Lock()

    def history(self) -> History | None:
        """All that the study holds now; what was known stays where it can't be read for a while."""
        with self._lock:
            study = self.directory / "study.db"
            paths = [path for path in (study, study.with_name("study.db-wal")) if path.exists()]
            stamp = tuple(part for path in paths for part in (path.stat().st_mtime, path.stat().st_size))
            if study.exists() and stamp != self._stamp:
                try:
                    self._history, self._stamp, self.trouble = read_history(study), stamp, ""
                except RopewalkError as error:
                    self.trouble = str(error)
            return self._history

    def view(self) -> dict[str, Any]:
        """For the page: how far the search is, and its candidates, the best first."""
        history = self.history()
        found = [] if history is None else history.candidates
        scored = sorted((one for one in found if not one.failed), key=lambda one: -one.fitness)
        return {
            "run": str(self.directory),
            "count": len(found),
            "failed": len(found) - len(scored),
            "generations": 1 + max((one.generation for one in found), default=-1),
            "alike": history is None or history.alike,
            "has_factors": (self.directory / "factors.json").exists(),
            "finished": (self.directory / "result.json").exists(),
            "trouble": self.trouble,
            "best": [
                {"generation": one.generation, "slot": one.slot, "fitness": one.fitness, "stopped": one.stopped}
                for one in scored[:MOST_SHOWN]
            ],
            "course": _course([(one.generation, one.fitness) for one in found if not one.failed]),
        }

    def draft(self, generation: Any, slot: Any, shape: Shape) -> Draft:
        """A candidate as a curve to edit. Raises `DataError` for one that is not there."""
        history = self.history()
        wanted = (generation, slot)
        record = next(
            (one for one in (history.candidates if history else []) if (one.generation, one.slot) == wanted), None
        )
        if history is None or record is None:
            raise DataError(f"the run has no candidate {str(generation)[:12]}:{str(slot)[:12]}")
        given = history.settings["method"]["space"]
        fields = {**given, "rotary_layers": given["rotary_layers"] and tuple(given["rotary_layers"])}
        space = SearchSpace(**fields)
        values = space.factors(record.candidate).values
        return drafted(values, shape, record.candidate.control_points, space.mode, space.skip_first)


def _course(told: list[tuple[int, float]]) -> list[list[float]]:
    """[generation, best fitness in it] of each generation."""
    best: dict[int, float] = {}
    for generation, fitness in told:
        best[generation] = max(fitness, best.get(generation, -math.inf))
    return [[generation, fitness] for generation, fitness in sorted(best.items())]
