"""A checkpoint is the model it was made of, with the factors in its config; nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import largest_file

from ropewalk import ScalingFactors, load_pretrained
from ropewalk.errors import DataError, FactorsError, PrerequisiteError
from ropewalk.export.checkpoint import write_checkpoint
from ropewalk.export.parts.source import source_folder
from ropewalk.identity import base_scheme, model_identity
from ropewalk.patch import factors_of, remove

FACTORS = ScalingFactors([0.9, 1.05, 1.1, 0.95])
SHARED = Path("/dev/shm")  # another file system, where there is one


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def source(tiny_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be changed."""
    return Path(shutil.copytree(tiny_path, tmp_path / "source"))


def load(folder: Path) -> tuple[Any, Any]:
    return load_pretrained(folder, device="cpu", dtype="float32")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(4, 40)[None]).logits


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What it writes ----------------------------------------------------------------------------------------------------


def test_it_carries_the_factors_and_is_else_the_same(source: Path, tmp_path: Path) -> None:
    model, tokenizer = load(source)
    before = content(source)
    write_checkpoint(model, FACTORS, tmp_path / "out")
    assert content(source) == before
    mended, its_tokenizer = load(tmp_path / "out")
    assert factors_of(mended).values == FACTORS.values
    assert its_tokenizer.chat_template == tokenizer.chat_template
    assert not torch.equal(logits(mended), logits(model))
    remove(mended)
    assert torch.equal(logits(mended), logits(model))
    written = read(tmp_path / "out" / "config.json")
    assert written.pop("rope_layer_factors") == list(FACTORS.values)
    assert written == read(source / "config.json")
    added = {"README.md", "factors.json", "factors.png", "ropewalk-export.json"}
    assert set(content(tmp_path / "out")) == set(before) | added
    assert ScalingFactors.load(tmp_path / "out" / "factors.json").model == model_identity(model)


def test_the_weights_share_the_disk_and_small_files_do_not(source: Path, tmp_path: Path) -> None:
    """Hard links where the file system has no reflinks: then the number of links tells."""
    assert write_checkpoint(load(source)[0], FACTORS, tmp_path / "out").shares_disk
    assert (tmp_path / "out" / "chat_template.jinja").stat().st_nlink == 1
    (tmp_path / "out" / "chat_template.jinja").write_text("changed")
    assert (source / "chat_template.jinja").read_text() != "changed"


