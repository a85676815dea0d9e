"""The live view of a search: how far it is, how good the best candidate is, and where it gains over vanilla."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ropewalk.cli.console import StageProgress, follow
from ropewalk.cli.interrupt import SEARCH
from ropewalk.constraints import Array, Measure, Scores
from ropewalk.events import Baseline, Evaluated, Event, Stage
from ropewalk.objectives import Objective
from ropewalk.study import CandidateRecord

BAR = 20  # characters of the longest bar
LAST = 32  # candidates that are averaged where none has seen all records
SCALES: dict[Measure, tuple[float, str, int]] = {"likelihood": (1.0, "nats/token", 4), "accuracy": (100.0, "points", 1)}


class SearchView(StageProgress):
    """Progress of all stages; of the search also the generation and the best candidate, position by position.

    generations: of the whole search, None where the method has no such number. Drive it with `on_event`.
    """

    def __init__(self, objective: Objective, generations: int | None) -> None:
        self._part, self._name_of_first, self._generations = objective.parts[0], objective.names[0], generations
        self._vanilla: Scores | None = None
        self._stopped = self._failed = 0
        self._generation, self._best = 0, 0.0
        self._fittest: CandidateRecord | None = None  # on all records, since the command began
        self._last: deque[Array] = deque(maxlen=LAST)  # differences from vanilla by position, of the latest candidates
        super().__init__()
        self._follow = follow(self)

    def on_event(self, event: Event) -> None:
        """Take in an event of a run."""
        self._follow(event)
        if isinstance(event, Baseline) and self._name == SEARCH:
            self._vanilla = event.found[0]
        elif isinstance(event, Evaluated) and self._name == SEARCH:
            self._take(event.record, event.best)
            self.remark(self.headline())
        elif isinstance(event, Stage) and event.name != SEARCH:
            self._fittest = None  # the bars are those of the search
            self._last.clear()

    def headline(self) -> str:
        """Where the search is, in a few words."""
        of = f" of {self._generations}" if self._generations else ""
        words = [f"generation {self._generation + 1}{of}", f"best {self._best:+.4f}"]
        words += [f"{self._stopped} stopped early"] if self._stopped else []
        words += [f"{self._failed} failed"] if self._failed else []
        return ", ".join([*words, f"{self.pace:.3g} prompts/s"])

    def extra(self) -> Iterator[RenderableType]:
        """The difference from vanilla by position, as bars."""
        differences = self.differences()
        if self._name == SEARCH and differences:
            whose = "fittest" if self._fittest else f"last {len(self._last)} candidates"
            yield bars(differences, self._part.measure, f"{self._name_of_first} {whose}".strip())

    def differences(self) -> dict[int, float]:
        """By gold position of the first task: the fittest candidate minus vanilla.

        Where a method scores candidates on a part of the records, the fittest one is the luckiest: there it is the mean
        of the latest ones, each minus vanilla on the records that it saw.
        """
        if self._vanilla is None or not self._last:
            return {}
        gained = self._gained(self._fittest) if self._fittest else np.mean(self._last, axis=0)
        positions = self._vanilla.positions or tuple(range(len(gained)))
        return dict(zip(positions, gained.tolist(), strict=True))

    def _take(self, record: CandidateRecord, best: float) -> None:
        self._stopped += record.stopped
        self._failed += record.failed
        generations = self._generations or record.generation + 1
        self._generation, self._best = min(record.generation, generations - 1), best
        if self._vanilla is None or not record.found or record.failed or record.stopped:
            return
        self._last.append(self._gained(record))
        is_whole = len(record.rows[0]) == len(self._vanilla.scores)
        if is_whole and (self._fittest is None or record.fitness > self._fittest.fitness):
            self._fittest = record

    def _gained(self, record: CandidateRecord) -> Array:
        """A candidate's mean difference from vanilla on the records that it saw, [positions]."""
        if self._vanilla is None:
            raise ValueError("vanilla's scores are not known yet")
        vanilla = self._vanilla.rows(record.rows[0]).measured(self._part.measure)
        return np.asarray((record.found[0].measured(self._part.measure) - vanilla).mean(axis=0))


def bars(differences: dict[int, float], measure: Measure, whose: str) -> Table:
    """One row a position: the difference from vanilla as a number and as a bar, to the right where it gains."""
    scale, unit, digits = SCALES[measure]
    largest = max(map(abs, differences.values())) or 1.0
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column(f"{whose} − vanilla", justify="right")
    table.add_column(unit, justify="right")
    table.add_column("loses", justify="right", min_width=BAR)
    table.add_column("gains", justify="left", min_width=BAR)
    for position, difference in differences.items():
        bar = "█" * round(BAR * abs(difference) / largest)
        loss, gain = (bar, "") if difference < 0 else ("", bar)
        number = f"{difference * scale:+.{digits}f}"
        table.add_row(f"@{position}", number, Text(loss, style="red"), Text(gain, style="green"))
    return table
