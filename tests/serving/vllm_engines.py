"""What the tests of served checkpoints share: tiny checkpoints with factors, transformers' answers, vLLM's engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import ropewalk

HERE = Path(__file__).parent
NEW_TOKENS = 12
# Far enough from 1 that every layer's factor is heard in the answers of a model with random weights.
FACTORS = (1.3, 0.7, 1.0, 1.9)
SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": len(FACTORS),
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 256,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "INFO",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def checkpoint(folder: Path, model_type: str, factors: Any = FACTORS, **config: Any) -> Path:
    """A random model in float32 with factors in its config.json; none for None."""
    built = AutoConfig.for_model(model_type, **(SHAPE | config))
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(built, dtype=torch.float32).save_pretrained(folder)
    return with_factors(folder, factors)


def with_factors(folder: Path, factors: Any) -> Path:
    """The same folder with these factors in its config.json."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content.pop("rope_layer_factors", None)
    path.write_text(json.dumps(content if factors is None else content | {"rope_layer_factors": factors}))
    return folder


def prompts(rows: int = 3, tokens: int = 90, vocabulary: int = 256) -> list[list[int]]:
    """Token ids, of different lengths."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, vocabulary, (tokens - 20 * row,), generator=generator).tolist() for row in range(rows)]


def transformers_answers(folder: Path, given: list[list[int]], factors: Any = FACTORS) -> list[dict[str, Any]]:
    """Greedy tokens and their logprobs by transformers, in float32, with factors applied by ropewalk or without."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if factors is not None:
        ropewalk.apply(model, factors)
    answers = []
    for ids in given:
        whole = torch.tensor([ids])
        made = model.generate(
            whole,
            attention_mask=torch.ones_like(whole),
            do_sample=False,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens = made.sequences[0, len(ids) :].tolist()
        steps = [row[0].log_softmax(-1) for row in made.logits]
        answers.append({"tokens": tokens, "logprobs": [s[t].item() for s, t in zip(steps, tokens, strict=True)]})
    return answers


def serve(
    folder: Path, given: list[list[int]], *, reload: bool = False, eager: bool = True, **options: Any
) -> tuple[dict[str, Any], str]:
    """What vLLM's `LLM` answers, and what it logged."""
    done = run_engine(folder, given, reload=reload, eager=eager, **options)
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(_answers_of(folder).read_text()), done.stdout + done.stderr


def run_engine(
    folder: Path, given: list[list[int]], *, reload: bool = False, eager: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `vllm_process.py` to its end."""
    usual = {"dtype": "float32", "max_model_len": 256, "skip_tokenizer_init": True, "enforce_eager": eager}
    wanted = {
        "model": str(folder),
        "options": usual | options,
        "prompts": given,
        "new_tokens": NEW_TOKENS,
        "reload": reload,
        "out": str(_answers_of(folder)),
    }
    command = [sys.executable, str(HERE / "vllm_process.py")]
    environment = os.environ | ENVIRONMENT
    return subprocess.run(
        command, input=json.dumps(wanted), capture_output=True, text=True, timeout=400, env=environment, check=False
    )


def _answers_of(folder: Path) -> Path:
    return folder.with_suffix(".answers.json")


def assert_answers_agree(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], within: float = 1e-4) -> None:
    """Equal tokens, and logprobs as near as two implementations of float32 attention are."""
    assert [row["tokens"] for row in ours] == [row["tokens"] for row in theirs]
    far = [
        abs(a - b) for o, t in zip(ours, theirs, strict=True) for a, b in zip(o["logprobs"], t["logprobs"], strict=True)
    ]
    assert max(far) < within