@pytest.mark.skipif(not SHARED.is_dir() or not os.access(SHARED, os.W_OK), reason="needs a second file system")
def test_on_another_disk_the_weights_are_copied(source: Path) -> None:
    out = SHARED / f"ropewalk-test-{os.getpid()}"
    if SHARED.stat().st_dev == source.stat().st_dev:
        pytest.skip("needs a second file system")
    model = load(source)[0]
    try:
        assert not write_checkpoint(model, FACTORS, out).shares_disk
        assert (out / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
        assert (out / "model.safetensors").stat().st_mode & 0o777 == 0o644
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_only_what_belongs_to_the_model_is_taken(source: Path, tmp_path: Path) -> None:
    model, tokenizer = load(source)
    folder = tmp_path / "shards"
    model.save_pretrained(folder, max_shard_size="200KB")
    tokenizer.save_pretrained(folder)
    for name in ("consolidated.safetensors", "pytorch_model.bin", "optimizer.pt", ".hidden", "ropewalk-manifest.json"):
        (folder / name).write_text("{}")
    (folder / "original").mkdir()
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("tool")
    (folder / "LICENSE").write_text("licence")
    sharded = load(folder)[0]
    plan = write_checkpoint(sharded, FACTORS, tmp_path / "out")
    assert len(plan.weights) > 1
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names >= {"LICENSE", "additional_chat_templates/tool.jinja", "model.safetensors.index.json", *plan.weights}
    assert not names & {"consolidated.safetensors", "pytorch_model.bin", "optimizer.pt", ".hidden"}
    assert "ropewalk-manifest.json" not in names
    assert factors_of(load(tmp_path / "out")[0]).values == FACTORS.values


def test_factors_that_the_model_carried_already_are_replaced(source: Path, tmp_path: Path) -> None:
    write_checkpoint(load(source)[0], FACTORS, tmp_path / "one")
    model = load(tmp_path / "one")[0]
    remove(model)
    write_checkpoint(model, ScalingFactors.uniform(1.1, 4), tmp_path / "two")
    assert factors_of(load(tmp_path / "two")[0]).values == (1.1,) * 4
    assert read(tmp_path / "one" / "config.json")["rope_layer_factors"] == list(FACTORS.values)


def test_a_config_that_holds_infinity_keeps_it(source: Path, tmp_path: Path) -> None:
    config = read(source / "config.json") | {"time_step_limit": [0.0, float("inf")]}
    (source / "config.json").write_text(json.dumps(config))
    write_checkpoint(load(source)[0], FACTORS, tmp_path / "out")
    assert read(tmp_path / "out" / "config.json")["time_step_limit"] == [0.0, float("inf")]


HUB = """
import sys
from pathlib import Path
from ropewalk import ScalingFactors, load_pretrained
from ropewalk.export.checkpoint import write_checkpoint
model, _ = load_pretrained("some/model", device="cpu", dtype="float32")
write_checkpoint(model, ScalingFactors([0.9, 1.05, 1.1, 0.95]), Path(sys.argv[1]))
"""


def test_a_model_of_the_hub_is_taken_from_its_cache(tiny_path: Path, tmp_path: Path) -> None:
    """Snapshots hold links to blobs: the checkpoint has files of its own."""
    repository = tmp_path / "hub" / "models--some--model"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(snapshot.name)
    for path in tiny_path.iterdir():
        shutil.copy(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUB, str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert factors_of(load(tmp_path / "out")[0]).values == FACTORS.values


# What it leaves alone, and refuses ---------------------------------------------------------------------------------


def test_the_same_again_is_left_as_it_is(source: Path, tmp_path: Path) -> None:
    model = load(source)[0]
    write_checkpoint(model, FACTORS, tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    write_checkpoint(model, FACTORS, tmp_path / "out")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_other_factors_or_half_a_checkpoint_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    model = load(source)[0]
    write_checkpoint(model, FACTORS, tmp_path / "out")
    with pytest.raises(DataError, match="holds another export"):
        write_checkpoint(model, ScalingFactors.uniform(1.1, 4), tmp_path / "out")
    (tmp_path / "out" / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="give another folder"):
        write_checkpoint(model, FACTORS, tmp_path / "out")


@pytest.mark.parametrize("kind", ["file", "folder", "model"])
def test_what_is_no_such_checkpoint_is_refused(kind: str, source: Path, tmp_path: Path) -> None:
    model, out = load(source)[0], tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
        (out / "mine").write_text("mine")
    else:
        out = source
    with pytest.raises(DataError, match="is the model itself" if kind == "model" else "exists already"):
        write_checkpoint(model, FACTORS, out)


def test_a_checkpoint_is_not_written_onto_the_model_that_it_is(source: Path, tmp_path: Path) -> None:
    write_checkpoint(load(source)[0], FACTORS, tmp_path / "out")
    with pytest.raises(DataError, match="is the model itself"):
        write_checkpoint(load(tmp_path / "out")[0], FACTORS, tmp_path / "out")


def test_factors_of_another_model_are_refused(source: Path, tmp_path: Path) -> None:
    model = load(source)[0]
    identity = model_identity(model) | {"name": "other", "fingerprint": "sha256:0"}
    foreign = FACTORS.with_provenance(model=identity, base=base_scheme(model), found={})
    with pytest.raises(FactorsError, match="made for 'other'"):
        write_checkpoint(model, foreign, tmp_path / "out")
    with pytest.raises(FactorsError, match="3 factors for a model of 4 layers"):
        write_checkpoint(model, ScalingFactors([1.0, 1.1, 1.0]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_checkpoint(model, foreign, tmp_path / "out", any_model=True)
    assert factors_of(load(tmp_path / "out")[0]).values == FACTORS.values


def test_a_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    plan = write_checkpoint(load(source)[0], FACTORS, tmp_path / "out", dry_run=True)
    assert plan.weight_bytes == (source / "model.safetensors").stat().st_size
    assert "tokenizer.json" in plan.small
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_full_disk_leaves_nothing_half_made(source: Path, tmp_path: Path) -> None:
    model = load(source)[0]
    with largest_file(1000), pytest.raises(PrerequisiteError, match="no space left"):
        write_checkpoint(model, FACTORS, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_model_without_a_folder_is_refused(source: Path, tmp_path: Path) -> None:
    model = load(source)[0]
    assert source_folder(model) == source
    shutil.move(source, tmp_path / "moved")
    with pytest.raises(DataError, match="is not on this disk"):
        write_checkpoint(model, FACTORS, tmp_path / "out")
