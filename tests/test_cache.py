"""The model cache: whole or not at all, under kills, full disks, damage and two processes at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ropewalk.cache import MANIFEST, cache_root, cached_model, fresh_folder, is_intact
from ropewalk.errors import DataError, PrerequisiteError

SOURCE = {"origin": "test", "version": 1}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


class Builder:
    """Writes two files and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path, report: object) -> None:
        self.calls += 1
        (folder / "deep").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "deep" / "weights.bin").write_bytes(bytes(1000))


def build(builder: Builder, source: dict = SOURCE) -> Path:
    return cached_model("model", source, builder, progress=False)


def run(script: str, **options: object) -> subprocess.Popen[str]:
    """Start Python on `script`, which finds `cached_model` and `Path` imported."""
    prelude = "import sys, time\nfrom pathlib import Path\nfrom ropewalk.cache import cached_model\n"
    command = [sys.executable, "-c", prelude + textwrap.dedent(script)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ROPEWALK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "ropewalk"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "ropewalk"
    monkeypatch.setenv("ROPEWALK_CACHE", "~/own")
    assert cache_root() == tmp_path / "own"


def test_built_once_with_sizes_and_digests(root: Path) -> None:
    builder = Builder()
    assert build(builder) == build(builder) == root / "model"
    assert builder.calls == 1
    manifest = json.loads((root / "model" / MANIFEST).read_text())
    assert manifest["source"] == SOURCE
    assert manifest["files"]["deep/weights.bin"] == {
        "size": 1000,
        "sha256": "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53",
    }


@pytest.mark.parametrize("damage", ["truncated", "missing", "no manifest", "broken manifest", "emptied"])
def test_damage_is_noticed_and_rebuilt(root: Path, damage: str) -> None:
    builder = Builder()
    folder = build(builder)
    weights = folder / "deep" / "weights.bin"
    if damage == "truncated":
        weights.write_bytes(bytes(999))
    elif damage == "missing":
        weights.unlink()
    elif damage == "no manifest":
        (folder / MANIFEST).unlink()
    elif damage == "broken manifest":
        (folder / MANIFEST).write_text('{"schema": "ropewalk.model-cache/1", "source"')
    else:
        (folder / MANIFEST).write_text("[]")
    assert not is_intact(folder, SOURCE)
    assert build(builder) == folder
    assert builder.calls == 2
    assert weights.stat().st_size == 1000


def test_another_source_is_another_model(root: Path) -> None:
    builder = Builder()
    build(builder)
    build(builder, SOURCE | {"version": 2})
    assert builder.calls == 2


def test_a_failed_build_leaves_nothing(root: Path) -> None:
    def broken(folder: Path, report: object) -> None:
        Builder()(folder, report)
        raise DataError("no good")

    with pytest.raises(DataError, match="no good"):
        cached_model("model", SOURCE, broken, progress=False)
    assert [path.name for path in root.iterdir() if path.is_dir()] == []


def test_a_kill_leaves_nothing_that_is_trusted(root: Path) -> None:
    script = f"""
        def build(folder, report):
            folder.mkdir()
            (folder / "config.json").write_text("half")
            folder.with_name(folder.name + "-scratch").mkdir()
            print("started", flush=True)
            time.sleep(60)
        cached_model("model", {SOURCE!r}, build, progress=False)
    """
    process = run(script)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (root / "model").exists()
    assert (root / ".model.partial" / "config.json").exists()
    folder = build(Builder())  # the lock of the dead process is free
    assert (folder / "config.json").read_text() == "{}"
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["model"]


def test_two_processes_build_once(root: Path) -> None:
    script = f"""
        def build(folder, report):
            print("built", flush=True)
            folder.mkdir()
            for number in range(20):
                (folder / str(number)).write_text("x" * 1000)
                time.sleep(0.02)
        print(cached_model("model", {SOURCE!r}, build, progress=False))
    """
    processes = [run(script) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sorted("".join(out for out, _ in outputs).split()) == sorted(["built", *3 * [str(root / "model")]])
    assert is_intact(root / "model", SOURCE)


def test_a_full_disk_is_one_line(root: Path) -> None:
    """A limit on file sizes stands in for a full disk: the write itself fails, in Python and in safetensors."""
    script = f"""
        import resource, signal
        from ropewalk.errors import PrerequisiteError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        def plain(folder, report):
            folder.mkdir()
            (folder / "weights").write_bytes(bytes(200_000))
        def tensors(folder, report):
            import numpy, safetensors.numpy
            folder.mkdir()
            safetensors.numpy.save_file({{"x": numpy.zeros(200_000, "float32")}}, folder / "weights.safetensors")
        for name, build in (("plain", plain), ("tensors", tensors)):
            try:
                cached_model(name, {SOURCE!r}, build, progress=False)
            except PrerequisiteError as error:
                print(error)
    """
    out, err = run(script).communicate(timeout=60)
    lines = out.splitlines()
    assert len(lines) == 2, err
    assert all("no space left" in line and "ROPEWALK_CACHE" in line for line in lines)
    assert [path.name for path in root.iterdir() if path.is_dir()] == []


def test_a_cache_that_is_a_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "file"))
    with pytest.raises(PrerequisiteError, match="can't be written"):
        build(Builder())


def test_fresh_folder_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with fresh_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("a")
    assert (tmp_path / "empty" / "a").read_text() == "a"
    with pytest.raises(DataError, match="exists already"), fresh_folder(tmp_path / "empty"):
        pytest.fail("entered")
    with pytest.raises(KeyboardInterrupt), fresh_folder(tmp_path / "new"):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
