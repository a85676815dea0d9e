"""The same promises on a GPU: bf16, kernels that differ from run to run, and layers on several devices."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import ropewalk
from ropewalk.identity import model_identity
from tiny import logits, prompt

sys.path.insert(0, str(Path(__file__).parent / "conformance"))
from model_types import by_name

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
TYPES = ["llama", "qwen2", "gemma3_text", "phi3", "smollm3", "mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "lfm2"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TYPES)
def test_exact_and_reversible(name: str, dtype: torch.dtype) -> None:
    entry = by_name()[name]
    model = entry.build().to("cuda", dtype)
    ids = prompt().cuda()
    noise = max(float((logits(model, ids) - logits(model, ids)).abs().max()) for _ in range(3))
    vanilla = logits(model, ids)
    identity = model_identity(model)
    assert identity["fingerprint"] == model_identity(entry.build())["fingerprint"]
    with ropewalk.patched(model, entry.factors(1.0)):
        assert float((logits(model, ids) - vanilla).abs().max()) <= noise
    with ropewalk.patched(model, entry.factors(1.5, 0.7)):
        assert float((logits(model, ids) - vanilla).abs().max()) > noise
    assert float((logits(model, ids) - vanilla).abs().max()) <= noise


def test_compiled_with_inductor() -> None:
    entry = by_name()["qwen2"]
    model = entry.build().cuda()
    ids = prompt().cuda()
    ropewalk.apply(model, entry.factors(1.5, 1.0, 0.7))
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(input_ids=ids, use_cache=False).logits, logits(model, ids), atol=1e-3, rtol=1e-3
        )


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_layers_on_two_devices() -> None:
    from accelerate import dispatch_model

    entry = by_name()["llama"]
    whole, spread = entry.build().cuda(), entry.build()
    places = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.norm": 1, "lm_head": 1}
    places |= {f"model.layers.{index}": index // 2 for index in range(4)}
    spread = dispatch_model(spread, places)
    ids = prompt().cuda()
    ropewalk.apply(whole, entry.factors(1.5, 0.7))
    ropewalk.apply(spread, entry.factors(1.5, 0.7))
    torch.testing.assert_close(logits(spread, ids).cpu(), logits(whole, ids).cpu())
    ropewalk.remove(spread)
    ropewalk.remove(whole)
    torch.testing.assert_close(logits(spread, ids).cpu(), logits(whole, ids).cpu())
