"""What the arms of `layers` are, what sentences claim, and which cells of `transfer` are at home."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ropewalk.analysis import make_analysis
from ropewalk.analysis.base import Subject
from ropewalk.analysis.layers import parts_of
from ropewalk.analysis.sensitivity import _basis, _changed
from ropewalk.analysis.transfer import _labels, _own_tasks
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors
from tiny import tiny_model


def test_parts_cover_the_rotary_layers_and_leave_out_the_others() -> None:
    rotary = [0, 1, 2, 4, 5, 6, 8]
    parts = parts_of(rotary, singles=True)
    assert parts["all"] == rotary
    for names in (("first half", "last half"), ("first third", "middle third", "last third")):
        assert [layer for name in names for layer in parts[name]] == rotary
    assert [parts[f"layer {layer}"] for layer in rotary] == [[layer] for layer in rotary]
    assert list(parts_of([3], singles=False)) == ["all", "first half", "first third"]


def test_only_some_layers_get_the_factors() -> None:
    subject = Subject(tiny_model("llama"))
    assert subject.only([1, 3], 1.2).values == (1.0, 1.2, 1.0, 1.2)
    assert subject.only([0, 3], ScalingFactors([0.8, 0.9, 1.1, 1.2])).values == (0.8, 1.0, 1.0, 1.2)
    mixed = Subject(tiny_model("smollm3", num_hidden_layers=4))
    assert mixed.only([0, 3], 1.2).values == (1.2, 1.0, 1.0, None)
    with pytest.raises(DataError, match="0 sets of factors were given, expected one: --factors FILE"):
        _ = subject.one_set


@pytest.mark.parametrize(
    ("kind", "rotary", "skipped"), [("llama", None, 0), ("llama", None, 1), ("smollm3", [0, 1, 2], 0)]
)
def test_a_changed_control_point_gives_the_factors_of_the_changed_curve(
    kind: str, rotary: list[int] | None, skipped: int
) -> None:
    points = np.array([[0.0, 0.9], [0.3, 1.1], [0.6, 1.2], [1.0, 0.95]])
    changes = np.array([0.3, 0.0, -0.3, 0.0])
    space = {"method": {"space": {"mode": "depth", "skip_first": skipped}}}

    def curve(moved: Any) -> ScalingFactors:
        return ScalingFactors.from_bezier(moved, 4, rotary_layers=rotary, skip_first=skipped)

    given = ScalingFactors(curve(points).values, found={"control_points": points.tolist()} | space)
    basis = _basis(Subject(tiny_model(kind, num_hidden_layers=4)), given, 4)
    expected = curve(points + np.stack([np.zeros(4), changes], axis=1))
    np.testing.assert_allclose(_changed(given, changes @ basis).to_array(), expected.to_array(), atol=1e-9)
    free = ScalingFactors(given.values)  # on no curve that its file would name: four points evenly spread
    assert _basis(Subject(tiny_model(kind, num_hidden_layers=4)), free, 4).shape == (4, len(given.rotary_layers))
    with pytest.raises(DataError, match="a factor would become"):
        _changed(given, -2 * basis.sum(axis=0))


def row(difference: float, p: float) -> dict[str, Any]:
    return {"difference": difference, "low": difference - 0.01, "high": difference + 0.01, "p": p, "p_holm": p}


@pytest.mark.parametrize(
    ("early", "late", "says"),
    [
        (row(0.1, 0.001), row(0.2, 0.001), "help the end (@9: +0.1 nats a token"),
        (row(0.1, 0.001), row(0.2, 0.001), "late layers help the beginning"),
        (row(0.1, 0.001), row(0.2, 0.001), ": as the paper says."),
        (row(-0.1, 0.001), row(0.2, 0.001), "hurt the end"),
        (row(-0.1, 0.001), row(0.2, 0.001), ": not as the paper says."),
        (row(0.1, 0.2), row(0.2, 0.001), "change nothing beyond the noise at the end"),
        (row(0.1, 0.2), row(0.2, 0.001), "(95 % interval +0.09 to +0.11), p = 0.2 (Holm))"),
        (row(0.1, 0.2), row(0.2, 0.001), ": what the paper says is not shown."),
    ],
)
def test_the_sentence_says_as_much_as_the_tests(early: Any, late: Any, says: str) -> None:
    records = {"positions": [0, 4, 9], "claim": {"1.1": {"early": early, "late": late}}}
    assert says in make_analysis("layers").answer(records)


@pytest.mark.parametrize(
    ("slow", "fast", "between", "says"),
    [
        (0.001, 0.5, 0.01, "it is the slow ones that matter"),
        (0.001, 0.5, 0.30, "the slow ones matter, but not beyond the noise more than the others"),
        (0.5, 0.001, 0.01, "it is not the decay"),
        (0.5, 0.001, 0.30, "the fast ones matter, but not beyond the noise more than the others"),
        (0.001, 0.001, 0.01, "both matter, the slow ones more."),
        (0.001, 0.001, 0.30, "both matter."),
        (0.5, 0.5, 0.01, "neither matters beyond the noise"),
    ],
)
def test_slow_pairs_are_said_to_matter_more_only_where_they_do(
    slow: float, fast: float, between: float, says: str
) -> None:
    found = {kind: {"likelihood": row(0.1, p)} for kind, p in (("slow", slow), ("fast", fast), ("all", 0.1))}
    records = {"arms": {"1.1": found}, "slow_over_fast": {"1.1": row(0.1, between)}}
    answer = make_analysis("frequencies").answer(records | {"slow": 3, "turns": [0.1] * 8, "wavelength": 100.0})
    assert f": {says}" in answer


def test_a_cell_is_at_home_where_the_factors_were_found_on_such_a_task() -> None:
    tasks = {
        "kv": {"task": "kv", "variant": "plain", "keys": 10, "positions": [0, 9], "seed": 0, "data": None},
        "kv 2": {"task": "kv", "variant": "plain", "keys": 20, "positions": [0, 19], "seed": 0, "data": None},
        "needle": {"task": "needle", "options": {"lengths": [2000]}},
    }
    searched = ScalingFactors([1.1], found={"tasks": [{**tasks["kv"], "seed": 3, "positions": [0, 5], "sha256": "…"}]})
    by_hand = ScalingFactors([1.1], found={"task": {"task": "kv", "keys": 20}})
    other = ScalingFactors([1.1], found={"tasks": [{"task": "needle", "options": {"lengths": [4000]}}]})
    assert _own_tasks(searched, tasks) == ["kv"]
    assert _own_tasks(by_hand, tasks) == ["kv 2"]
    assert _own_tasks(other, tasks) == _own_tasks(ScalingFactors([1.1]), tasks) == []


def test_transfer_counts_the_cells_away_from_home() -> None:
    """A mean over tasks of other sizes hides that most of them gain."""
    found = {"kv": row(0.3, 0.001), "kv 2": row(0.1, 0.001), "mdqa": row(-0.5, 0.4), "needle": row(-0.1, 0.01)}
    unknown = {task: {"likelihood": row(0.1, 0.001)} for task in found}
    records = {
        "cells": {"kv": {task: {"likelihood": cell} for task, cell in found.items()}, "hand": unknown},
        "factors": {"kv": {"home": ["kv"]}, "hand": {"home": []}},
        "home": row(0.3, 0.001),
        "away": row(-0.1, 0.4),
    }
    answer = make_analysis("transfer").answer(records)
    assert "factors gain outside the noise in 1 of 3 cells and lose in 1; U changes there by -0.1 nats a" in answer
    assert answer.endswith(
        "on average, and by +0.3 nats a token (95 % interval +0.29 to +0.31) on what they were found on."
    )


def test_factors_are_called_by_their_run_or_file() -> None:
    assert _labels(["runs/kv/factors.json", "runs/mdqa", "hand.json"]) == ["kv", "mdqa", "hand"]
    same = ["a/kv/factors.json", "b/kv/factors.json"]
    assert _labels(same) == same
