"""Additive or redundant: the verdict on made-up results whose truth is known, and the files that are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk import files
from ropewalk.analysis import make_analysis
from ropewalk.analysis.base import Subject
from ropewalk.cli import run
from ropewalk.errors import DataError


def figures(depth: float, gain: float, metric: str = "exact_match", positions: int = 3) -> dict[str, Any]:
    """What eval writes, as far as it is read: a U of that depth, and that gain on average over positions."""
    accuracy = [0.6, *[0.6 - depth] * (positions - 2), 0.6][:positions]
    average = {"difference": gain, "low": gain - 0.02, "high": gain + 0.02, "p": 0.01}
    vanilla = {"accuracy": accuracy, "metric": metric, "records": 100}
    return {"positions": list(range(positions)), "vanilla": vanilla, "gain": {"factors": {"average": average}}}


def answer(folder: Path, points: list[tuple[float, float]]) -> tuple[str, dict[str, Any]]:
    for number, (depth, gain) in enumerate(points):
        files.write_json(folder / f"eval{number}.json", figures(depth, gain))
    analysis = make_analysis("posttraining")
    records = analysis.records(Subject(files=[folder]))
    return analysis.answer(records), records


DEPTHS = np.linspace(0.05, 0.5, 8)
NOISE = np.array([1, -1, 1, 1, -1, -1, 1, -1]) * 0.004


def test_a_gain_in_proportion_to_the_depth_is_redundant(tmp_path: Path) -> None:
    sentence, records = answer(tmp_path, list(zip(DEPTHS, 0.3 * DEPTHS + NOISE, strict=True)))
    assert "the gain is redundant with a flatter U" in sentence
    assert records["slope"]["low"] < 0.3 < records["slope"]["high"]
    assert records["p"] < 0.01


def test_the_same_gain_everywhere_is_additive(tmp_path: Path) -> None:
    sentence, records = answer(tmp_path, list(zip(DEPTHS, 0.1 + NOISE, strict=True)))
    assert "so it is additive" in sentence
    assert records["slope"]["low"] < 0 < records["slope"]["high"]


def test_a_gain_that_could_be_either_is_said_to_be(tmp_path: Path) -> None:
    sentence, _ = answer(tmp_path, list(zip(DEPTHS, 0.05 + 0.15 * DEPTHS + 15 * NOISE, strict=True)))
    assert "does not exclude redundant" in sentence


def test_no_gain_is_neither(tmp_path: Path) -> None:
    sentence, _ = answer(tmp_path, list(zip(DEPTHS, NOISE, strict=True)))
    assert "neither a relation nor a gain beyond the noise" in sentence


@pytest.mark.parametrize("count", [1, 2, 4])
def test_too_few_settings_are_said_to_be_too_few(tmp_path: Path, count: int) -> None:
    sentence, _ = answer(tmp_path, list(zip(DEPTHS, 0.3 * DEPTHS, strict=True))[:count])
    assert sentence.startswith(f"{count} setting")
    assert "at least 5" in sentence


def test_five_settings_in_perfect_order_are_enough(tmp_path: Path) -> None:
    sentence, _ = answer(tmp_path, list(zip(DEPTHS, 0.3 * DEPTHS, strict=True))[:5])
    assert "redundant with a flatter U" in sentence


def test_results_without_a_u_are_left_out_and_counted(tmp_path: Path) -> None:
    for name, found in {
        "a": figures(0.2, 0.1),
        "text": figures(0.2, 0.1, metric="next_token_accuracy"),
        "two": figures(0.2, 0.1, positions=2),
    }.items():
        files.write_json(tmp_path / f"{name}.json", found)
    records = make_analysis("posttraining").records(Subject(files=[tmp_path]))
    assert (len(records["settings"]), records["left_out"]) == (1, 2)


def test_runs_and_matrices_are_read_with_their_models(tmp_path: Path) -> None:
    run_figures = {"tasks": {"kv": figures(0.2, 0.1), "mdqa": figures(0.1, 0.1)}}
    provenance = {"provenance": {"model": {"name": "one"}}}
    files.write_json(tmp_path / "mended" / "search" / "result.json", run_figures | provenance)
    cell, vanilla = figures(0.3, 0.2)["gain"]["factors"], figures(0.3, 0.2)["vanilla"]
    matrix = {"tasks": {"kv": {"positions": [0, 1, 2], "vanilla": vanilla}}, "cells": {"a": {"kv": cell}}}
    settings = {"analysis": "transfer", "model": {"name": "two"}}
    files.write_json(tmp_path / "matrix" / "analysis.json", {"settings": settings, "records": matrix})
    given = [tmp_path / "mended", tmp_path / "matrix"]
    records = make_analysis("posttraining").records(Subject(files=given))
    shown = {(one["name"], one["model"]) for one in records["settings"]}
    assert shown == {("mended: kv", "one"), ("mended: mdqa", "one"), ("a on kv", "two")}
    assert [one["depth"] for one in records["settings"]] == pytest.approx([0.2, 0.1, 0.3])


@pytest.mark.parametrize(
    ("content", "says"), [({"some": "thing"}, "holds no test of factors"), ([1, 2], "holds no test of factors")]
)
def test_other_files_are_refused_by_their_name(tmp_path: Path, content: Any, says: str) -> None:
    files.write_json(tmp_path / "other.json", content)
    with pytest.raises(DataError, match=rf"other\.json: {says}"):
        make_analysis("posttraining").records(Subject(files=[tmp_path / "other.json"]))


def test_the_command_needs_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["analyze", "posttraining"]) == 2
    assert "no results given" in capsys.readouterr().err
    assert run(["analyze", "posttraining", "nowhere"]) == 2
    assert "nowhere: no such file" in capsys.readouterr().err
    assert not Path("runs/analyze-posttraining/report.html").exists()
    files.write_json("eval.json", figures(0.2, 0.1))
    assert run(["analyze", "posttraining", "eval.json"]) == 0
    assert "1 setting can't tell" in " ".join(capsys.readouterr().out.split())
    assert Path("runs/analyze-posttraining/report.html").exists()
