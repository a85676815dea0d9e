"""Prompts a second on a GPU: our engine beside Hugging Face `generate` and `model.forward`, verdicts compared.

    python benchmarks/evaluator.py --model DIR --out evaluator.json
    python benchmarks/evaluator.py --pieces FOLDER --out evaluator.json      # DIR made from the model's parts

kv retrieval, every record at every position, all arms under the same factors and in the same dtype (bf16): ours with
one candidate and with several at once; `generate` with one prompt a call (how the paper's author ran it) and in
left-padded batches; `model.forward` with full logits, right- and left-padded in batches; `model.forward` with the
logits of the answers alone. Batch sizes are tried and the best is taken. Two data modes: "gold moved" and "generated"
(workload.py). The arms, and a large matrix product, take turns in each repeat; ratios are of rates within a repeat.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import measure
from kv_comparison import Plan, add_options, compare
from reporting import report
from ropewalk.checkpoint import load_pretrained
from workload import candidates

MODES = {"both": ("gold moved", "generated"), "gold moved": ("gold moved",), "generated": ("generated",)}


def model_folder(model: Path | None, pieces: Path | None) -> Path:
    """The given folder, or that of Qwen2.5-Coder-0.5B-Instruct in the cache, converted if it is not there."""
    if model is not None:
        return model
    from models import qwen_coder
    from ropewalk.cache import cache_root

    return qwen_coder(cache_root() / "models" / "Qwen2.5-Coder-0.5B-Instruct", pieces=pieces)


def run(args: argparse.Namespace, plan: Plan, model_path: Path) -> dict[str, Any]:
    """Load, measure the ceiling, compare; the content of the report."""
    device = measure.device_of(args.device)
    model, tokenizer = load_pretrained(model_path, dtype="bfloat16", device=device)
    shape = model.config
    chosen = candidates(shape.num_hidden_layers, plan.many, plan.seed, low=0.9, high=1.1)
    own = [(2048, shape.intermediate_size, shape.hidden_size), (2048, shape.hidden_size, shape.intermediate_size)]
    ceiling = measure.matmul_ceiling(device, torch.bfloat16, own)
    ceiling.show()
    return {
        "model": {"name": model_path.name, "type": shape.model_type, "dtype": "bfloat16"},
        "plan": asdict(plan),
        "factors": [factors.values for factors in chosen],
        "ceiling": ceiling.to_json(),
        **compare(model, tokenizer, plan, chosen, ceiling, MODES[args.mode], profile=args.profile),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--pieces", type=Path, help="folder with the default model's wheels or GGUF parts")
    parser.add_argument("--device")
    parser.set_defaults(keys=75, records=20, many_records=8, single=5, batched=32, sizes=[4, 8, 16, 32, 64])
    args = parser.parse_args()
    found = run(args, Plan.of(args), model_folder(args.model, args.pieces))
    report("evaluator", args.seed, measure.device_of(args.device), found, args.out)


if __name__ == "__main__":
    main()
