"""The page against the files of the runs: every number, every chart, every name."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from page_reader import Read, at, read_page

from ropewalk.report.history import History
from ropewalk.report.page import Report
from ropewalk.report.runs import read_run, read_runs
from ropewalk.study import CandidateRecord, open_study

MOST_BYTES = 5_000_000
SCALES = {"percent": (100, 0), "percent1": (100, 1), "points": (100, 1), "nats": (1, 4), "nll": (1, 4), "count": (1, 0)}
SCALES |= {"factor": (1, 3)}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def pages(run_folders: dict[str, Path]) -> dict[str, Read]:
    """The page of each run, and one of all of them."""
    found = {name: read_page(Report(read_runs([folder])).html()) for name, folder in run_folders.items()}
    return found | {"all": read_page(Report(read_runs(list(run_folders.values()))).html())}


def shown(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


@pytest.mark.parametrize("name", ["bezier", "default", "mix", "identity", "unfinished", "all"])
def test_every_number_is_the_runs_own(name: str, pages: dict[str, Read], run_folders: dict[str, Path]) -> None:
    page = pages[name]
    folders = list(run_folders.values()) if name == "all" else [run_folders[name]]
    assert page.numbers
    for number in page.numbers:
        _, _, run, part, *_ = number.at.split("/")
        if part in ("result", "factors"):
            file = read(folders[int(run)] / f"{part}.json")
            value = at({"runs": {run: {part: file}}}, number.at)
            assert repr(value) == number.value, number
        else:  # counted from the study
            value = at(page.blocks["run-data"], number.at)
        if number.form in SCALES:
            scale, digits = SCALES[number.form]
            assert math.isclose(shown(number.text), scale * value, abs_tol=0.5000001 * 10**-digits), number
        else:
            assert math.isclose(shown(number.text), value, rel_tol=0.06 if number.form == "p" else 0.006), number


@pytest.mark.parametrize("name", ["bezier", "default", "mix"])
def test_the_headline_has_gain_interval_and_p(name: str, pages: dict[str, Read], run_folders: dict[str, Path]) -> None:
    places = {number.at for number in pages[name].numbers}
    for task in read(run_folders[name] / "result.json")["tasks"]:
        for kind in ("average", "average_log_likelihood"):
            for part in ("difference", "low", "high", "p"):
                assert f"/runs/0/result/tasks/{task}/gain/factors/{kind}/{part}" in places


def test_the_json_in_the_page_is_that_of_the_run(pages: dict[str, Read], run_folders: dict[str, Path]) -> None:
    (run,) = pages["bezier"].blocks["run-data"]["runs"]
    assert run["result"] == read(run_folders["bezier"] / "result.json")
    assert run["factors"] == read(run_folders["bezier"] / "factors.json")


def datasets(page: Read, key: str) -> list[dict[str, Any]]:
    return [row for rows in page.blocks["charts"][key]["datasets"].values() for row in rows]


@pytest.mark.parametrize(("name", "task"), [("bezier", "kv"), ("mix", "needle")])
def test_charts_hold_the_accuracies_and_intervals_of_every_arm(
    name: str, task: str, pages: dict[str, Read], run_folders: dict[str, Path]
) -> None:
    block = read(run_folders[name] / "result.json")["tasks"][task]
    rows = datasets(pages[name], f"run1-accuracy-{task}")
    arms = ["vanilla", *block["gain"]]
    assert len(rows) == len(arms) * len(block["positions"])
    wanted = {
        (position, block[arm]["accuracy"][row], *block[arm]["interval"][row])
        for arm in arms
        for row, position in enumerate(block["positions"])
    }
    assert {(row["x"], row["y"], row["low"], row["high"]) for row in rows} == wanted
    gains = {(row["x"], row["y"], row["low"], row["high"]) for row in datasets(pages[name], f"run1-likelihood-{task}")
             if "x" in row}  # fmt: skip
    assert gains == {
        (position, row["difference"], row["low"], row["high"])
        for arm in block["gain"]
        for position, row in zip(block["positions"], block["gain"][arm]["log_likelihood"], strict=True)
    }


def test_a_curve_has_its_control_points_and_free_factors_have_none(pages: dict[str, Read]) -> None:
    assert any("order" in row for row in datasets(pages["bezier"], "run1-factors"))
    assert "a Bézier curve with its control points" in pages["bezier"].words
    assert not any("order" in row for row in datasets(pages["default"], "run1-factors"))
    assert "a free factor in every layer" in pages["default"].words or "All factors are 1" in pages["default"].words


def test_the_best_so_far_is_drawn_only_where_candidates_can_be_compared(pages: dict[str, Read]) -> None:
    rows = datasets(pages["bezier"], "run1-convergence-evaluations")
    best = [row["y"] for row in rows if row.get("series") == "best so far"]
    assert best == sorted(best)
    assert best[0] == 0.0
    rows = datasets(pages["default"], "run1-convergence-evaluations")
    assert "best so far" not in {row.get("series") for row in rows}
    assert "a single score is mostly luck" in pages["default"].words


def test_vanilla_stays_is_said(pages: dict[str, Read]) -> None:
    words = pages["identity"].words
    assert "Vanilla stays" in words
    assert "the answer is vanilla" in words
    assert "There is nothing to use" in words
    assert "Write a checkpoint" not in words


def test_an_unfinished_run_says_what_is_there_and_what_is_missing(pages: dict[str, Read]) -> None:
    page = pages["unfinished"]
    assert "Unfinished" in page.words
    assert "Missing: result.json, scores.json" in page.words
    assert {"run1-factors", "run1-convergence-time", "run1-heat-kv"} <= page.blocks["charts"].keys()
    assert not any("accuracy" in key for key in page.blocks["charts"])


def test_settings_provenance_constraints_and_commands(pages: dict[str, Read], run_folders: dict[str, Path]) -> None:
    words = pages["mix"].words
    result = read(run_folders["mix"] / "result.json")
    assert result["provenance"]["model"]["fingerprint"] in words
    assert "method.population" in words
    assert "Constraint position @0 of kv: holds on the test" in words
    assert "--task kv:keys=2,share=2" in words.replace("'", "")
    assert words.count("ropewalk eval") == 2


def test_several_runs_stand_side_by_side(pages: dict[str, Read], run_folders: dict[str, Path]) -> None:
    page = pages["all"]
    assert f"{len(run_folders)} runs side by side" in page.words
    charts = page.blocks["charts"]
    assert {"all-factors", "all-accuracy-1"} <= charts.keys()
    assert {row["arm"] for row in datasets(page, "all-accuracy-1")} == {"vanilla", "bezier", "default"}
    boxes = [given["data-chart"] for _, given in page.tags if "data-chart" in given]
    assert sorted(boxes) == sorted(charts)
    assert len(boxes) == len(set(boxes))
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))


def test_every_link_has_its_target_and_every_chart_words_and_a_table(pages: dict[str, Read]) -> None:
    page = pages["all"]
    ids = {given.get("id") for _, given in page.tags}
    links = [given["href"] or "" for tag, given in page.tags if tag == "a"]
    assert links[0] == "#main"
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    for _, given in page.tags:
        if "data-chart" in given:
            assert given["tabindex"] == "0"
            assert given["role"] == "img"
            assert given["aria-label"]
    assert page.words.count("Numbers of:") == len(page.blocks["charts"])


def test_nothing_is_fetched_and_the_program_is_there_once(run_folders: dict[str, Path]) -> None:
    html = Report(read_runs(list(run_folders.values()))).html()
    assert len(html.encode()) < MOST_BYTES
    assert html.count("window.vegaEmbed") == 1
    page = read_page(html)
    sources = [given.get("src") or given.get("href") for tag, given in page.tags if tag in ("script", "link", "img")]
    assert {source for source in sources if source} == {"data:,"}


def test_names_and_errors_are_text_wherever_they_stand(run_folders: dict[str, Path], tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">&'
    folder = tmp_path / evil
    shutil.copytree(run_folders["unfinished"], folder)
    settings = {name: value for name, value in read_run(folder, "run").history.settings.items() if name != "schema"}
    with open_study(folder, settings) as study:
        some = next(iter(study.records().values())).candidate
        study.add(CandidateRecord(99, 0, some, math.nan, error="E: </script><script>alert(2)</script><!--"))
    page = read_page(Report(read_runs([folder])).html())
    assert "img" not in {tag for tag, _ in page.tags}
    assert evil in page.words
    assert "A candidate failed: E: </script><script>alert(2)</script><!--" in page.words
    assert sum(tag == "script" for tag, _ in page.tags) == 5
    assert page.blocks["run-data"]["runs"][0]["name"] == evil


def test_thousands_of_candidates_still_make_a_small_page(run_folders: dict[str, Path]) -> None:
    run = read_run(run_folders["default"], "many")
    history = run.history
    assert history is not None
    many = [
        replace(record, generation=generation, slot=slot)
        for generation in range(250)
        for slot, record in enumerate(history.candidates[:24])
    ]
    grown = History(history.settings, (history.search[0], *many), history.validation)
    report = Report([replace(run, history=grown)])
    assert len(report.html().encode()) < 2_000_000
    (heat,) = [panel for panel in report.panels if "heat" in panel.key]
    assert 60 <= len(heat.rows) <= 120
    assert "A column is the mean of" in heat.note


def test_figures_become_files(run_folders: dict[str, Path], tmp_path: Path) -> None:
    report = Report(read_runs([run_folders["bezier"], run_folders["default"]]))
    for panel in report.panels[:3]:
        svg, png = panel.save(tmp_path / "figures", report.title(panel))
        assert svg.read_text().lstrip().startswith("<svg")
        assert png.read_bytes().startswith(b"\x89PNG")
    assert report.title(report.comparison[0]) == "2 runs"
    assert report.title(report.views[0]["panels"][0]) == "bezier: tiny model, kv"
