"""The live view, driven by the events of a real search: its words, its bars, and plain lines without a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ropewalk.cli import console
from ropewalk.cli.live import SearchView, bars
from ropewalk.constraints import Scores
from ropewalk.events import Baseline, Evaluated, Scored, Spared, Stage
from ropewalk.objectives import Objective, Part
from ropewalk.run import Examples, search
from ropewalk.search.space import SearchSpace
from ropewalk.study import CandidateRecord
from small_search import evaluator, plan

IDENTITY = SearchSpace(4).identity()
VANILLA = Scores(np.zeros((4, 2)), np.array([[-9.0, -9.0]] * 2 + [[-3.0, -3.0]] * 2), (0, 7))
PART, ALL = (2, 3), (2, 3, 2, 3)  # the rows that a candidate saw


def record(fitness: float, likelihood: float, rows: tuple[int, ...] = ALL, **more: Any) -> CandidateRecord:
    """A candidate with this likelihood at the first position, and half a nat below vanilla at the other one."""
    found = Scores(np.zeros((len(rows), 2)), np.array([[likelihood, -3.5]] * len(rows)), (0, 7))
    return CandidateRecord(more.pop("generation", 1), 0, IDENTITY, fitness, (found,), (rows,), **more)


def view(part: Part | None = None, generations: int | None = 3) -> SearchView:
    shown = SearchView(Objective((part or Part(name="kv"),)), generations)
    shown.on_event(Stage("Search", 100))
    shown.on_event(Baseline((VANILLA,)))
    return shown


def drawn(*parts: Any) -> str:
    screen = Console(width=100, record=True, file=io.StringIO())
    for part in parts:
        screen.print(part)
    return screen.export_text()


def test_the_fittest_is_compared_with_vanilla() -> None:
    shown = view()
    assert shown.differences() == {}
    shown.on_event(Evaluated(record(0.5, -2.0), 0.5))
    shown.on_event(Evaluated(record(0.1, -2.9), 0.5))
    assert shown.differences() == {0: 1.0, 7: -0.5}
    lines = drawn(*shown.extra()).splitlines()
    assert lines[0].startswith("kv fittest − vanilla  nats/token")
    assert [line.split()[:2] for line in lines[1:3]] == [["@0", "+1.0000"], ["@7", "-0.5000"]]
    assert [line.count("█") for line in lines[1:3]] == [20, 10]
    assert lines[1].index("█") > lines[2].index("█")  # gains to the right of losses


def test_of_candidates_that_saw_a_part_of_the_records_the_mean_is_shown() -> None:
    shown = view()
    shown.on_event(Evaluated(record(0.5, -2.0, PART), 0.1))
    shown.on_event(Evaluated(record(0.1, -3.0, PART), 0.1))
    assert shown.differences() == {0: 0.5, 7: -0.5}
    assert drawn(*shown.extra()).startswith("kv last 2 candidates − vanilla")


def test_accuracy_is_in_points() -> None:
    assert "+25.0" in drawn(bars({3: 0.25}, "accuracy", "kv"))
    assert "█" not in drawn(bars({3: 0.0}, "accuracy", "kv"))


def test_those_that_failed_or_stopped_are_counted_and_draw_no_bars() -> None:
    shown = view()
    shown.on_event(Evaluated(record(float("nan"), -2.0, error="bad"), 0.0))
    shown.on_event(Evaluated(record(0.3, -2.0, stopped=True), 0.3))
    assert shown.differences() == {}
    assert "generation 2 of 3, best +0.3000, 1 stopped early, 1 failed" in shown.headline()


def test_the_generation_never_exceeds_their_number() -> None:
    shown = view(generations=2)
    shown.on_event(Evaluated(record(0.3, -2.0, generation=2), 0.3))  # the last mean of the default method
    assert shown.headline().startswith("generation 2 of 2")


def test_only_the_search_has_bars() -> None:
    shown = view()
    shown.on_event(Evaluated(record(0.5, -2.0), 0.5))
    shown.on_event(Stage("Finalists", 10))
    assert list(shown.extra()) == []


def test_spared_prompts_shorten_the_stage() -> None:
    shown = view()
    shown.on_event(Scored(40))
    shown.on_event(Spared(50))
    assert (shown._done, shown._total) == (40, 50)
    shown.on_event(Spared(50))
    assert shown._total == 40


def test_without_a_terminal_there_are_lines(
    loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LINE_EVERY", 0.0)
    small = plan()
    shown = SearchView(small.objective, 3)
    with shown:
        search(small, Examples((evaluator(*loaded),)), None, tmp_path, on_event=shown.on_event)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Search: ")
    assert any("generation 3 of 3, best" in line and "prompts/s" in line for line in lines)
    assert not any("-" in line.split(" s, ")[1].split(" s left")[0] for line in lines if " s left" in line)


def test_a_terminal_of_80_columns_has_room_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(width=80, force_terminal=True, record=True, file=io.StringIO())
    monkeypatch.setattr(console, "errors", lambda: screen)
    shown = view(generations=160)
    shown.on_event(Stage("Search", 1234567))
    shown.on_event(Evaluated(record(0.5, -2.0, generation=122), 0.5))
    shown._stopped = shown._failed = 99999
    shown.on_event(Evaluated(record(0.5, -2.0, generation=122), 0.5))
    screen.print(shown._screen())
    text = screen.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for words in ("0/1234567 prompts", " left ", "generation 123 of 160, best +0.5000, 99999 stopped early", "@7"):
        assert words in text
