"""One of two tensor parallel processes, started by torchrun: compares with the whole model and writes what it found.

python -m torch.distributed.run --nproc-per-node 2 tensor_parallel.py FOLDER OUT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers import AutoModelForCausalLM

import ropewalk
from brute_force import brute_force_logits
from ropewalk.engine.scorer import Scorer
from ropewalk.factors import ScalingFactors
from ropewalk.identity import model_identity
from ropewalk.patch import layer_reports
from scored_prompts import TinyTokenizer, prompts_of_records
from tiny import logits, prompt

FACTORS = [1.5, 1.0, 0.7, 2.25]


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def compare(model: Any, whole: Any) -> dict[str, Any]:
    ids = prompt().to(model.device)
    vanilla, plain = logits(model, ids), logits(whole, ids)
    prompts, candidates = prompts_of_records(1), [None, ScalingFactors(FACTORS)]
    scorer = Scorer(model, TinyTokenizer(), prompts)
    scores = scorer.score(candidates)
    expected = Scorer(whole, TinyTokenizer(), prompts).score(candidates)
    kinds = [report.kind for report in layer_reports(model)]
    ropewalk.apply(model, FACTORS)
    scaled = logits(model, ids)
    with ropewalk.patched(whole, FACTORS):
        answers = [one.generate(ids, max_new_tokens=4, do_sample=False) for one in (model, whole)]
    ropewalk.remove(model)
    return {
        "weights": type(model.model.layers[0].self_attn.q_proj.weight).__name__,
        "processes": torch.distributed.get_world_size(),
        "kinds": kinds,
        "vanilla": largest(vanilla, plain),
        "factors": largest(scaled, brute_force_logits(whole, FACTORS, ids)),
        "effect": largest(scaled, vanilla),
        "removed": largest(logits(model, ids), vanilla),
        "same_fingerprint": model_identity(model)["fingerprint"] == model_identity(whole)["fingerprint"],
        "same_tokens": torch.equal(*answers),
        "reason": scorer.reason,
        "scores": max(
            abs(one.log_likelihood - other.log_likelihood)
            for mine, theirs in zip(scores, expected, strict=True)
            for one, other in zip(mine, theirs, strict=True)
        ),
    }


def main() -> None:
    folder, out = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto").eval()
    found = compare(model, AutoModelForCausalLM.from_pretrained(folder).to(model.device).eval())
    if torch.distributed.get_rank() == 0:
        Path(out).write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
