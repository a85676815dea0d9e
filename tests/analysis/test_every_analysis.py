"""What every analysis promises; a new file in `ropewalk.analysis` is tested here as it is, on a tiny model.

It gets the task kv at three positions, four records of three keys, and factors of four layers that lie on a curve; one
of several tasks a second task and further factors, one that takes files the figures of two tests.
"""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ropewalk import files
from ropewalk.analysis import analysis_class, analysis_names, make_analysis
from ropewalk.analysis.base import Analysis, Subject, perform
from ropewalk.analysis.parts.kept import Kept
from ropewalk.checkpoint import load_pretrained
from ropewalk.cli import run
from ropewalk.errors import DataError, RopewalkError
from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors
from ropewalk.run import final_test
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

POINTS = [[0.0, 0.9], [0.4, 1.1], [0.7, 1.0], [1.0, 0.95]]
CURVE = {"control_points": POINTS, "method": {"space": {"mode": "depth", "skip_first": 0}}}
GIVEN = ScalingFactors(ScalingFactors.from_bezier(POINTS, 4).values, found=CURVE)
OTHER = ScalingFactors([1.0, 1.1, 0.9, 1.0])

FEW = {"layers": {"scales": "1.1"}, "frequencies": {"scales": "1.1"}}  # options that leave less to draw

every_analysis = pytest.mark.parametrize("name", analysis_names())


@pytest.fixture(scope="module")
def evaluators(roomy_path: Path) -> Callable[..., Evaluator]:
    """The tiny model's evaluator of a few keys, by the layer loop or by model.forward; made once."""
    model, tokenizer = load_pretrained(roomy_path)
    made: dict[Any, Evaluator] = {}

    def make(keys: int = 3, own_loop: bool = True) -> Evaluator:
        if (keys, own_loop) not in made:
            task = make_task("kv", TaskOptions(positions=3, keys=keys, limit=4))
            examples = task.examples("test")
            made[keys, own_loop] = Evaluator(model, tokenizer, task, examples, chat_template=False, own_loop=own_loop)
        return made[keys, own_loop]

    return make


@pytest.fixture(scope="module")
def results(evaluators: Callable[..., Evaluator], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Figures as `eval --json` writes them."""
    folder = tmp_path_factory.mktemp("results")
    for number, factors in enumerate((GIVEN, OTHER)):
        files.write_json(folder / f"eval{number}.json", final_test(evaluators(), factors)[0])
    return sorted(folder.iterdir())


@pytest.fixture
def subject(evaluators: Callable[..., Evaluator], results: list[Path], roomy_path: Path) -> Callable[[str], Subject]:
    """What an analysis of its form is given."""

    def make(name: str) -> Subject:
        kind = analysis_class(name)
        if kind.form == "files":
            return Subject(files=results)
        one = evaluators(own_loop=kind.own_loop)
        model, tokenizer = one.model, load_pretrained(roomy_path)[1]
        if kind.form == "tasks":
            return Subject(model, tokenizer, {"kv": one, "kv 2": evaluators(4)}, {"a": GIVEN, "b": OTHER})
        return Subject(model, tokenizer, {"kv": one}, {"a": GIVEN})

    return make


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
def test_its_help_fits_80_columns_and_shows_an_example_that_parses(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["analyze", name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert f"  {analysis_class(name).example}\n" in shown
    for entry in dataclasses.fields(analysis_class(name).OPTIONS):
        assert f"--{entry.name.replace('_', '-')}" in shown


@every_analysis
def test_it_answers_and_draws_and_goes_on_where_it_was(
    name: str, subject: Callable[[str], Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis, on = make_analysis(name, **FEW.get(name, {})), subject(name)
    document = perform(analysis, on, tmp_path)
    assert document == files.read_json(tmp_path / "analysis.json")
    assert document["settings"]["analysis"] == name
    assert document["sentence"].endswith(".")
    assert "\n" not in document["sentence"]
    _check_figures(tmp_path, document, make_analysis(name))
    again = _without_scoring(analysis, dataclasses.replace(on, kept=Kept(tmp_path / "kept")), monkeypatch)
    assert again == document["records"]
    assert analysis.answer(again) == document["sentence"]


def _check_figures(out: Path, document: dict[str, Any], analysis: Analysis) -> None:
    """The same figures can be drawn from the file alone."""
    panels = analysis.panels(document["records"])
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


def _without_scoring(analysis: Analysis, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The records as JSON gives them back, where nothing may be scored any more."""

    def no_more(*_: Any, **__: Any) -> Any:
        raise AssertionError("scored again")

    monkeypatch.setattr(Evaluator, "score_many", no_more)
    files.write_json(subject.kept.folder / "again.json", analysis.records(subject))
    return files.read_json(subject.kept.folder / "again.json")


def test_an_unknown_one_is_refused_with_those_there_are() -> None:
    with pytest.raises(RopewalkError, match=r"no analysis 'layer'.*did you mean 'layers'"):
        make_analysis("layer")
