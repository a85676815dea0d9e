"""What verbs print: within 80 columns, results and progress apart, JSON alone where it is asked for, plain where it is
no terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.cli import console, encoding, run

LONG = "a-checkpoint-of-a-model-whose-name-is-longer-than-most-terminals-are-wide-in-characters"
SMALL = ["--keys", "3", "--positions", "3", "--limit", "3"]
SEARCH = [
    "--keys", "3", "--positions", "3", "--limit", "4", "--validation-limit", "2", "--test-limit", "3", "--method",
    "bezier-ga", "--population", "4", "--parents", "2", "--mutations", "1", "--crossovers", "1", "--generations", "2",
    "--control-budget", "800",
]  # fmt: skip
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # all but tab and newline
COMMAND = [sys.executable, "-c", "from ropewalk.cli import main; main()"]


@pytest.fixture(scope="module")
def model(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint for longer prompts, with a long name."""
    folder = tmp_path_factory.mktemp("models") / LONG
    shutil.copytree(tiny_path, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return folder


@pytest.fixture(scope="module")
def searched(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search: what is printed of it again needs no candidate."""
    out = tmp_path_factory.mktemp("runs") / "kv"
    assert run(["search", "--model", str(model), *SEARCH, "--out", str(out), "--quiet"]) == 0
    return out


def arguments_of(verb: str, model: Path, searched: Path) -> list[str]:
    on = ["--model", str(model)]
    return {
        "profile": ["profile", *on, "--keys", "10", "--positions", "10", "--limit", "2"],
        "eval": ["eval", *on, *SMALL, "--factors", str(searched / "factors.json")],
        "search": ["search", *on, *SEARCH, "--out", str(searched)],
        "dry run": ["search", *on, *SEARCH, "--out", str(searched), "--dry-run"],
        "mend": ["mend", str(model), "--keys", "3", "--limit", "2", "--out", str(searched.parent / "mended")],
        "doctor": ["doctor", *on, "--keys", "3"],
        "show": ["show", *on, "--keys", "3"],
        "data": ["data", "official", "--list"],
    }[verb]


VERBS = ("profile", "eval", "search", "dry run", "mend", "doctor", "show", "data")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "show"])  # whose prompt is as it is
def test_lines_fit_80_columns_and_hold_no_control_characters(
    verb: str, model: Path, searched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(arguments_of(verb, model, searched)) == 0
    said = capsys.readouterr().out
    assert said
    long = [line for line in said.splitlines() if len(line) > 80 and max(map(len, line.split())) < 70]
    assert long == []  # but for a path that can't be broken
    assert not CONTROL.search(said)
    assert "…" not in said  # nothing was cut off


def test_all_arms_have_their_sparkline(
    model: Path, searched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(arguments_of("search", model, searched)) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads((searched / "result.json").read_text())
    arms = {"vanilla", "uniform", "uniform_best", "line_best", "factors"} & figures.keys()
    assert len(arms) > 2
    assert sum(bool(re.search(r"  [▁▂▃▄▅▆▇█]{3}  ", line)) for line in lines) == len(arms)


@pytest.mark.parametrize("verb", VERBS)
def test_json_on_standard_output_is_alone_there(
    verb: str, model: Path, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments_of(verb, model, searched), "--json", "-"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


@pytest.mark.parametrize("verb", ["profile", "search", "doctor"])
def test_quiet_prints_the_result_alone(
    verb: str, model: Path, searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments_of(verb, model, searched)
    assert run(words) == 0
    usual = capsys.readouterr()
    assert "Loading" in usual.err
    file = tmp_path / "figures.json"
    assert run([*words, "-q", "--json", str(file)]) == 0
    quiet = capsys.readouterr()
    assert quiet.err == ""
    assert len(quiet.out.splitlines()) == len(usual.out.splitlines())
    assert json.loads(file.read_text())


def test_a_quiet_mistake_is_said_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "--model", "/no/such/folder", "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("ropewalk: ")


def test_quiet_ends_with_the_command(model: Path, searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "official", "--list", "--quiet", "--json", "-"]) == 0
    capsys.readouterr()
    console.line("a remark")
    console.say("a result")
    assert tuple(capsys.readouterr()) == ("a result\n", "a remark\n")


def printed(words: list[str], **environment: str) -> tuple[str, int]:
    """All that a command prints to a terminal of 80 columns, and its exit code."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    usual = {"COLUMNS": "80", "TERM": "xterm-256color"}
    command = subprocess.Popen(
        [*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, env={**kept, **usual, **environment}
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
    os.close(ours)
    return said.decode().replace("\r\n", "\n"), command.wait(timeout=60)


@pytest.mark.parametrize("verb", ["profile", "help"])
def test_on_a_terminal_there_are_colours_but_not_where_no_color_is_set(verb: str, model: Path, searched: Path) -> None:
    words = ["search", "--help"] if verb == "help" else arguments_of("profile", model, searched)
    said, code = printed(words)
    assert code == 0
    assert "\x1b[" in said
    said, code = printed(words, NO_COLOR="1")
    assert code == 0
    assert not CONTROL.search(said)
    assert len(said) > 300


def test_an_encoding_without_bars_gets_plain_ones(model: Path, searched: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    words = [*arguments_of("profile", model, searched), "--quiet"]
    ended = subprocess.run([*COMMAND, *words], env=environment, capture_output=True, timeout=120)
    assert ended.returncode == 0, ended.stderr.decode()
    said = ended.stdout.decode("cp1252")
    assert "_" * 10 in said
    assert "?" not in said


def test_plain_characters_stand_for_those_that_are_missing() -> None:
    encoding.never_fail()
    assert "▁▅█ 3–4 … ⟪gold⟫ − ☃".encode("ascii", errors=encoding.NAME) == b"_=# 3-4 ... <<gold>> - ?"
    assert "3–4 …".encode("cp1252", errors=encoding.NAME).decode("cp1252") == "3–4 …"


def test_progress_says_how_much_time_is_left(
    model: Path, searched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LINE_EVERY", 0.0)
    assert run(arguments_of("profile", model, searched)) == 0
    said = capsys.readouterr()
    assert re.search(r"Profile: \d+/20 prompts, \d+ s, \d+ s left", said.err)
    assert "left" not in said.out
