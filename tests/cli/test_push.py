"""`ropewalk push` against a hub that stands in for the real one on the loopback interface, in processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import TOKEN, Hub, hub
from ropewalk import ScalingFactors
from ropewalk.cli import run

COMMAND = [sys.executable, "-c", "from ropewalk.cli import main; main()", "push"]
FACTORS = ScalingFactors([0.9, 1.05, 1.1, 0.95])


@pytest.fixture(scope="module")
def exports(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of each kind, by its name."""
    root = tmp_path_factory.mktemp("exports")
    FACTORS.save(root / "given.json")
    for target in ("checkpoint", "remote-code", "factors"):
        arguments = ["--model", tiny_path, "--factors", root / "given.json", "--to", target, "--out", root / target]
        assert run(["export", *map(str, arguments)]) == 0
    return root


@pytest.fixture
def server() -> Iterator[Hub]:
    with hub() as listening:
        yield listening


def environment(server: Hub, **more: str) -> dict[str, str]:
    """Without xet, whose servers nobody here stands in for; with the token where users keep theirs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {"HF_ENDPOINT": server.address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, **more}


def push(server: Hub, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, env=environment(server, **more), capture_output=True, text=True, timeout=120)
    assert TOKEN not in done.stdout + done.stderr
    return done


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What it sends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["checkpoint", "remote-code", "factors"])
def test_the_hub_has_every_file_byte_for_byte(target: str, exports: Path, server: Hub) -> None:
    done = push(server, exports / target, "me/mended", "--private", "--json", "-")
    assert done.returncode == 0, done.stderr
    repository = server.repositories["me/mended"]
    assert repository.files == content(exports / target)
    assert repository.private
    assert repository.commits == [f"Upload a ropewalk export ({target})"]
    told = json.loads(done.stdout)
    assert told["files"] == {name: len(data) for name, data in content(exports / target).items()}
    assert told["commit"] == f"{server.address}/me/mended/commit/{1:040x}"
    assert ("model.safetensors" in told["files"]) == (target != "factors")
    assert bool(server.objects) == (target != "factors")


def test_nothing_else_in_the_folder_is_sent(exports: Path, server: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(exports / "checkpoint", folder)
    expected = content(folder)
    (folder / ".env").write_text("SECRET=1")
    (folder / "notes.txt").write_text("mine")
    (folder / "runs").mkdir()
    (folder / "runs" / "model.safetensors").write_bytes(b"another")
    (folder / "README.md").write_text(expected["README.md"].decode() + "\nA word of mine.\n")  # this one may be edited
    done = push(server, folder, "me/mended")
    assert done.returncode == 0, done.stderr
    sent = server.repositories["me/mended"].files
    assert sent.keys() == expected.keys()
    assert sent["README.md"].endswith(b"A word of mine.\n")
    assert not server.repositories["me/mended"].private


def test_a_dry_run_asks_nobody(exports: Path, server: Hub) -> None:
    done = push(server, exports / "remote-code", "me/mended", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "files of" in done.stdout
    for name in content(exports / "remote-code"):
        assert name in done.stdout
    assert server.calls == []


def test_the_same_again_sends_nothing_twice(exports: Path, server: Hub) -> None:
    assert push(server, exports / "checkpoint", "me/mended").returncode == 0
    server.calls.clear()
    done = push(server, exports / "checkpoint", "me/mended", "--quiet")
    assert done.returncode == 0
    assert done.stderr == ""
    assert not [call for call in server.calls if call.startswith("PUT ") or "/commit/" in call]


def test_ctrl_c_and_the_same_command_again(exports: Path, server: Hub) -> None:
    """In the middle of the weights; what had arrived is not sent again."""
    server.go_on.clear()
    command = [*COMMAND, str(exports / "checkpoint"), "me/mended"]
    process = subprocess.Popen(command, env=environment(server), stderr=subprocess.PIPE, text=True)
    assert server.entered.wait(60)
    process.send_signal(signal.SIGINT)
    server.go_on.set()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    *_, last = error.strip().splitlines()
    assert last.startswith("ropewalk: stopped; the same command again continues")
    assert not server.repositories["me/mended"].files
    done = push(server, exports / "checkpoint", "me/mended")
    assert done.returncode == 0, done.stderr
    assert server.repositories["me/mended"].files == content(exports / "checkpoint")


# What the hub refuses ----------------------------------------------------------------------------------------------


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a mistake."""
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Uploading")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("ropewalk: ")
    return lines[0]


