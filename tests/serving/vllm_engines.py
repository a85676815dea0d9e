"""What the tests of served checkpoints share: checkpoints with factors, transformers' answers, vLLM's engines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import ropewalk
from ropewalk.cli import run

HERE = Path(__file__).parent
NEW_TOKENS = 12
# Far enough from 1 that every layer's factor is heard in the answers of a model with random weights.
FACTORS = (1.3, 0.7, 1.0, 1.9)
SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 192,
    "num_hidden_layers": len(FACTORS),
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 128,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    # Windows of 32 tokens in every other layer, and a rope type for each kind of layer. Small embeddings, which are
    # tied: else the model says its last token again whatever the layers add.
    "gemma3_text": {
        "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "query_pre_attn_scalar": 16,
        "initializer_range": 0.02,
    },
    "phi3": {
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0 + i / 64 for i in range(32)],
            "long_factor": [1.0 + i / 16 for i in range(32)],
            "original_max_position_embeddings": 64,
        },
    },
    "gpt2": {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": 512},
}
SMOLLM2 = "smollm2"
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # tests may run beside each other
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}

Answers = list[dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """A checkpoint with factors, prompts, and what transformers answers with the factors and without."""

    folder: Path
    prompts: list[list[int]]
    scaled: Answers
    vanilla: Answers


def made_by(folder: Path, kind: str) -> Served:
    """Make the checkpoint and its answers. Its factors must matter, or the tests would prove nothing."""
    if kind == SMOLLM2:
        found = HERE.parents[1] / "examples" / "smollm2-kv10.json"
        assert run(["export", "--model", "demo", "--factors", str(found), "--out", str(folder), "--quiet"]) == 0
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = "The old lighthouse keeper wrote in his book: 'On the ninth of May the ship came back. " * 8
        given = [tokenizer(text[: len(text) // part])["input_ids"] for part in (1, 2)]
        values: Any = ropewalk.ScalingFactors.load(found)
    else:
        checkpoint(folder, kind)
        given, values = prompts(), FACTORS
    made = Served(folder, given, answers(folder, given, values), answers(folder, given, None))
    assert distance(made.scaled, made.vanilla) > 0.02
    return made


def checkpoint(folder: Path, kind: str, factors: Any = FACTORS) -> Path:
    """A random model in float32 with factors in its config.json, or without."""
    built = AutoConfig.for_model(kind, **(SHAPE | SHAPES[kind]))
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(built, dtype=torch.float32).save_pretrained(folder)
    return with_factors(folder, factors)


def with_factors(folder: Path, factors: Any) -> Path:
    """The same folder with these factors in its config.json; None takes them out."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content.pop("rope_layer_factors", None)
    path.write_text(json.dumps(content if factors is None else content | {"rope_layer_factors": factors}))
    return folder


def prompts(rows: int = 3, tokens: int = 90) -> list[list[int]]:
    """Token ids, of different lengths; all longer than what longrope was trained for, see `SHAPES`."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 128, (tokens - 10 * row,), generator=generator).tolist() for row in range(rows)]


def answers(folder: Path, given: list[list[int]], factors: Any) -> Answers:
    """Greedy tokens and their logprobs by transformers in float32, with factors applied by ropewalk or without."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if factors is not None:
        ropewalk.apply(model, factors)
    model.generation_config.eos_token_id = None  # as ignore_eos in vLLM, which min_new_tokens is not
    rows = []
    for ids in given:
        whole = torch.tensor([ids])
        made = model.generate(
            whole,
            attention_mask=torch.ones_like(whole),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens = made.sequences[0, len(ids) :].tolist()
        steps = [row[0].log_softmax(-1) for row in made.logits]
        rows.append({"tokens": tokens, "logprobs": [s[t].item() for s, t in zip(steps, tokens, strict=True)]})
    return rows


# vLLM --------------------------------------------------------------------------------------------------------------


def by_llm(made: Served, out: Path, *, reload: bool = False, **options: Any) -> tuple[dict[str, Answers], str]:
    """What `LLM` answers, {"first": …, "reloaded": …}, and what it logged."""
    done = start_llm(made.folder, made.prompts, out, reload=reload, **options)
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(out.read_text()), done.stdout + done.stderr


def start_llm(
    folder: Path,
    given: Sequence[list[int]],
    out: Path,
    *,
    reload: bool = False,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run `vllm_process.py` to its end; by default everything in its one process, eager."""
    usual = {"dtype": "float32", "max_model_len": 256, "skip_tokenizer_init": True, "enforce_eager": True}
    wanted = {
        "model": str(folder),
        "options": usual | options,
        "prompts": given,
        "new_tokens": NEW_TOKENS,
        "reload": reload,
        "out": str(out),
    }
    return subprocess.run(
        [sys.executable, str(HERE / "vllm_process.py")],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | ENVIRONMENT | (IN_PROCESS if environment is None else environment),
        check=False,
    )


@contextmanager
def server(folder: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[Any]:
    """`vllm serve` on loopback; yields an OpenAI client. The process and its children are gone afterwards."""
    import openai

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*serve_command(folder), "--port", str(port), *options],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT | (environment or {}),
        )
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    try:
        deadline = time.monotonic() + 600
        while not _answers(client):
            assert process.poll() is None, log.read_text()[-6000:]
            assert time.monotonic() < deadline, log.read_text()[-6000:]
            time.sleep(0.5)
        yield client
    finally:
        process.terminate()
        process.wait(60)


def serve_command(folder: Path) -> list[str]:
    """`vllm serve` as a user would start it, small."""
    vllm = [sys.executable, str(HERE / "vllm_command.py")]
    return [*vllm, "serve", str(folder), "--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "256"]


def by_server(made: Served, client: Any) -> Answers:
    """What the server answers to the OpenAI client."""
    rows = []
    for ids in made.prompts:
        done = client.completions.create(
            model=str(made.folder),
            prompt=ids,
            max_tokens=NEW_TOKENS,
            temperature=0.0,
            logprobs=1,
            extra_body={"return_tokens_as_token_ids": True, "ignore_eos": True},
        )
        given = done.choices[0].logprobs
        tokens = [int(token.removeprefix("token_id:")) for token in given.tokens]
        rows.append({"tokens": tokens, "logprobs": given.token_logprobs})
    return rows


def _answers(client: Any) -> bool:
    import openai

    try:
        client.models.list()
    except openai.OpenAIError:
        return False
    return True


# How near ----------------------------------------------------------------------------------------------------------


def assert_agree(ours: Answers, theirs: Answers) -> None:
    """Equal tokens, and logprobs as near as two implementations of attention in float32 are."""
    assert [row["tokens"] for row in ours] == [row["tokens"] for row in theirs]
    assert distance(ours, theirs) < 2e-4


def distance(ours: Answers, theirs: Answers) -> float:
    """Largest difference between the logprobs of two lists of answers, in nats."""
    pairs = zip((row["logprobs"] for row in ours), (row["logprobs"] for row in theirs), strict=True)
    return max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))
