"""MFU of scoring long prompts: executed FLOPs a second (what counts: flops.py) over those of a large matrix product.

    python benchmarks/mfu.py --out mfu.json                        # Llama-7B's and Qwen2.5-0.5B's shape, 4,096 tokens
    python benchmarks/mfu.py --shapes 7b --profile --out mfu.json  # and the kernels that take the time
    python benchmarks/mfu.py --shapes tiny --tokens 256 --prompts 8 --device cpu

Random weights, made on the device; prompts of random ids that share nothing; one candidate a call, so nothing is shared
between candidates either. Beside ours, eager and compiled: `model.forward` with full logits and with the logits of the
answers alone, right-padded, in their best batch size. Compiling and warm-up are outside the timings.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from baselines import Baselines
from flops import Shape, executed_flops, whole
from measure import (
    Arm,
    Ceiling,
    Timings,
    best_batch,
    device_of,
    interleave,
    matmul_arm,
    matmul_ceiling,
    ratio,
    share_of_ceiling,
    spread,
    timed,
    top_kernels,
)
from ours import Scorer, executed
from reporting import progress, report, table, warn_of_fallback
from ropewalk.factors import ScalingFactors
from ropewalk.patch import patched
from workload import SHAPES, candidates, random_model, random_prompts

FULL = "forward, full logits"
ANSWERS = "forward, answers' logits"
COMPILED_FORWARD = "forward, answers' logits, compiled"
MATMUL = "matmul"


class Bench:
    """One shape: its model, its prompts and the arms that score them."""

    def __init__(self, name: str, device: torch.device, args: argparse.Namespace) -> None:
        self.name, self.device, self.args = name, device, args
        (self.model, self.tokenizer), seconds = timed(
            lambda: random_model(name, device, torch.bfloat16, args.seed), device
        )
        progress(f"{name}: weights made in {seconds:.1f} s")
        self.shape = Shape.of(self.model.config)
        self.prompts = random_prompts(args.prompts, args.tokens, args.answer, self.shape.vocabulary, args.seed)
        self.factors = candidates(self.shape.layers, 1, args.seed)[0]
        self.scorers: dict[str, Scorer] = {}
        self.flops: dict[str, float] = {}
        self.batch_sizes: dict[str, int] = {}

    def arms(self) -> dict[str, Arm]:
        arms: dict[str, Arm] = {}
        for kind in self.args.engine:
            name = f"ours, {kind}"
            self.scorers[name] = self._scorer(compiled=kind == "compiled")
            arms[name] = self._ours(self.scorers[name])
        if self.args.no_baselines:
            return arms
        baselines = Baselines(self.model, self.tokenizer)
        arms[FULL] = self._forward(FULL, baselines, full_logits=True)
        arms[ANSWERS] = self._forward(ANSWERS, baselines, full_logits=False)
        if self.args.compile_forward:
            compiled = Baselines(torch.compile(self.model), self.tokenizer)
            arms[COMPILED_FORWARD] = self._forward(COMPILED_FORWARD, compiled, full_logits=False)
        return arms

    def _scorer(self, *, compiled: bool) -> Scorer:
        return Scorer(self.model, self.tokenizer, self.prompts, self.args.tokens_per_batch, compiled=compiled)

    def _ours(self, scorer: Scorer) -> Arm:
        def arm(_repeat: int) -> float:
            scorer.score([self.factors])
            return float(len(self.prompts))

        return arm

    def _forward(self, name: str, baselines: Baselines, *, full_logits: bool) -> Arm:
        def run(size: int) -> Any:
            with patched(self.model, self.factors):
                return baselines.forward(self.prompts[:size], full_logits=full_logits)

        sizes = [size for size in self.args.sizes if size <= len(self.prompts)]
        size, _ = best_batch(run, sizes, self.device, name)
        self.batch_sizes[name] = size
        answer = self.args.answer + 1
        one = whole(self.args.tokens, None if full_logits else answer)
        self.flops[name] = executed_flops(self.shape, [one] * size * self.args.forward_batches)

        def arm(_repeat: int) -> float:
            for _ in range(self.args.forward_batches):
                run(size)
            return float(size * self.args.forward_batches)

        return arm

    def summary(self, timings: dict[str, Timings], matmul: Timings, first: str) -> dict[str, Any]:
        """Print the table of this shape and return it for the report. first: the arm that the ratios are of."""
        for name, scorer in self.scorers.items():
            self.flops[name] = executed(scorer, [self.factors]).flops
        arms, rows = {}, []
        for name, timing in timings.items():
            share = share_of_ceiling(self.flops[name], timing, matmul)
            arms[name] = {
                "mfu": share,
                "prompts_per_second": spread(timing.rates),
                "tflops_per_second": spread([self.flops[name] / seconds / 1e12 for seconds in timing.seconds]),
                "executed_tflop_per_prompt": self.flops[name] / timing.work[0] / 1e12,
                f"{first} over this": ratio(timings[first], timing),
                "batch_size": self.batch_sizes.get(name),
                "warm_up_seconds": timing.first,
                "reason": self.scorers[name].reason if name in self.scorers else None,
            }
            size = self.batch_sizes.get(name)
            rows.append({
                "arm": f"{name} ({size})" if size else name, "MFU": share, "prompts/s": spread(timing.rates),
                "TFLOP/prompt": arms[name]["executed_tflop_per_prompt"],
                f"{first} over it": ratio(timings[first], timing), "warm-up s": timing.first,
            })  # fmt: skip
        table(f"{self.name}: {len(self.prompts)} prompts of {self.args.tokens} tokens; batch sizes in brackets", rows)
        for name, scorer in self.scorers.items():
            warn_of_fallback(name, scorer.reason)
        return {
            "shape": vars(self.shape),
            "matmul_tflops": spread([rate / 1e12 for rate in matmul.rates]),
            "arms": arms,
        }

    def profile(self, scorer: Scorer, factors: ScalingFactors, name: str) -> list[dict[str, Any]]:
        found = top_kernels(lambda: scorer.score([factors]), self.device)
        table(f"{self.name}, {name}: what takes the time", found)
        return found


def measure_shape(name: str, device: torch.device, ceiling: Ceiling, args: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(name, device, args)
    arms = {MATMUL: matmul_arm(device, ceiling), **bench.arms()}
    timings = interleave(arms, args.repeats, device)
    matmul, first = timings.pop(MATMUL), f"ours, {args.engine[-1]}"
    found = bench.summary(timings, matmul, first)
    if device.type == "cuda":
        found["peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    if args.profile:
        found["profile"] = bench.profile(bench.scorers[first], bench.factors, first)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["7b", "0.5b"])
    parser.add_argument("--tokens", type=int, default=4096, help="of a prompt")
    parser.add_argument("--answer", type=int, default=16, help="scored tokens of a prompt")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--engine", nargs="+", choices=["eager", "compiled"], default=["eager", "compiled"])
    parser.add_argument("--tokens-per-batch", type=int, help="of ours; without it the engine chooses")
    parser.add_argument("--no-baselines", action="store_true", help="ours alone")
    parser.add_argument("--compile-forward", action="store_true", help="also time a compiled model.forward")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="batch sizes to try")
    parser.add_argument("--forward-batches", type=int, default=2, help="batches a repeat of the baselines")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print the kernels that take the most time")
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON report here")
    args = parser.parse_args()
    device = device_of(args.device)
    ceiling = matmul_ceiling(device)
    ceiling.show()
    found: dict[str, Any] = {"tokens": args.tokens, "prompts": args.prompts, "answer": args.answer,
                             "ceiling": ceiling.to_json(), "shapes": {}}  # fmt: skip
    for name in args.shapes:
        found["shapes"][name] = measure_shape(name, device, ceiling, args)
        # Else the compiler sees the next shape's widths differ from this one's and leaves them open instead of making
        # them constants: the rotation's kernel then takes 9 times as long (0.5b after 7b: MFU 0.57 instead of 0.64).
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
    report("mfu", args.seed, device, found, args.out)


if __name__ == "__main__":
    main()