def test_answers_of_the_hub_are_one_line(exports: Path, server: Hub, tmp_path: Path) -> None:
    folder = exports / "factors"
    assert "(401): the hub wants a token that may write" in refused(push(server, folder, "me/x", HF_TOKEN="hf_wrong"))
    nobody = {"HF_TOKEN": "", "HF_HOME": str(tmp_path)}
    assert "`hf auth login`" in refused(push(server, folder, "me/x", **nobody))
    assert push(server, folder, "me/x", "--token", TOKEN, **nobody).returncode == 0
    assert "your token may not write there (403)" in refused(push(server, folder, "you/x"))
    assert "exists already and is public" in refused(push(server, folder, "me/x", "--private"))
    server.answers = [("/commit/", 404)]
    assert "not found (404)" in refused(push(server, folder, "me/y"))
    server.answers = [("/repos/create", 500)] * 9
    assert "has an error (500); later the same command again continues" in refused(push(server, folder, "me/z"))
    server.answers = [("/commit/", 413)]
    assert "the hub refused (413): as the test wants it" in refused(push(server, exports / "checkpoint", "me/z"))
    assert "switched off by HF_HUB_OFFLINE" in refused(push(server, folder, "me/x", HF_HUB_OFFLINE="1"))
    assert not server.repositories["me/z"].files


def test_a_hub_that_is_not_there(exports: Path, server: Hub) -> None:
    done = push(server, exports / "factors", "me/x", HF_ENDPOINT="http://127.0.0.1:9")
    assert "the hub can't be reached" in refused(done)


# What is no export -------------------------------------------------------------------------------------------------


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """In this process: nothing is asked of any hub."""
    assert run(["push", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_only_an_export_is_sent(
    exports: Path, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is no export, and nothing else is uploaded" in mistake(capsys, tiny_path, "me/x")
    assert "no such folder" in mistake(capsys, tmp_path / "no", "me/x")
    assert "is a file" in mistake(capsys, exports / "given.json", "me/x")
    assert "expected OWNER/NAME" in mistake(capsys, exports / "factors", "me/x/y")
    assert "REPO_ID is missing" in mistake(capsys, exports / "factors")
    assert "Did you mean --private?" in mistake(capsys, exports / "factors", "me/x", "--privat")
    mixed = tmp_path / "mixed"
    shutil.copytree(exports / "factors", mixed)
    (mixed / "other.txt").write_text("mine")
    assert "is no export" in mistake(capsys, mixed, "me/x")
    (mixed / "other.txt").unlink()
    (mixed / "factors.json").write_text("{}")
    assert "schema is None" in mistake(capsys, mixed, "me/x")


def test_an_export_that_is_not_whole_is_refused(
    exports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(exports / "checkpoint", folder)
    (folder / "model.safetensors").write_bytes(b"cut short")
    assert "has 9 bytes, the export had" in mistake(capsys, folder, "me/x")
    (folder / "model.safetensors").unlink()
    assert "model.safetensors: is missing" in mistake(capsys, folder, "me/x")
    (folder / "model.safetensors").symlink_to(exports / "given.json")
    assert "is a link" in mistake(capsys, folder, "me/x")
    manifest = json.loads((folder / "ropewalk-export.json").read_text())
    for name in ("../given.json", "/etc/hostname"):
        spoilt = manifest | {"files": {name: 1}}
        (folder / "ropewalk-export.json").write_text(json.dumps(spoilt))
        assert "is no manifest" in mistake(capsys, folder, "me/x")


def test_it_loads_no_torch(exports: Path) -> None:
    code = "import sys; from ropewalk.cli import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "push", str(exports / "checkpoint"), "me/x", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "False"
