"""What every export target promises; a new file in `ropewalk.export` is tested here as it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import export, largest_file, load, logits

from ropewalk import FactorsError, RopewalkError, ScalingFactors
from ropewalk.cli import run
from ropewalk.export import export_target, target_names
from ropewalk.export.base import ExportPlan, Subject, Target
from ropewalk.export.parts.manifest import MANIFEST
from ropewalk.export.parts.writer import write_export
from ropewalk.identity import base_scheme, model_identity
from ropewalk.patch import factors_of

FACTORS = ScalingFactors([0.9, 1.0, 1.1, 0.95])
ROOT = Path(__file__).parents[2]


def writes(name: str) -> bool:
    """Whether the target writes anything: one may be there to say why it can't."""
    try:
        export_target(name).check()
    except RopewalkError:
        return False
    return True


WRITING = [name for name in target_names() if writes(name)]
every_target = pytest.mark.parametrize("name", target_names())
writing = pytest.mark.parametrize("name", WRITING)


@pytest.fixture(scope="module")
def model(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model in a folder of its own."""
    folder = tmp_path_factory.mktemp("source") / "source"
    shutil.copytree(tiny_path, folder)
    return load(folder)[0]


def plan_of(name: str, model: Any, out: Path, factors: ScalingFactors = FACTORS) -> ExportPlan:
    return export_target(name).plan(Subject(model, factors), out)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def state(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


# The registry ------------------------------------------------------------------------------------------------------


def test_targets_are_found_by_their_names() -> None:
    assert set(target_names()) >= {"checkpoint", "remote-code", "factors", "gguf"}
    with pytest.raises(RopewalkError, match="did you mean 'checkpoint'"):
        export_target("checkpiont")


@every_target
def test_it_says_what_it_is(name: str) -> None:
    target = export_target(name)
    assert isinstance(target, Target)
    assert target.name == name
    assert 20 < len(target.summary) < 110
    assert f"--to {name}" in (ROOT / "docs" / "export.md").read_text()


@pytest.mark.parametrize("name", [name for name in target_names() if name not in WRITING])
def test_one_that_can_not_be_says_why_and_what_can(name: str, tmp_path: Path, capsys: Any) -> None:
    """Before a model is loaded: this one is not there."""
    assert run(["export", "--model", str(tmp_path / "no"), "--to", name, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "What can: --to " in line
    assert not (tmp_path / "out").exists()


# What it writes ----------------------------------------------------------------------------------------------------


@writing
def test_the_plan_is_what_is_written_and_the_model_stays_as_it_was(name: str, model: Any, tmp_path: Path) -> None:
    before, config, source = logits(model), model.config.to_dict(), content(Path(model.config._name_or_path))
    plan = plan_of(name, model, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    assert write_export(plan, dry_run=True)
    assert not list(tmp_path.iterdir())
    assert write_export(plan)
    assert sorted(set(content(plan.out)) - {MANIFEST}) == plan.names
    assert (MANIFEST in content(plan.out)) == bool(plan.facts)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for path in plan.out.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)
        assert not path.is_symlink()
    assert torch.equal(logits(model), before)
    assert model.config.to_dict() == config
    assert content(Path(model.config._name_or_path)) == source
    assert str(tmp_path) not in "".join(
        text.decode() for file, text in content(plan.out).items() if file.endswith((".json", ".md", ".py"))
    )


@writing
def test_the_factors_come_back_with_the_model_that_they_are_for(name: str, model: Any, tmp_path: Path) -> None:
    plan = export(name, model, FACTORS, tmp_path / "out")
    kept = ScalingFactors.load(plan.out / "factors.json")
    assert kept.values == FACTORS.values
    assert kept.model == model_identity(model)
    assert kept.base == base_scheme(model)
    if plan.weights:
        again, _ = load(plan.out)
        assert factors_of(again).values == FACTORS.values
        assert not torch.equal(logits(again), logits(model))


@writing
def test_a_model_with_factors_applied_gives_the_same_export(name: str, model: Any, tmp_path: Path) -> None:
    from ropewalk.patch import patched

    export(name, model, FACTORS, tmp_path / "one")
    with patched(model, [1.2, 1.0, 1.0, 1.0]):
        before = logits(model)
        export(name, model, FACTORS, tmp_path / "two")
        assert torch.equal(logits(model), before)
    first, second = content(tmp_path / "one"), content(tmp_path / "two")
    assert first == second


# What it leaves alone, and refuses ---------------------------------------------------------------------------------


@writing
def test_the_same_again_is_left_as_it_is(name: str, model: Any, tmp_path: Path) -> None:
    export(name, model, FACTORS, tmp_path / "out")
    before = state(tmp_path)
    assert not write_export(plan_of(name, model, tmp_path / "out"))
    assert state(tmp_path) == before


@writing
def test_anything_else_at_the_place_is_refused(name: str, model: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    (tmp_path / "empty").mkdir()
    export(name, model, ScalingFactors.uniform(1.1, 4), tmp_path / "other-factors")
    other = next(one for one in WRITING if (one != name and (one == "factors") == (name == "factors")) or one != name)
    export(other, model, FACTORS, tmp_path / "other-target")
    export(name, model, FACTORS, tmp_path / "part")
    next(path for path in (tmp_path / "part").iterdir() if path.suffix == ".json").unlink()
    before = state(tmp_path)
    for place in ("file", "folder", "other-factors", "other-target"):
        with pytest.raises(RopewalkError, match=f"{place}: (exists already|holds another)"):
            write_export(plan_of(name, model, tmp_path / place))
    if name != "factors":  # of which a part is nothing
        with pytest.raises(RopewalkError, match="or a part of one"):
            write_export(plan_of(name, model, tmp_path / "part"))
        assert state(tmp_path) == before
    assert write_export(plan_of(name, model, tmp_path / "empty"))


@writing
def test_factors_that_do_not_fit_are_refused(name: str, model: Any, tmp_path: Path) -> None:
    identity = model_identity(model) | {"name": "other", "fingerprint": "sha256:0"}
    foreign = FACTORS.with_provenance(model=identity, base=base_scheme(model), found={})
    for factors, says in ((ScalingFactors([1.1, 1.0]), "2 factors for a model of 4"), (foreign, "made for 'other'")):
        with pytest.raises(FactorsError, match=says):
            plan_of(name, model, tmp_path / "out", factors)
    export(name, model, foreign, tmp_path / "out", any_model=True)
    kept = ScalingFactors.load(tmp_path / "out" / "factors.json")
    assert kept.model == model_identity(model)
    assert kept.found["made_for"]["name"] == "other"


@writing
def test_a_full_disk_leaves_nothing_half_made(name: str, model: Any, tmp_path: Path) -> None:
    plan = plan_of(name, model, tmp_path / "out")
    with largest_file(100), pytest.raises(RopewalkError, match=r"no space left|can't be written"):
        write_export(plan)
    assert not list(tmp_path.iterdir())


@writing
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_one_line(name: str, model: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RopewalkError, match="can't be written"):
        write_export(plan_of(name, model, tmp_path / "out"))


KILLED = """
import sys
from ropewalk.export.parts import writer
slow = writer._copy
def copy(source, target):
    print(target, flush=True)
    sys.stdin.readline()
    slow(source, target)
writer._copy = copy
writer.files.write_bytes = lambda path, data: (print(path, flush=True), sys.stdin.readline(), path.write_bytes(data))
from ropewalk.cli import main
main(sys.argv[1:])
"""


@writing
def test_killed_while_it_writes_it_has_written_nothing(name: str, model: Any, tmp_path: Path) -> None:
    """kill -9 between two files: a second try makes it whole."""
    FACTORS.save(tmp_path / "given.json")
    out, source, given = tmp_path / "out", model.config._name_or_path, str(tmp_path / "given.json")
    arguments = ["export", "--model", source, "--factors", given, "--to", name, "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    assert len(list(tmp_path.glob(".out.partial-*"))) == 1
    assert run(arguments) == 0
    assert not list(tmp_path.glob(".*"))
    assert not write_export(plan_of(name, model, out))


@writing
def test_its_figures_and_its_words(name: str, model: Any, tmp_path: Path, capsys: Any) -> None:
    FACTORS.save(tmp_path / "given.json")
    source, out, given = model.config._name_or_path, tmp_path / "out", str(tmp_path / "given.json")
    arguments = ["export", "--model", source, "--factors", given, "--to", name, "--out", str(out)]
    assert run([*arguments, "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["target"] == name
    assert told["written"]
    assert told["factors"] == list(FACTORS.values)
    assert set(told["files"]) == set(content(out)) - {MANIFEST}
    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert "is there already, left as it is" in " ".join(said.split())
    assert told["usage"] in said
    assert run([*arguments[:-1], str(tmp_path / "other"), "--dry-run"]) == 0
    assert "would be written" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_two_at_the_same_time_leave_one_whole_export(model: Any, tmp_path: Path) -> None:
    FACTORS.save(tmp_path / "given.json")
    arguments = ["export", "--model", model.config._name_or_path, "--factors", tmp_path / "given.json"]
    command = [sys.executable, "-c", "from ropewalk.cli import main; main()", *map(str, arguments), "--out"]
    both = [subprocess.Popen([*command, str(tmp_path / "out")], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert "Traceback" not in "".join(errors)
    assert 0 in [process.returncode for process in both]
    deadline = time.monotonic() + 5
    while list(tmp_path.glob(".*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.json", "out"]
    assert not write_export(plan_of("checkpoint", model, tmp_path / "out"))
