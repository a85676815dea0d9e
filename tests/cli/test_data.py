"""`ropewalk data` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.cli import run
from ropewalk.data.official import FILES
from ropewalk.questions import read_questions


def question(index: int) -> dict[str, object]:
    """A flat line whose passage shares the words of all others and whose answer is its own."""
    text = f"The bridge of town{index} was built by mason{index}x."
    return {
        "question": f"who built the bridge of town{index}",
        "answers": [f"mason{index}x"],
        "title": "T",
        "text": text,
    }


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_list_is_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "official", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [file.name for file in FILES]


def test_mdqa_writes_a_file_and_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = write(tmp_path / "q.jsonl", *map(question, range(20)), question(99) | {"question": "unheard syllables"})
    excluded = [str(write(tmp_path / f"{index}.jsonl", question(index), question(index + 1))) for index in (0, 1)]
    out = tmp_path / "new" / "out.jsonl"
    command = ["data", "mdqa", "--questions", str(questions), "--documents", "4", "--out", str(out)]
    assert run([*command, "--exclude", excluded[0], "--exclude", excluded[1]]) == 0
    said = capsys.readouterr().out
    assert f"{out}: 17 questions of 4 documents each" in " ".join(said.split())
    assert "left out: 3 in an excluded file" in said
    assert "left out: 1 too few distractors without an answer" in said
    assert len(read_questions(out)) == 17
    assert run([*command, "--limit", "30"]) == 0
    assert "fewer than the 30 asked for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["official"], "--out DIR is missing"),
        (["official", "nq-oracle", "--out", "x"], "no official file 'nq-oracle'; did you mean"),
        (["official", "--from", "nowhere", "--out", "x"], "nowhere: no such folder"),
        (["official", "--from", ".", "--out", "x"], ".: no official file in it or below"),
        (["official", "nq-open-oracle", "--out", "x"], "can't be fetched"),
        (["mdqa", "--out", "x"], "--questions"),
        (["mdqa", "--questions", "none.jsonl", "--out", "x"], "none.jsonl: no such file"),
        (["mdqa", "--questions", "few.jsonl", "--out", "x"], "3 different passages: expected 9 or more"),
        (["mdqa", "--questions", "few.jsonl", "--passages", "few.jsonl", "--documents", "2", "--exclude", "few.jsonl",
          "--out", "x"], "all 3 questions are in the excluded files"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there: as without a network
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    write(tmp_path / "few.jsonl", *map(question, range(3)))
    assert run(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]


def test_the_verb_loads_no_torch() -> None:
    code = (
        "import sys; from ropewalk.cli import run; run(['data', 'official', '--list']);"
        "import ropewalk.data.mdqa; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
