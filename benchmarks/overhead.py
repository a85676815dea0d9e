"""What factors cost at inference: the patched model over the same model without, in transformers and in vLLM.

    python benchmarks/overhead.py --out overhead.json                  # CPU: SmolLM2, a llama shape, a host-bound one
    python benchmarks/overhead.py --device cuda --out overhead.json    # GPU: the shapes 0.5b, 7b and the host-bound one
    python benchmarks/overhead.py --vllm .venv-vllm/bin/python --shapes --out overhead-vllm.json

Prefill of one long prompt and decoding behind a short one, eager and compiled. Arms: the model; its twin, which shows
what two equal models differ by in these timings; the model with factors, another one in every layer; the naive way,
which computes tables anew in every layer's hook. All share their weights and take turns within each repeat, in an order
that changes; a ratio is of the seconds of one repeat. Shown are the ratios' median and middle half, by the clock and,
on a CPU, in processor time too, which neighbours on the machine disturb less.

vLLM serves SmolLM2 in three processes, with factors and twice without, in turns as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from measure import device_of
from overhead_arms import (
    AGAIN,
    FACTORS,
    NAIVE,
    VANILLA,
    Work,
    decode,
    in_turns,
    models,
    prefill,
    shapes_of,
    summary,
)
from overhead_vllm import served
from reporting import progress, report, table
from ropewalk import load_pretrained
from ropewalk.demo import demo_model
from workload import SHAPES, candidates, random_model

SMOLLM2 = "smollm2"
DEFAULT_SHAPES = {"cpu": [SMOLLM2, "0.1b", "host"], "cuda": ["0.5b", "7b", "host"]}
GOAL, HOST_BOUND_GOAL = 1.01, 1.02


def load(shape: str, device: torch.device, seed: int) -> Any:
    """In bfloat16. smollm2 has its real weights, the others random ones."""
    if shape == SMOLLM2:
        return load_pretrained(demo_model(), dtype="bfloat16", device=device)[0]
    return random_model(shape, device, torch.bfloat16, seed)[0]


def works(
    shape: str, mode: str, args: argparse.Namespace, device: torch.device, arms: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Work]]]:
    """(kind of work, the work of each arm)."""
    calls = {name: torch.compile(model) if mode == "compiled" else model for name, model in arms.items()}
    if "prefill" in args.work and shape != "host":
        yield "prefill", {name: prefill(arms[name], call, args.tokens, device) for name, call in calls.items()}
    if "decode" in args.work:
        static = mode == "compiled"
        yield (
            "decode",
            {
                name: decode(arms[name], call, args.prompt, args.new_tokens, device, static=static)
                for name, call in calls.items()
            },
        )


def measure_shape(shape: str, device: torch.device, args: argparse.Namespace) -> dict[str, Any]:
    vanilla = load(shape, device, args.seed)
    factors = candidates(len(vanilla.model.layers), 1, args.seed)[0]
    found: dict[str, Any] = {"distinct_factors": len(set(factors.values))}
    arms = models(vanilla, factors)
    for mode in args.modes:
        torch.compiler.reset()
        chosen = {name: model for name, model in arms.items() if name != NAIVE or mode == "eager"}
        for kind, by_arm in works(shape, mode, args, device, chosen):
            progress(f"{shape}, {mode}, {kind}")
            repeats = args.repeats if kind == "prefill" else args.decode_repeats
            tokens = args.tokens if kind == "prefill" else args.new_tokens
            found[f"{kind}, {mode}"] = summary(in_turns(by_arm, repeats), tokens)
    return found


def rows(shapes: Mapping[str, Any], clock: str) -> list[dict[str, Any]]:
    """One row a shape, kind of work and mode: each arm's seconds over vanilla's."""
    found = []
    for shape, by_work in shapes.items():
        for work, by_arm in shapes_of(by_work):
            over = {name: by_arm[name][clock] if name in by_arm else "–" for name in (FACTORS, AGAIN, NAIVE)}
            goal = HOST_BOUND_GOAL if shape == "host" and work == "decode, eager" else GOAL
            speed = by_arm[VANILLA]["tokens_per_second"]["median"]
            found.append({"shape": shape, "work": work, "vanilla tokens/s": speed, **over, "goal": goal})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", choices=[SMOLLM2, *SHAPES], help="default: by device")
    parser.add_argument("--work", nargs="+", choices=["prefill", "decode"], default=["prefill", "decode"])
    parser.add_argument("--modes", nargs="+", choices=["eager", "compiled"], default=["eager", "compiled"])
    parser.add_argument("--tokens", type=int, default=4096, help="of the prompt that is prefilled")
    parser.add_argument("--prompt", type=int, default=128, help="tokens before those that are decoded")
    parser.add_argument("--new-tokens", type=int, default=16, help="that are decoded in a repeat")
    parser.add_argument("--repeats", type=int, default=12, help="of a prefill")
    parser.add_argument("--decode-repeats", type=int, default=60)
    parser.add_argument("--threads", type=int, help="of torch on a CPU")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="also serve with the vLLM of this interpreter")
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON report here")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = device_of(args.device)
    names = DEFAULT_SHAPES[device.type] if args.shapes is None else args.shapes
    found: dict[str, Any] = {
        "tokens": args.tokens, "prompt": args.prompt, "new_tokens": args.new_tokens, "repeats": args.repeats,
        "decode_repeats": args.decode_repeats, "dtype": "bfloat16", "goal": GOAL, "host_bound_goal": HOST_BOUND_GOAL,
        "shapes": {},
    }  # fmt: skip
    for name in names:
        found["shapes"][name] = measure_shape(name, device, args)
        torch.compiler.reset()
    if names:
        table("seconds over vanilla's of the same repeat", rows(found["shapes"], "over_vanilla"))
        if device.type == "cpu":
            table("the same in processor time", rows(found["shapes"], "processor_time_over_vanilla"))
    if args.vllm:
        found["vllm"] = served(args.vllm, demo_model(), args.seed, args.repeats)
    report("overhead", args.seed, device, found, args.out)


if __name__ == "__main__":
    main()
