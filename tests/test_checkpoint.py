"""load_pretrained: what a checkpoint carries comes back, and what can't be loaded is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import ropewalk
from gguf_factory import tiny_model, write_gguf
from ropewalk.checkpoint import default_dtype, load_pretrained
from ropewalk.errors import DataError, FactorsError, PrerequisiteError, RopewalkError, UnsupportedModelError
from ropewalk.patch import factors_of

IDS = torch.tensor([[5, 80, 33, 120, 7, 200, 41, 16, 99, 3, 250, 61]])
FACTORS = [1.0, 1.5, 0.7, 2.0]


@pytest.fixture
def tiny(tiny_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny_path, tmp_path / "tiny"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def edit_config(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_factors_survive_saving(tiny_path: Path, tmp_path: Path) -> None:
    model, tokenizer = load_pretrained(tiny_path, dtype="float32")
    vanilla = logits(model)
    ropewalk.apply(model, FACTORS)
    scaled = logits(model)
    assert not torch.allclose(scaled, vanilla)
    model.save_pretrained(tmp_path / "scaled")
    tokenizer.save_pretrained(tmp_path / "scaled")

    loaded, _ = load_pretrained(tmp_path / "scaled", dtype="float32")
    assert factors_of(loaded).values == tuple(FACTORS)
    assert loaded.config.rope_layer_factors == FACTORS
    assert torch.equal(logits(loaded), scaled)

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "scaled", dtype="float32").eval()
    assert torch.equal(logits(plain), vanilla)

    without, _ = load_pretrained(tmp_path / "scaled", dtype="float32", apply_factors=False)
    assert factors_of(without) is None
    assert not hasattr(without.config, "rope_layer_factors")
    assert torch.equal(logits(without), vanilla)


def test_removed_factors_are_not_saved(tiny_path: Path, tmp_path: Path) -> None:
    model, tokenizer = load_pretrained(tiny_path, dtype="float32")
    vanilla = logits(model)
    ropewalk.apply(model, FACTORS)
    ropewalk.remove(model)
    model.save_pretrained(tmp_path / "out")
    tokenizer.save_pretrained(tmp_path / "out")
    assert "rope_layer_factors" not in json.loads((tmp_path / "out" / "config.json").read_text())
    loaded, _ = load_pretrained(tmp_path / "out", dtype="float32")
    assert factors_of(loaded) is None
    assert torch.equal(logits(loaded), vanilla)


def test_the_real_model_keeps_its_factors(demo_path: Path, tmp_path: Path) -> None:
    model, tokenizer = load_pretrained(demo_path)
    ropewalk.apply(model, ropewalk.ScalingFactors.from_bezier([[0, 1.1], [0.5, 1.6], [1, 0.9]], 30))
    scaled = logits(model)
    model.save_pretrained(tmp_path / "out")
    tokenizer.save_pretrained(tmp_path / "out")
    loaded, _ = load_pretrained(tmp_path / "out")
    assert factors_of(loaded) == factors_of(model)
    assert torch.equal(logits(loaded), scaled)


def test_defaults(tiny_path: Path) -> None:
    model, tokenizer = load_pretrained(tiny_path, device="cpu")
    assert model.dtype == default_dtype("cpu")
    assert model.device.type == "cpu"
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    assert tokenizer("hi").tokens() == ["hi"]
    assert load_pretrained(str(tiny_path), dtype="auto", device="cpu")[0].dtype == torch.float32
    assert load_pretrained(tiny_path, dtype=torch.float16, device="cpu")[0].dtype == torch.float16
    assert load_pretrained(tiny_path, device="auto")[0].dtype == default_dtype("auto")


def test_bf16_only_where_the_processor_multiplies_it() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.exists():
        pytest.skip("no /proc/cpuinfo to compare with")
    native = "avx512_bf16" in flags.read_text()
    assert default_dtype("cpu") == (torch.bfloat16 if native else torch.float32)
    assert default_dtype("meta") == torch.float32


def test_a_gguf_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    source = tiny_model("llama")
    gguf = write_gguf(tmp_path / "my model.gguf", source)
    first, tokenizer = load_pretrained(gguf, dtype="auto")
    assert torch.equal(logits(first), logits(source))
    assert tokenizer("hi  12").tokens() == ["hi", "ĠĠ", "1", "2"]
    (weights,) = (tmp_path / "cache" / "models").glob("my model-*/model.safetensors")
    stamp = weights.stat().st_mtime_ns
    gguf.rename(tmp_path / "my model.moved.gguf")
    shutil.copy(tmp_path / "my model.moved.gguf", gguf)
    load_pretrained(gguf)
    assert weights.stat().st_mtime_ns == stamp


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 5000)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (remove("config.json"), DataError, "no config.json"),
        (remove("model.safetensors"), DataError, "holds no weights"),
        (remove("tokenizer.json", "tokenizer_config.json"), DataError, "tokenizer is missing or damaged"),
        (lambda f: (f / "tokenizer.json").write_text("{"), DataError, "tokenizer is missing or damaged"),
        (lambda f: (f / "config.json").write_text("{"), DataError, "not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), DataError, "model_type"),
        (truncated, DataError, "cut short or damaged"),
        (pickled, DataError, r"pickled \(pytorch_model\.bin\).*use_safetensors=False"),
        (lambda f: edit_config(f, model_type="zork"), DataError, "zork"),
        (lambda f: edit_config(f, model_type="t5"), UnsupportedModelError, "not a causal language model"),
        (
            lambda f: edit_config(f, model_type="zork", auto_map={"AutoConfig": "configuration_zork.Zork"}),
            UnsupportedModelError,
            r"trust_remote_code=True \(--trust-remote-code\)",
        ),
        (lambda f: edit_config(f, num_hidden_layers=5), DataError, r"9 weights \(model\.layers\.4.*missing"),
        (lambda f: edit_config(f, intermediate_size=80), DataError, "other shapes"),
        (lambda f: edit_config(f, rope_layer_factors=[1.0, 2.0]), FactorsError, "rope_layer_factors.*2 factors"),
        (lambda f: edit_config(f, rope_layer_factors=[float("nan")] * 4), FactorsError, "layer 0 is nan"),
        (lambda f: edit_config(f, rope_layer_factors=[1.0, 1.0, -1.0, 1.0]), FactorsError, "layer 2 is -1"),
        (lambda f: edit_config(f, rope_layer_factors="all"), FactorsError, "got 'all'"),
    ],
)
def test_a_spoilt_checkpoint_is_one_line(
    tiny: Path, spoil: Callable[[Path], Any], error: type[RopewalkError], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(tiny)
    with pytest.raises(error, match=message) as caught:
        load_pretrained(tiny, dtype="float32")
    assert str(caught.value).startswith(str(tiny))
    assert str(caught.value).count(str(tiny)) <= 2
    assert "\n" not in str(caught.value)
    assert "LOAD REPORT" not in caplog.text


def test_weights_nobody_uses_are_a_warning(tiny: Path) -> None:
    edit_config(tiny, num_hidden_layers=3)
    with pytest.warns(UserWarning, match=r"9 weights \(model\.layers\.3.*not used"):
        model, _ = load_pretrained(tiny)
    assert len(model.model.layers) == 3


def test_remote_code_is_left_alone_where_transformers_has_the_class(tiny: Path) -> None:
    """A checkpoint's own class is not run, nor asked about, when the native one loads it."""
    (tiny / "modeling_own.py").write_text("raise SystemExit('ran')")
    edit_config(tiny, auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    assert type(load_pretrained(tiny)[0]).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such folder, and not a hub id"),
        ("/no/such/folder", "no such folder, and not a hub id"),
        ("nowhere.gguf", "no such file"),
        (__file__, "is a file, expected a model folder"),
        ("", "no model given"),
    ],
)
def test_no_checkpoint_there(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_pretrained(name)


def test_a_hub_that_is_not_reached() -> None:
    with pytest.raises(PrerequisiteError, match="org/model: no such folder here, and the model hub can't be reached"):
        load_pretrained("org/model")


@pytest.mark.slow
def test_no_network_at_all() -> None:
    """Without the offline switch the hub's client tries five times before it gives up."""
    script = "import ropewalk\ntry: ropewalk.load_pretrained('org/m')\nexcept ropewalk.RopewalkError as e: print(e)"
    env = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    env["HF_ENDPOINT"] = "http://127.0.0.1:9"
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("org/m: no such folder here, and the model hub can't be reached"), done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"device": "warp"}, "device is 'warp'"),
        ({"device": "cuda:99"}, "device is 'cuda:99'"),
    ],
)
def test_options_are_checked(tiny_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(RopewalkError, match=message):
        load_pretrained(tiny_path, **options)
