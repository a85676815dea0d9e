"""`ropewalk analyze` as a user meets it: figures, a folder that is taken, what is missing, Ctrl-C, what is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk import files
from ropewalk.analysis.parts.kept import Kept
from ropewalk.cli import run
from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors

TASK = ["--no-chat-template", "--keys", "3", "--positions", "3"]


@pytest.fixture
def layers(roomy_path: Path, tmp_path: Path) -> list[str]:
    """The smallest analysis of layers."""
    given = ["--scales", "1.1", "--no-singles", "--limit", "2", "--out", str(tmp_path / "out")]
    return ["analyze", "layers", "--model", str(roomy_path), *TASK, *given]


def test_figures_are_printed_alone_and_a_factors_folder_is_taken(
    layers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ScalingFactors([0.9, 1.0, 1.1, 1.0]).save(tmp_path / "run" / "factors.json")
    assert run([*layers, "--factors", str(tmp_path / "run"), "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == files.read_json(tmp_path / "out" / "analysis.json")
    assert figures["records"]["factors"] == [0.9, 1.0, 1.1, 1.0]
    assert "--no-singles" in figures["provenance"]["command"]


def test_the_terminal_gets_a_table_the_answer_and_where_all_of_it_is(
    layers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(layers) == 0
    said = capsys.readouterr()
    assert "first half" in said.out
    assert "Scaled alone by 1.1, early layers" in " ".join(said.out.split())
    assert "Warning: with 2 records" in " ".join(said.out.split())
    assert f"{tmp_path / 'out'}/report.html" in said.out
    assert "prompts" in said.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--factors", "nowhere.json"], "nowhere.json: no such file"),
        (["--scales", "1.1,none"], "option 'scales' is '1.1,none', expected numbers above 0"),
        (["--limit", "1"], "an analysis of 1 record of kv has no interval: give at least 2 (--limit)"),
        (["--scale", "1.1"], "--scales"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    layers: list[str], more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = dict(zip(more[::2], more[1::2], strict=True))
    changed = [given.pop(before, word) for before, word in zip(["", *layers], layers, strict=False)]
    assert run([*changed, *(word for pair in given.items() for word in pair), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


def test_another_analysis_is_not_overwritten(
    layers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.write_json(tmp_path / "out" / "analysis.json", {"settings": {"analysis": "other"}})
    assert run(layers) == 2
    assert "another analysis (other); use another --out" in capsys.readouterr().err


def test_what_was_scored_before_a_stop_is_not_scored_again(
    layers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored: list[int] = []
    real = Evaluator.score_many

    def stopping(self: Evaluator, candidates: list[object], **options: object) -> object:
        if len(scored) == 1:
            raise KeyboardInterrupt
        scored.append(len(candidates))
        return real(self, candidates, **options)

    monkeypatch.setattr(Evaluator, "score_many", stopping)
    assert run(layers) == 130
    assert f"kept in {tmp_path / 'out'}, the same command goes on" in capsys.readouterr().err
    kept = len(list((tmp_path / "out" / "kept").iterdir()))
    assert kept == scored[0] > 0
    scored.clear()
    monkeypatch.setattr(
        Evaluator, "score_many", lambda *given, **more: scored.append(len(given[1])) or real(*given, **more)
    )
    assert run(layers) == 0
    assert sum(scored) == 6 - kept  # vanilla, all layers, halves and thirds: of four layers two are the same


def test_help_loads_no_torch() -> None:
    code = "import sys; from ropewalk.cli import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "analyze", "layers", "--help"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("False\n")


def test_kept_is_found_by_all_it_depends_on_and_not_when_it_is_cut(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert kept.get({"a": 1.5, "b": (1, 2)}, lambda: [1]) == [1]
    assert Kept(tmp_path).find({"b": [1, 2], "a": 1.5}) == [1]
    assert kept.find({"a": 1.5, "b": [2, 1]}) is None
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:20])
    assert kept.find({"a": 1.5, "b": (1, 2)}) is None
    assert kept.get({"a": 1.5, "b": (1, 2)}, lambda: [2]) == [2]
