"""--help of every verb, as a new user reads it: 80 columns, examples that run, and words for what was mistyped."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.cli import VERBS, app, run
from ropewalk.cli.examples import EXAMPLES

VERB_NAMES = [verb for verb, _, _ in VERBS]
ALL = ["", *VERB_NAMES, "data official", "data mdqa"]
MODELS = ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B")
RUN_HERE = [  # within seconds on a tiny model
    line for lines in EXAMPLES.values() for line in lines if "--model demo" in line or line.endswith("--list")
]


def shown_help(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*verb.split(), "--help"]) == 0
    return capsys.readouterr().out.splitlines()


def examples_in(lines: list[str]) -> list[str]:
    """The commands under "Example:" or "Examples:"."""
    (start,) = [number for number, line in enumerate(lines) if line in ("Example:", "Examples:")]
    indented = []
    for line in lines[start + 1 :]:
        if not line.startswith("  "):
            break
        indented.append(line.strip())
    return indented


@pytest.mark.parametrize("verb", ALL)
def test_help_fits_80_columns_and_ends_in_examples_that_parse(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown_help(verb, capsys, monkeypatch)
    assert max(map(len, lines)) <= 80
    examples = examples_in(lines)
    assert examples == list(EXAMPLES[verb])  # none was wrapped
    for example in examples:
        name, *words = shlex.split(example)
        assert name == "ropewalk"
        function, bound, unused = app.parse_args(words, exit_on_error=False, print_error=False)[:3]
        assert callable(function)
        assert not unused
        assert words[: len(verb.split())] == verb.split()
        assert bound.arguments or len(words) == 1


def test_the_examples_of_small_models_are_several() -> None:
    assert {shlex.split(line)[1] for line in RUN_HERE} >= {"profile", "search", "show", "doctor", "data"}


@pytest.mark.parametrize("example", RUN_HERE)
def test_an_example_runs(
    example: str,
    tiny_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a random model of 4 layers in place of the demo's; its tokenizer has a token a letter, so it needs room."""
    model = tmp_path / "model"
    shutil.copytree(tiny_path, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    monkeypatch.chdir(tmp_path)
    words = [str(model) if word == "demo" else word for word in shlex.split(example)[1:]]
    assert run(words) == 0
    assert len(capsys.readouterr().out) > 100


def test_the_first_help_says_how_the_command_behaves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(shown_help("", capsys, monkeypatch))
    for word in ("Exit codes:", "  0 ", "  2 ", "  130 ", "bug", "NO_COLOR", "standard error", *VERB_NAMES):
        assert word in text


@pytest.mark.parametrize("verb", [verb for verb in ALL if verb not in ("", "analyze", "data")])
def test_every_verb_that_talks_can_be_quiet(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(shown_help(verb, capsys, monkeypatch))
    assert "--quiet" in text
    assert ("--json" in text) == (verb not in ("dashboard", "studio"))


@pytest.mark.parametrize(
    ("typed", "meant", "see"),
    [
        (["profil"], '"profile"', "see: ropewalk --help"),
        (["data", "oficial"], '"official"', "see: ropewalk data --help"),
        (["profile", "--model", "x", "--keyz", "3"], "--keys", "see: ropewalk profile --help"),
        (["search", "--model", "x", "--populaton", "3"], "--population", "see: ropewalk search --help"),
        (["mend", "x", "--budgt", "3"], "--budget", "see: ropewalk mend --help"),
        (["eval", "--model", "x", "--split", "tset"], '"test"', "see: ropewalk eval --help"),
        (["dashboard", "x", "--prot", "1"], "--port", "see: ropewalk dashboard --help"),
        (["studio", "x", "--prot", "1"], "--port", "see: ropewalk studio --help"),
    ],
)
def test_what_was_mistyped_is_asked_for(
    typed: list[str], meant: str, see: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(typed) == 2
    error = capsys.readouterr().err
    assert f"Did you mean {meant}?" in error
    assert see in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["profile"], "--model is missing"),
        (["dashboard"], "RUN is missing"),
        (["mend"], "--model is missing"),
        (["profile", "--model", "x", "--keys", "3", "4"], "nothing takes '4'"),
        (["profile", "--model", "x", "--json", "--quiet"], "--json"),
        (["profile", "--model"], "--model"),
    ],
)
def test_what_is_missing_or_too_much_is_said(typed: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(typed) == 2
    assert says in capsys.readouterr().err


def test_no_verb_at_all_is_a_wish_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Usage: ropewalk COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_help_can_be_printed_anywhere(encoding: str) -> None:
    command = [sys.executable, "-c", "from ropewalk.cli import main; main(['search', '--help'])"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80"}
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert ended.returncode == 0
    assert b"--population" in ended.stdout
    ended.stdout.decode(encoding)
