"""What is read from a run directory, and what is said of one that is none."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from ropewalk.errors import RopewalkError
from ropewalk.report.history import read_history
from ropewalk.report.page import Report
from ropewalk.report.runs import read_run, read_runs
from small_search import default_plan, evaluator, search


def test_a_whole_run(run_folders: dict[str, Path]) -> None:
    run = read_run(run_folders["bezier"], "kv")
    assert run.missing == []
    assert run.tasks == ["kv"]
    assert run.arms("kv")[0] == "vanilla"
    assert run.arms("kv")[-1] == "factors"
    assert run.factors is not None
    assert run.method["method"] == "bezier-ga"
    assert {"uniform_best", "line_best"} >= set(run.controls) - {"uniform"}


def test_the_study_is_as_the_search_left_it(run_folders: dict[str, Path]) -> None:
    result = json.loads((run_folders["default"] / "result.json").read_text())
    history = read_run(run_folders["default"], "kv").history
    assert history is not None
    assert len(history.candidates) == result["search"]["candidates"] - 1  # without the baseline
    assert sum(record.prompts for record in history.search) == result["search"]["evaluations"]
    assert sum(record.prompts for record in history.validation) == result["search"]["validation_evaluations"]
    assert history.vanilla is not None
    assert not history.alike
    gains = [history.gains(record, 0) for record in history.candidates]
    assert all(gain is None or gain.shape == (3,) for gain in gains)
    assert any(gain is not None for gain in gains)


def test_the_gain_of_vanilla_is_nothing(run_folders: dict[str, Path]) -> None:
    history = read_run(run_folders["mix"], "mix").history
    assert history is not None
    for task in range(2):
        gains = history.gains(history.search[0], task)
        assert gains is not None
        assert not gains.any()


def test_reading_leaves_the_folder_as_it_was(run_folders: dict[str, Path]) -> None:
    folder = run_folders["bezier"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    Report(read_runs([folder])).html()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_run_at_work_is_read_as_far_as_it_is(loaded: tuple, tmp_path: Path) -> None:
    """From inside the search, which holds its locks and writes on; the search is none the worse for it."""
    seen: list[int] = []

    def on_event(event: object) -> None:
        if type(event).__name__ == "Evaluated":
            report = Report(read_runs([tmp_path]))
            assert report.views[0]["headline"].badge == "Unfinished"
            seen.append(report.document["runs"][0]["search"]["candidates"])

    on, validation = (evaluator(*loaded, split, records=6) for split in ("search", "validation"))
    result = search(default_plan(), on, validation, tmp_path, on_event)
    assert seen[-1] == len(result.records) - 1
    assert seen == sorted(seen)
    assert not list(tmp_path.glob("study.db-*"))


def test_a_run_that_has_not_scored_anything_yet(loaded: tuple, tmp_path: Path) -> None:
    """A study whose driver was killed at once, with SQLite's files beside it."""
    from ropewalk.plan import Examples, run_settings
    from ropewalk.study import open_study

    settings = run_settings(default_plan(), Examples((evaluator(*loaded, records=6),)), None)
    with open_study(tmp_path / "live", settings):
        shutil.copytree(tmp_path / "live", tmp_path / "killed")
    assert (tmp_path / "killed" / "study.db-wal").exists()
    html = Report(read_runs([tmp_path / "killed"])).html()
    assert "No candidate has been scored yet" in html


def test_the_directory_of_mend_is_read_as_its_search(run_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(run_folders["bezier"], tmp_path / "search")
    (tmp_path / "profile.json").write_text(json.dumps({"sentence": "The middle is lost.", "tasks": []}))
    run = read_run(tmp_path, "mended")
    assert run.directory == tmp_path / "search"
    assert "Before the search: The middle is lost." in Report([run]).html()


def test_names_tell_runs_apart(run_folders: dict[str, Path], tmp_path: Path) -> None:
    folders = [tmp_path / part / "kv" for part in ("one", "two")]
    for folder in folders:
        shutil.copytree(run_folders["unfinished"], folder)
    assert [run.name for run in read_runs(folders)] == ["one/kv", "two/kv"]
    assert [run.name for run in read_runs([folders[0], folders[0]])] == ["kv"]


def test_without_scores_or_study_the_rest_is_shown(run_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(run_folders["bezier"] / "result.json", folder)
    report = Report(read_runs([folder]))
    html = report.html()
    assert "Missing in" in html
    assert "scores.json, factors.json, study.db" in html
    assert {panel.key for panel in report.panels} == {"run1-accuracy-kv", "run1-likelihood-kv"}


def spoil(kind: str, folder: Path) -> Path:
    if kind == "missing":
        return folder / "nowhere"
    if kind == "file":
        (folder / "notes.txt").write_text("")
        return folder / "notes.txt"
    if kind == "corrupt":
        (folder / "study.db").write_bytes(os.urandom(20000))
    elif kind == "foreign":
        with sqlite3.connect(folder / "study.db") as connection:
            connection.execute("CREATE TABLE t (a)")
    elif kind == "profile":
        (folder / "profile.json").write_text("{}")
    elif kind == "half":
        (folder / "result.json").write_text('{"tasks": {')
    elif kind == "other":
        (folder / "result.json").write_text('{"vanilla": {}}')
    elif kind == "older":
        content = {name: {} for name in ("sentence", "search", "provenance", "constraints")}
        (folder / "result.json").write_text(json.dumps({**content, "tasks": {"kv": {"task": {}}}}))
    return folder


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no such folder, expected the run directory of a search"),
        ("file", "is a file, expected the run directory"),
        ("empty", "holds no run, expected study.db or result.json"),
        ("corrupt", "can't be read as the study of a search"),
        ("foreign", "study"),
        ("profile", "did not search"),
        ("half", "not JSON"),
        ("other", "has no tasks, sentence"),
        ("older", "made by another version"),
    ],
)
def test_what_is_no_run_is_said_in_a_line(kind: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RopewalkError) as caught:
        read_runs([spoil(kind, tmp_path)])
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_of_another_version_is_refused(run_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(run_folders["bezier"] / "study.db", tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE study_user_attributes SET value_json = replace(value_json, 'study/3', 'study/2')")
    connection.close()
    with pytest.raises(RopewalkError, match=r"its records are 'ropewalk.study/2'"):
        read_history(tmp_path / "study.db")


def test_scores_of_other_tasks_are_refused(run_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(run_folders["mix"], tmp_path / "run")
    shutil.copy(run_folders["bezier"] / "scores.json", tmp_path / "run" / "scores.json")
    with pytest.raises(RopewalkError, match="expected the scores of kv, needle"):
        read_runs([tmp_path / "run"])
