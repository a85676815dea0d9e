"""A checkpoint with factors in vLLM: the tokens of transformers with the factors, whichever way it is served."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="runs in an environment of its own: make test-vllm")

from vllm_engines import (
    FACTORS,
    SMOLLM2,
    Served,
    answers,
    assert_agree,
    by_llm,
    by_server,
    checkpoint,
    distance,
    serve_command,
    server,
    start_llm,
    with_factors,
)

from ropewalk.cli import run
from ropewalk.factors import ScalingFactors

pytestmark = pytest.mark.slow

Get = Callable[[str], Served]
SAID = "{scaled} of {layers} layers here scaled by rope_layer_factors"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An empty compile cache for these tests."""
    return {"VLLM_CACHE_ROOT": str(tmp_path_factory.mktemp("cache"))}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3_text", "phi3"])
def test_llm_eager(kind: str, served: Get, tmp_path: Path) -> None:
    made = served(kind)
    given, log = by_llm(made, tmp_path / "answers", reload=kind == "llama")
    assert_agree(given["first"], made.scaled)
    assert SAID.format(scaled=4, layers=4) in log
    assert "3 tables more for 3 distinct factors" in log
    if kind == "llama":  # weights that are loaded again leave the tables as they are
        assert_agree(given["reloaded"], made.scaled)


def test_llm_with_its_own_processes_compiled(served: Get, tmp_path: Path, cache: dict[str, str]) -> None:
    made = served("llama")
    given, log = by_llm(made, tmp_path / "answers", enforce_eager=False, environment=cache)
    assert_agree(given["first"], made.scaled)
    assert SAID.format(scaled=4, layers=4) in log


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3_text", SMOLLM2])
def test_the_server_compiled(kind: str, served: Get, cache: dict[str, str]) -> None:
    made = served(kind)
    with server(made.folder, environment=cache) as client:
        assert_agree(by_server(made, client), made.scaled)


def test_llm_eager_with_found_factors(served: Get, tmp_path: Path) -> None:
    made = served(SMOLLM2)
    given, log = by_llm(made, tmp_path / "answers")
    assert_agree(given["first"], made.scaled)
    assert SAID.format(scaled=30, layers=30) in log


def test_the_server_eager(served: Get) -> None:
    made = served(SMOLLM2)
    with server(made.folder, "--enforce-eager") as client:
        assert_agree(by_server(made, client), made.scaled)


@pytest.mark.parametrize(("kind", "eager"), [("llama", True), ("gemma3_text", True), ("qwen3", False)])
def test_the_transformers_backend(kind: str, eager: bool, served: Get, tmp_path: Path, cache: dict[str, str]) -> None:
    made = served(kind)
    given, log = by_llm(
        made,
        tmp_path / "answers",
        enforce_eager=eager,
        model_impl="transformers",
        environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} | cache,
    )
    assert_agree(given["first"], made.scaled)
    assert "Transformers backend: 4 of 4 layers scaled by rope_layer_factors" in log


def test_code_of_an_export_gives_way_to_the_plugin(served: Get, tmp_path: Path) -> None:
    """Both scale the layers in the Transformers backend: once is right."""
    made = served("llama")
    ScalingFactors(FACTORS).save(tmp_path / "factors.json")
    plain = with_factors(copied(made.folder, tmp_path / "plain"), None)
    words = ["--model", str(plain), "--factors", str(tmp_path / "factors.json"), "--to", "remote-code"]
    assert run(["export", *words, "--out", str(tmp_path / "coded"), "--quiet"]) == 0
    coded = Served(tmp_path / "coded", made.prompts, made.scaled, made.vanilla)
    given, _ = by_llm(coded, tmp_path / "answers", model_impl="transformers", trust_remote_code=True)
    assert_agree(given["first"], made.scaled)


def test_two_ranks(served: Get, tmp_path: Path) -> None:
    made = served("llama")
    given, log = by_llm(
        made,
        tmp_path / "answers",
        tensor_parallel_size=2,
        environment={"VLLM_CPU_OMP_THREADS_BIND": "0|1"},
    )
    assert_agree(given["first"], made.scaled)
    assert log.count(SAID.format(scaled=4, layers=4)) == 2


def test_factors_from_the_command_line(served: Get, tmp_path: Path) -> None:
    """--hf-overrides: the same model without an export."""
    made = served("llama")
    plain = with_factors(copied(made.folder, tmp_path / "plain"), None)
    done = start_llm(plain, made.prompts, tmp_path / "a", hf_overrides={"rope_layer_factors": list(FACTORS)})
    assert done.returncode == 0, done.stderr[-3000:]
    assert_agree(json.loads((tmp_path / "a").read_text())["first"], made.scaled)


def test_a_model_without_the_key_is_not_touched(served: Get, tmp_path: Path) -> None:
    made = served("llama")
    folder = with_factors(copied(made.folder, tmp_path / "plain"), None)
    given, log = by_llm(Served(folder, made.prompts, made.vanilla, made.vanilla), tmp_path / "answers")
    assert_agree(given["first"], made.vanilla)
    assert distance(given["first"], made.scaled) > 0.02
    assert "rope_layer_factors" not in log


def test_factors_never_share_a_compile_cache(served: Get, tmp_path: Path) -> None:
    made = served("llama")
    values = [1.0, 1.0, 1.5, 1.0]
    other = with_factors(copied(made.folder, tmp_path / "other"), values)
    wanted = Served(other, made.prompts, answers(other, made.prompts, values), made.vanilla)
    root = tmp_path / "cache"
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CACHE_ROOT": str(root)}
    found: list[set[str]] = []
    for one in (made, wanted):
        given, _ = by_llm(one, tmp_path / "answers", enforce_eager=False, environment=environment)
        assert_agree(given["first"], one.scaled)
        found.append(_compiled(root))
    assert found[0]
    assert found[0] < found[1]  # the second checkpoint found nothing that it could take


def _compiled(root: Path) -> set[str]:
    """Names of what is in the compile cache, one a configuration."""
    digest = re.compile(r"[0-9a-f]{10,64}")
    return {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir() and digest.fullmatch(path.name)
    }


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


# What does not start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.1, 1.2], "rope_layer_factors in its config.json holds 2 factors, the model has 4 layers"),
        ([1.1, float("nan"), 1.2, 1.3], "factor of layer 1 is nan, expected a finite number > 0"),
    ],
)
def test_the_server_does_not_start_with_wrong_factors(
    values: list[float], message: str, served: Get, tmp_path: Path
) -> None:
    folder = with_factors(copied(served("llama").folder, tmp_path / "model"), values)
    done = subprocess.run(serve_command(folder), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode not in (0, None)
    last = done.stderr.strip().splitlines()[-1]
    assert message in last
    assert str(folder) in last
    assert "EngineCore" not in done.stdout + done.stderr  # before anything was loaded


def test_a_model_whose_layers_have_no_rotary_module_does_not_start(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "gpt2", "gpt2")
    done = start_llm(folder, [[5, 6, 7]], tmp_path / "answers")
    assert done.returncode != 0
    assert "4 of 4 layers that rope_layer_factors scales have no rotary module" in done.stderr
