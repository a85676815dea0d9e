"""The paper's own setting, whole, on a random model of its shape: 32 layers, no chat template, the official format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doc_blocks import ROOT
from task_data import task_options
from tiny import tiny_model
from tokenizers_factory import metaspace

SCRIPT = ROOT / "benchmarks" / "reproduce" / "paper.py"
SMALL = ("--positions", "0,2,4", "--records", "2", "--test", "2", "--generations", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama-2's tokenizer in small, and 32 layers with random weights."""
    folder, tokenizer = tmp_path_factory.mktemp("vicuna"), metaspace()
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 32, "num_attention_heads": 2}
    model = tiny_model(**size, vocab_size=len(tokenizer), max_position_embeddings=4096, initializer_range=0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(task_options("mdqa", tmp_path_factory.mktemp("data")).data)


def paper(model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--model", str(model), *SMALL, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | {"COLUMNS": "120"})


@pytest.mark.slow
def test_the_whole_setting_runs_and_goes_on_where_it_was(vicuna: Path, questions: str, tmp_path: Path) -> None:
    ended = paper(vicuna, "--data", questions, "--out", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "paper.json").read_text())
    assert set(report["accuracy"]) >= {"vanilla", "factors", "published_mdqa", "published_kv"}
    assert all({"difference", "low", "high", "p"} <= set(gain["average"]) for gain in report["gain"].values())
    assert report["search"]["method"]["method"] == "paper"
    assert report["search"]["candidates"] == 19  # the identity is scored before all others too
    assert report["published"]["vanilla"] == [59.4, 58.2, 55.6, 55.4, 60.2]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["task"]["prompt"]["format"] == "chat"
    assert result["task"]["prompt"]["chat_template_sha256"]
    assert "unverified" in ended.stderr
    again = paper(vicuna, "--data", questions, "--out", str(tmp_path))
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "paper.json").read_text())["search"] == report["search"]


def test_another_models_tokenizer_is_refused(roomy_path: Path, questions: str, tmp_path: Path) -> None:
    ended = paper(roomy_path, "--data", questions, "--out", str(tmp_path))
    assert ended.returncode == 2
    assert "--own-template" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_prompt_is_fastchats(vicuna: Path) -> None:
    """The text as FastChat's conversation template vicuna_v1.1 joins it, for one turn and for two."""
    from ropewalk.checkpoint import load_tokenizer
    from ropewalk.prompts import use_chat_template

    tokenizer = load_tokenizer(vicuna)
    use_chat_template(tokenizer, SCRIPT.with_name("vicuna.jinja"))
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    one = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert one == f"<s> {system} USER: Hi ASSISTANT: "
    more = tokenizer.apply_chat_template([*turns, turns[0]], tokenize=False, add_generation_prompt=True)
    assert more == f"<s> {system} USER: Hi ASSISTANT: Yes</s>USER: Hi ASSISTANT: "
