"""A run in the studio: its model, its task, its candidates as they come."""

from __future__ import annotations

import shlex
import shutil
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from studio_process import WAIT, ready, served

from ropewalk import ScalingFactors
from ropewalk.cli import run
from ropewalk.cli.options import ModelOptions
from ropewalk.cli.studio_setting import setting_of
from ropewalk.errors import DataError, RopewalkError, StudyError
from ropewalk.files import write_json
from ropewalk.studio.candidates import Candidates
from ropewalk.studio.draft import Draft, Shape
from small_search import SPACE, search_with

SHAPE = Shape(4, (0, 1, 2, 3))


def test_candidates_appear_while_the_search_is_at_work(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    candidates = Candidates(tmp_path)
    assert candidates.view()["count"] == 0
    counts: list[int] = []
    result = search_with(loaded, tmp_path, "bezier-ga", lambda event: counts.append(candidates.view()["count"]))
    view, records = candidates.view(), [record for record in result.records if record.generation >= 0]
    assert view["count"] == len(records)
    assert len(set(counts)) > 3
    assert view["best"][0]["fitness"] == max(record.fitness for record in records)
    assert [one["fitness"] for one in view["best"]] == sorted((one["fitness"] for one in view["best"]), reverse=True)
    assert candidates.trouble == ""
    for record in records:
        draft = candidates.draft(record.generation, record.slot, SHAPE)
        assert draft.factors(SHAPE).values == SPACE.factors(record.candidate).values
    with pytest.raises(DataError, match="no candidate 99:0"):
        candidates.draft(99, 0, SHAPE)


def test_a_run_brings_its_task_and_is_not_changed(
    uninterrupted: tuple[Any, Path], tiny_path: Path, tmp_path: Path
) -> None:
    result, out = uninterrupted
    copy = tmp_path / "a run"
    copy.mkdir()
    for name in ("study.db", "factors.json"):
        shutil.copy(out / name, copy / name)
    earlier = Path("runs/studio-a-run/search-2")  # a search that the session started before
    (tmp_path / earlier).mkdir(parents=True)
    shutil.copy(out / "study.db", tmp_path / earlier)
    before = {path.name: sha256(path.read_bytes()).digest() for path in copy.iterdir()}
    with served(copy, "--model", tiny_path, cwd=tmp_path) as page:
        state = ready(page)
        assert state["directory"] == "runs/studio-a-run"
        assert state["words"].startswith("kv, 24 validation records at each of 2 positions")
        best = page.read("run")["best"][0]
        found = page.act("load", candidate=[best["generation"], best["slot"]])["figures"]["factors"]
        (record,) = [one for one in result.records if (one.generation, one.slot) == (best["generation"], best["slot"])]
        assert found == list(SPACE.factors(record.candidate).values)
        assert page.act("load", run=True)["figures"]["factors"] == list(ScalingFactors.load(copy / "factors.json"))
        assert "no candidate" in page.refused("load", candidate=[0, "x"])
        assert (state["runs"], state["followed"]) == ([str(copy), str(earlier)], str(copy))
        assert page.act("follow", run=str(earlier))["followed"] == str(earlier)
        assert not page.read("run")["has_factors"]
        assert "no run is called 'x'" in page.refused("follow", run="x")
        assert page.end() == 0
    assert {path.name: sha256(path.read_bytes()).digest() for path in copy.iterdir()} == before


def test_a_run_without_a_command_needs_a_model(
    uninterrupted: tuple[Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = uninterrupted[1]
    assert run(["studio", str(out)]) == 2
    assert "name it with --model" in capsys.readouterr().err
    assert run(["studio", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_run_is_scored_as_its_command_said(uninterrupted: tuple[Any, Path], tiny_path: Path, tmp_path: Path) -> None:
    """Whichever way the options were written, and before there is a result."""
    shutil.copy(uninterrupted[1] / "study.db", tmp_path)
    template, thinking = tmp_path / "own.jinja", '{"enable_thinking": false}'
    options = ["--rope=linear:2", "--chat-template-kwargs", thinking, f"--chat-template-file={template}"]
    words = ["ropewalk", "search", f"--model={tiny_path}", *options, "--device=cpu", "--overflow", "skip"]
    write_json(tmp_path / "command.json", {"command": shlex.join([*words, "--out", "somewhere"])})
    setting = setting_of(tmp_path, None, None, "validation", 24)
    assert setting.model == ModelOptions(
        model=str(tiny_path),
        dtype="float32",
        device="cpu",
        rope="linear:2",
        chat_template_kwargs=thinking,
        overflow="skip",
        chat_template_file=template,
    )
    with pytest.raises(StudyError, match=r"has not the rope scheme of the run.*linear"):
        replace(setting, model=ModelOptions(model=str(tiny_path), rope="linear:2")).loading(quiet=True)()
    with pytest.raises(StudyError, match=r"has not the prompt of the run.*plain"):
        replace(setting, model=ModelOptions(model=str(tiny_path), chat_template=False)).loading(quiet=True)()
    write_json(tmp_path / "command.json", {"command": "ropewalk search --model a --config gone.toml"})
    with pytest.raises(RopewalkError, match=r"can't be read again \(--config gone.toml: no such file\)"):
        setting_of(tmp_path, None, None, "validation", 24)


@pytest.mark.slow
def test_a_run_knows_its_model_and_its_files_also_before_it_is_finished(roomy_path: Path, tmp_path: Path) -> None:
    out, book = tmp_path / "book", tmp_path / "book.txt"
    book.write_text("\n".join(f"In line {number} nothing happens, as in line {number - 1}." for number in range(400)))
    task = ("--task", f"perplexity:window=60,data={book}", "--task", "kv:keys=3,positions=2,limit=2")
    small = (*task, "--limit", "2", "--validation-limit", "2", "--test-limit", "4")
    few = ("--generations", "1", "--population", "3", "--control-budget", "0", "--no-chat-template")
    assert run(["search", "--model", str(roomy_path), *small, *few, "--out", str(out)]) == 0
    with served(out, cwd=tmp_path) as page:
        state = ready(page)
        assert state["trouble"] == ""
        assert state["model"] == roomy_path.name
        assert page.read("run")["finished"]
    (out / "result.json").unlink()
    setting = setting_of(out, None, None, "validation", 3)
    assert setting.words[:2] == ("--task", "perplexity")
    assert setting.words[setting.words.index("--data") + 1] == str(book)
    assert "are scored on perplexity alone" in setting.remarks[0]
    book.write_text("another book. " * 4000)
    with pytest.raises(RopewalkError, match=r"its task perplexity is not what it was \(data changed since\)"):
        setting_of(out, None, None, "validation", 3)


@pytest.mark.slow
def test_a_search_starts_from_the_curve_is_followed_and_can_be_stopped(roomy_path: Path, tmp_path: Path) -> None:
    points = [[0.0, 0.9], [0.3, 1.25], [0.8, 1.1], [1.0, 1.0]]
    draft = {"control_points": points, "mode": "depth", "skip_first": 0, "layers": {"2": 1.3}}
    with served("--model", roomy_path, "--keys", "3", "--positions", "2", "--limit", "2", cwd=tmp_path) as page:
        ready(page)
        page.act("curve", draft=draft)
        assert "expected a whole number" in page.refused("search", budget="many")
        state = page.act("search", budget=3000)
        assert state["search"]["state"] == "running"
        assert "at work already" in page.refused("search")
        deadline = time.monotonic() + WAIT
        while page.read("run").get("count", 0) < 64:
            assert time.monotonic() < deadline, page.read("state")["search"]
            time.sleep(0.2)
        page.act("stop")
        state = page.until(lambda state: state["search"]["state"] != "running")
        assert state["search"]["state"] in ("stopped", "done"), state["search"]
        found = page.act("load", candidate=[0, 63])["figures"]["factors"]
        assert found == pytest.approx(list(Draft.from_json(draft).factors(SHAPE)), abs=1e-4)
        assert page.end() == 0
    command = ("--model", roomy_path, "--keys", "3", "--positions", "2", "--limit", "2")
    with served(*command, cwd=tmp_path) as page:  # the search is there again
        ready(page)
        assert page.read("run")["count"] >= 64
        assert page.end() == 0
