"""Examples that turned: which, where, and whether their prompts are the ones that were scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ropewalk.report.examples import SHOWN, changes
from ropewalk.report.page import Report
from ropewalk.report.runs import Run, read_run
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions


@pytest.fixture
def turned(run_folders: dict[str, Path], tmp_path: Path) -> Path:
    """The run of a model that is right at times: the first record turns right at @0 and @2, the second wrong at @1.

    The random model of the tests never is.
    """
    folder = tmp_path / "run"
    shutil.copytree(run_folders["bezier"], folder)
    scores = json.loads((folder / "scores.json").read_text())
    for arm, places in (("factors", (0, 2)), ("vanilla", (4,))):
        for place in places:
            scores[arm]["examples"][place] |= {"verdict": True, "score": 1.0}
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


def run_of(folder: Path) -> Run:
    return read_run(folder, "run")


def test_who_turned_and_where(turned: Path) -> None:
    found = changes(run_of(turned), "kv")
    assert found is not None
    assert (found.positions, found.right, found.wrong, found.examples) == ((0, 1, 2), (1, 0, 1), (0, 1, 0), 12)
    assert {(one.record, one.position) for one in found.turned_right} == {("kv-0-test-0", 0), ("kv-0-test-0", 2)}
    (wrong,) = found.turned_wrong
    assert (wrong.record, wrong.position, wrong.place, wrong.places) == ("kv-0-test-1", 1, 1, 3)
    assert wrong.scores == (1.0, 0.0)


def test_the_prompt_is_the_one_that_was_scored(turned: Path) -> None:
    found = changes(run_of(turned), "kv")
    assert found is not None
    task = make_task("kv", TaskOptions(positions=(0, 1, 2), keys=3, limit=4))
    examples = {example.id: example for example in task.examples("test")}
    for one in (*found.turned_right, *found.turned_wrong):
        example = examples[f"{one.record}@{one.position}"]
        assert one.answer == example.answers[0]
        assert one.prompt is not None
        before, gold, after = one.prompt
        assert example.answers[0] in gold
        assert example.answers[0] not in before + after
        assert before.removeprefix("… ") + gold + after.removesuffix(" …") in example.prompt
        assert one.question in example.prompt


@pytest.mark.parametrize("changed", [{"sha256": "0"}, {"seed": 1}, {"data": {"sha256": "0"}}, {"task": "sonnet"}])
def test_other_prompts_are_not_shown_for_them(turned: Path, changed: dict) -> None:
    result = json.loads((turned / "result.json").read_text())
    result["provenance"]["data"]["test"]["kv"] |= changed
    (turned / "result.json").write_text(json.dumps(result))
    found = changes(run_of(turned), "kv")
    assert found is not None
    assert {one.prompt for one in (*found.turned_right, *found.turned_wrong)} == {None}


def test_the_page_marks_the_gold_position(turned: Path) -> None:
    html = Report([run_of(turned)]).html()
    assert "Of 12 examples 2 turned right and" in html
    assert 'aria-label="gold position @1, number 2 of 3"' in html
    assert html.count("<mark>") == 3
    assert "right → wrong" in html


def test_a_needles_prompts_can_be_made_again_too(run_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folders["mix"], folder)
    scores = json.loads((folder / "scores.json").read_text())
    for example in scores["needle"]["factors"]["examples"]:
        example |= {"verdict": True, "score": 1.0, "text": "<b>12</b>"}
    (folder / "scores.json").write_text(json.dumps(scores))
    found = changes(run_of(folder), "needle")
    assert found is not None
    assert found.right == (4, 4)
    assert len(found.turned_right) == SHOWN
    assert all(one.prompt and one.texts and one.texts[1] == "<b>12</b>" for one in found.turned_right)
    assert "<b>12" not in Report([run_of(folder)]).html()
