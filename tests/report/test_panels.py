"""Charts of single things that small runs do not show: a second stage, many tasks' units, ruined candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ropewalk import ScalingFactors
from ropewalk.report.arms import factors_panel, key
from ropewalk.report.convergence import BEST, ONE, convergence_panels, fitness_words, generations, points
from ropewalk.report.heat import heat_panel
from ropewalk.report.history import History
from ropewalk.report.layers import change_rows, curve_rows
from ropewalk.report.numbers import Numbers, pointer
from ropewalk.report.runs import read_run

POINTS = [[0.0, 0.9], [0.5, 1.2], [0.5, 1.2], [1.0, 1.0]]


def history_of(folder: Path) -> History:
    history = read_run(folder, "run").history
    assert history is not None
    return history


def rows_of(panel: object) -> list[dict]:
    return [row for rows in panel.spec()["datasets"].values() for row in rows]  # type: ignore[attr-defined]


# A second stage ----------------------------------------------------------------------------------------------------


def second_stage() -> ScalingFactors:
    curve = ScalingFactors.from_bezier(POINTS, 5)
    offsets = [0.0, 0.1, 0.0, -0.05, 0.0]
    values = [value + offset for value, offset in zip(curve.values, offsets, strict=True)]
    return ScalingFactors(values, found={"control_points": POINTS, "offsets": offsets})


def test_a_second_stages_changes_start_at_the_curve() -> None:
    curve = ScalingFactors.from_bezier(POINTS, 5)
    rows = change_rows("found", second_stage())
    assert [(row["x"], round(row["y"] - row["from"], 9)) for row in rows] == [(1, 0.1), (3, -0.05)]
    assert [row["from"] for row in rows] == [curve[1], curve[3]]
    fine = {row["x"]: row["y"] for row in curve_rows("found", second_stage())}
    assert [fine[layer] for layer in range(5)] == pytest.approx(curve.values, abs=1e-6)


def test_the_factors_panel_tells_the_second_stage(run_folders: dict[str, Path]) -> None:
    run = replace(read_run(run_folders["bezier"], "run"), factors=second_stage(), controls={})
    panel = factors_panel(run, 0, Numbers({"runs": [{"factors": second_stage().to_dict()}]}))
    assert panel is not None
    assert "what a second stage changed" in panel.note
    assert "bars: what the second stage changed" in panel.note.lower()
    assert panel.columns[-1] == "curve"
    assert [row[-1] for row in panel.rows].count("") == 3


# Convergence -------------------------------------------------------------------------------------------------------


def test_evaluations_and_seconds_add_up(run_folders: dict[str, Path]) -> None:
    history = history_of(run_folders["bezier"])
    scored = points(history)
    assert scored[-1].evaluations == sum(record.prompts for record in history.search)
    assert scored[-1].seconds == pytest.approx(sum(record.seconds for record in history.search))
    assert [len(group) for group in generations(history)] == [5, 4, 4]
    assert fitness_words(history) == "U of log-likelihood, nats a token, above vanilla"


def test_the_unit_of_a_mix_is_its_own(run_folders: dict[str, Path]) -> None:
    assert "spreads of vanilla" in fitness_words(history_of(run_folders["mix"]))


def test_a_ruined_candidate_does_not_hide_the_others(run_folders: dict[str, Path]) -> None:
    history = history_of(run_folders["bezier"])
    many = [replace(record, generation=g) for g in range(10) for record in history.candidates]
    ruined = replace(many[5], generation=3, slot=99, fitness=-1e6)
    by_evaluations, _ = convergence_panels(History(history.settings, (history.search[0], *many, ruined), ()), 0)
    assert "1 candidate lies below the frame" in by_evaluations.note
    (domain,) = {
        tuple(layer["encoding"]["y"]["scale"]["domain"])
        for layer in by_evaluations.spec()["layer"]
        if "scale" in layer["encoding"]["y"]
    }
    assert domain[0] > -1


def test_a_failed_candidate_has_no_point(run_folders: dict[str, Path]) -> None:
    history = history_of(run_folders["bezier"])
    failed = replace(history.search[-1], slot=98, fitness=float("nan"), found=(), error="E")
    worse = History(history.settings, (*history.search, failed), ())
    assert len(points(worse)) == len(points(history))
    by_evaluations, by_time = convergence_panels(worse, 0)
    assert {ONE, BEST} <= {row.get("series") for row in rows_of(by_evaluations)}
    assert by_time.columns[1] == "seconds"


def test_before_a_candidate_there_is_nothing_to_draw(run_folders: dict[str, Path]) -> None:
    history = history_of(run_folders["bezier"])
    bare = History(history.settings, history.search[:1], ())
    assert convergence_panels(bare, 0) == []
    assert heat_panel(bare, 0, 0) is None


# Heat map ----------------------------------------------------------------------------------------------------------


def test_the_heat_map_holds_the_gains_of_every_candidate(run_folders: dict[str, Path]) -> None:
    history = history_of(run_folders["bezier"])
    panel = heat_panel(history, 0, 0)
    assert panel is not None
    scored = [gains for gains in (history.gains(record, 0) for record in history.candidates) if gains is not None]
    drawn = [row["gain"] for row in rows_of(panel)]
    assert drawn == pytest.approx(np.concatenate(scored).tolist(), rel=1e-5, abs=1e-12)
    assert len(panel.rows) == len(scored)


# Numbers -----------------------------------------------------------------------------------------------------------


def test_a_number_carries_its_place() -> None:
    numbers = Numbers({"a/b": [{"~": 0.125}], "none": None})
    shown = numbers(("a/b", 0, "~"), "points")
    assert str(shown) == '<data value="0.125" data-at="/a~1b/0/~0" data-form="points">+12.5</data>'
    assert numbers(("none",), "p") == "–"
    assert pointer(("a/b", 0, "~")) == "/a~1b/0/~0"
    with pytest.raises(KeyError):
        numbers(("nothing",), "p")


def test_a_key_is_fit_for_a_file() -> None:
    assert key(1, "heat", "kv 2/../x") == "run2-heat-kv-2----x"
