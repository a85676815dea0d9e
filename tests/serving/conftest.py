"""Checkpoints with factors for vLLM, and transformers' answers with and without them."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

if importlib.util.find_spec("vllm"):
    from vllm_engines import SHAPES, Served, made_by

    @pytest.fixture(scope="session")
    def served(tmp_path_factory: pytest.TempPathFactory, tiny_path: Path) -> Callable[[str], Served]:
        """A checkpoint of a kind with the answers that it has to give, made once."""
        known: dict[str, Served] = {}

        def get(kind: str) -> Served:
            if kind not in known:
                folder = tmp_path_factory.mktemp("served") / kind
                known[kind] = made_by(folder, kind)
                if kind in SHAPES:
                    for name in ("tokenizer.json", "tokenizer_config.json"):
                        shutil.copy(tiny_path / name, folder / name)
            return known[kind]

        return get
