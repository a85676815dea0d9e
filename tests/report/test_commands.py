"""The commands of the page do what it says: they are run."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from ropewalk import ScalingFactors, load_pretrained, remove
from ropewalk.cli import run as ropewalk
from ropewalk.patch import factors_of
from ropewalk.report.commands import commands, model_of
from ropewalk.report.runs import read_run


def by_title(folder: Path) -> dict[str, str]:
    return {command.title: command.text for command in commands(read_run(folder, "run"))}


def words(text: str) -> list[str]:
    program, *arguments = shlex.split(text)
    assert program == "ropewalk"
    return arguments


def tasks(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())["tasks"]


@pytest.mark.parametrize("name", ["bezier", "default"])
def test_the_run_can_be_made_again(name: str, run_folders: dict[str, Path], tmp_path: Path) -> None:
    arguments = words(by_title(run_folders[name])["Make it again"])
    arguments[arguments.index("--out") + 1] = str(tmp_path / "again")
    assert ropewalk(arguments) == 0
    before, after = (
        json.loads((folder / "result.json").read_text()) for folder in (run_folders[name], tmp_path / "again")
    )
    assert after["tasks"] == before["tasks"]


@pytest.mark.parametrize(
    ("name", "title"), [("bezier", "Test the factors again"), ("mix", "Test the factors again on needle")]
)
def test_the_test_can_be_made_again(name: str, title: str, run_folders: dict[str, Path], tmp_path: Path) -> None:
    arguments = words(by_title(run_folders[name])[title])
    assert ropewalk([*arguments, "--json", str(tmp_path / "eval.json")]) == 0
    tested = json.loads((tmp_path / "eval.json").read_text())
    block = json.loads((run_folders[name] / "result.json").read_text())["tasks"][
        title.rpartition(" ")[2] if name == "mix" else "kv"
    ]
    for arm in ("vanilla", "factors"):
        assert tested[arm] == block[arm]


def test_the_programs_run(run_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = by_title(run_folders["bezier"])
    factors = ScalingFactors.load(run_folders["bezier"] / "factors.json")
    names: dict = {}
    exec(found["Use the factors"], names)
    assert factors_of(names["model"]) == factors
    remove(names["model"])
    assert ropewalk(words(found["Write a checkpoint that carries the factors"])) == 0
    assert found["Serve it with vLLM"] == "vllm serve mended-model"
    loaded, _ = load_pretrained(tmp_path / "mended-model")
    assert factors_of(loaded).values == factors.values


def test_vanilla_has_nothing_to_use(run_folders: dict[str, Path]) -> None:
    assert list(by_title(run_folders["identity"])) == ["Make it again"]


def test_an_unfinished_run_has_no_command_yet(run_folders: dict[str, Path]) -> None:
    (command,) = commands(read_run(run_folders["unfinished"], "run"))
    assert command.text == ""
    assert "The same command again continues" in command.remark


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ("ropewalk search --model a/b --keys 3", "a/b"),
        ("ropewalk search --model='x y'", "x y"),
        ("ropewalk mend org/name --out m", "org/name"),
        ("ropewalk demo", "demo"),
        (None, "tiny model"),
    ],
)
def test_the_model_is_named_as_the_command_named_it(
    command: str | None, model: str, run_folders: dict[str, Path]
) -> None:
    run = read_run(run_folders["bezier"], "run")
    assert run.result is not None
    run.result["provenance"]["command"] = command  # type: ignore[index]
    assert model_of(run) == model


def test_a_run_without_a_result_knows_its_command_from_the_start(run_folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    shutil.copytree(run_folders["bezier"], out)
    (out / "result.json").unlink()
    run = read_run(out, "run")
    assert run.command == read_run(run_folders["bezier"], "run").command
    (command,) = commands(run)
    assert command.text == run.command
    assert command.remark.startswith("The same command again continues")
