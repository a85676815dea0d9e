"""A worker of two processes that share each weight, on CPUs: its scores, and that its processes end together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paired import followers, pair

from ropewalk.checkpoint import load_pretrained
from ropewalk.workers import ModelSource
from ropewalk.workers.cluster import WorkerSettings, cluster
from ropewalk.workers.model import on_workers, splits_into
from small_search import SPACE, evaluator


def test_what_can_be_split(tiny_path: Path) -> None:
    model, _ = load_pretrained(tiny_path, weights=False)
    assert not splits_into(model, str(tiny_path), 2)  # its vocabulary is odd
    model.config.vocab_size += 1
    assert splits_into(model, str(tiny_path), 2)
    assert not splits_into(model, str(tiny_path), 3)  # its heads
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    assert not splits_into(model, str(tiny_path), 2)


@pytest.fixture
def running(ray_token: Path) -> Iterator[None]:
    with cluster(WorkerSettings(count=1)):
        yield


@pytest.mark.slow
def test_two_processes_are_one_worker(running: None, tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path) -> None:
    factors = SPACE.factors(SPACE.level(1.2))
    expected = evaluator(*loaded).score_many([None, factors])
    said: list[str] = []
    source = ModelSource(str(tiny_path), "float32")
    with on_workers(source, WorkerSettings(count=1), say=said.append, make=pair) as away:
        assert len(followers()) == 1
        on = evaluator(*away)
        found = on.score_many([None, factors])
        assert on.engine == "own layer loop", on.engine
        agree(found, expected)
        os.kill(followers()[0], signal.SIGKILL)  # the worker ends with it, and a new one comes
        agree(on.score_many([factors]), expected[1:])
        assert any("is lost and replaced" in line for line in said), said
        assert len(followers()) == 1
    end = time.monotonic() + 20
    while followers() and time.monotonic() < end:
        time.sleep(0.2)
    assert followers() == []


def agree(found: list[Any], expected: list[Any]) -> None:
    """Up to the rounding of sums that are made in another order."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.log_likelihoods, other.log_likelihoods, atol=1e-4)
