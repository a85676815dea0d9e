"""What every analysis promises; a new file in `ropewalk.analysis` is tested here as it is, on a tiny model.

It gets the task kv at three positions, four records of three keys, and factors of four layers. One that takes files
gets the figures of two profiles, one that needs more gets it from `GIVEN`.
"""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ropewalk.analysis import analysis_class, analysis_names, make_analysis
from ropewalk.cli import run
from ropewalk.errors import DataError, RopewalkError
from ropewalk.factors import ScalingFactors

FACTORS = {"control_points": [[0.0, 0.9], [0.4, 1.1], [0.7, 1.0], [1.0, 0.95]]}
TASK = ["--no-chat-template", "--keys", "3", "--positions", "3", "--limit", "4"]
GIVEN: dict[str, list[str]] = {}  # further arguments that an analysis needs to be quick

every_analysis = pytest.mark.parametrize("name", analysis_names())


@pytest.fixture(scope="module")
def words(roomy_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The arguments with which an analysis runs on the tiny model."""
    folder = tmp_path_factory.mktemp("given")
    space = {"method": {"space": {"mode": "depth", "skip_first": 0}}}
    found = ScalingFactors.from_bezier(FACTORS["control_points"], 4).values
    ScalingFactors(found, found=FACTORS | space).save(folder / "factors.json")
    model = ["--model", str(roomy_path)]

    def arguments(name: str) -> list[str]:
        if analysis_class(name).form == "files":
            return ["analyze", name, *_results(folder, [*model, *TASK]), *GIVEN.get(name, [])]
        return ["analyze", name, *model, *TASK, "--factors", str(folder), *GIVEN.get(name, [])]

    return arguments


def _results(folder: Path, given: list[str]) -> list[str]:
    paths = [folder / f"eval{seed}.json" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        command = ["eval", *given, "--factors", str(folder / "factors.json"), "--seed", str(seed), "--json", str(path)]
        assert path.exists() or run(command) == 0
    return [str(path) for path in paths]


@every_analysis
def test_it_says_what_it_asks(name: str) -> None:
    kind = analysis_class(name)
    assert kind.name == name
    assert kind.question.endswith("?")
    assert kind.example.startswith(f"ropewalk analyze {name} ")
    assert dataclasses.is_dataclass(kind.OPTIONS)
    assert all(entry.metadata["description"].endswith(".") for entry in dataclasses.fields(kind.OPTIONS))
    make_analysis(name)
    with pytest.raises(DataError, match="has no option"):
        make_analysis(name, unheard_of=1)


@every_analysis
def test_its_help_shows_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert analysis_class(name).example in shown
    for entry in dataclasses.fields(analysis_class(name).OPTIONS):
        assert f"--{entry.name.replace('_', '-')}" in shown


@every_analysis
def test_it_answers_and_draws_and_goes_on_where_it_was(
    name: str, words: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = [*words(name), "--out", str(out), "--json", str(tmp_path / "figures.json"), "--quiet"]
    assert run(arguments) == 0
    document = json.loads((out / "analysis.json").read_text())
    assert document == json.loads((tmp_path / "figures.json").read_text())
    assert document["settings"]["analysis"] == name
    assert document["sentence"].endswith(".")
    _check_figures(out, document, name)
    _check_kept(out, arguments, document, monkeypatch)


def _check_figures(out: Path, document: dict[str, Any], name: str) -> None:
    """The same figures can be drawn from the file alone."""
    panels = make_analysis(name).panels(document["records"])
    assert panels
    assert len({panel.key for panel in panels}) == len(panels)
    drawn = sorted(path.name for path in (out / "figures").iterdir())
    assert drawn == sorted(f"{panel.key}.{kind}" for panel in panels for kind in ("png", "svg"))
    for panel in panels:
        ElementTree.parse(out / "figures" / f"{panel.key}.svg")
        assert panel.rows
        assert all(len(row) == len(panel.columns) for row in panel.rows)
    page = (out / "report.html").read_text()
    assert "http://" not in page.split("<script", 1)[0]
    assert document["question"] in page


def _check_kept(out: Path, arguments: list[str], document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command again finds all that was scored, and comes to the same."""
    from ropewalk.evaluate import Evaluator

    def no_more(*_: Any, **__: Any) -> Any:
        raise AssertionError("scored again")

    monkeypatch.setattr(Evaluator, "score_many", no_more)
    assert run(arguments) == 0
    again = json.loads((out / "analysis.json").read_text())
    assert again["records"] == document["records"]
    assert again["sentence"] == document["sentence"]


def test_another_analysis_is_not_overwritten(
    words: Callable[[str], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "analysis.json").write_text(json.dumps({"settings": {"analysis": "other"}}))
    assert run([*words("layers"), "--out", str(tmp_path)]) == 2
    assert "another analysis (other); use another --out" in capsys.readouterr().err


def test_one_record_has_no_interval(words: Callable[[str], list[str]], tmp_path: Path) -> None:
    arguments = words("layers")
    arguments[arguments.index("--limit") + 1] = "1"
    assert run([*arguments, "--out", str(tmp_path / "out")]) == 2


def test_an_unknown_one_is_refused_with_those_there_are() -> None:
    with pytest.raises(RopewalkError, match=r"no analysis 'layer'.*did you mean 'layers'"):
        make_analysis("layer")
