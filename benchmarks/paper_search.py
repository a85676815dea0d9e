"""How long the paper's whole search takes: 418 candidates on 200 prompts of about 1,600 tokens, a 7B model.

    python benchmarks/paper_search.py --out paper_search.json
    python benchmarks/paper_search.py --shape tiny --tokens 200 --records 4 --seconds 5 --device cpu

Llama-7B's shape with random weights, prompts of random ids laid out as MDQA's (workload.py), candidates drawn as the
paper's are: the first two layers keep factor 1, the others follow a random Bézier curve. A chunk of the search
(`--chunk` candidates on `--chunk-records` records at every position) is scored again and again with new candidates and
the next records until `--seconds` have been measured; the whole is extrapolated from the candidates·prompts a second.
The interval is that of the chunks' mean time (Student's t, 95 %). No candidate is stopped early. The paper reports 4 to
8 hours on four A100s.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from measure import device_of, matmul_arm, matmul_ceiling, spread, timed
from ours import Scorer, executed
from reporting import progress, report, table, warn_of_fallback
from workload import SHAPES, candidates, mdqa_like_prompts, random_model

CANDIDATES = 418
PROMPTS = 200
PAPER_HOURS = (4.0, 8.0)  # on four A100s (arXiv 2503.04355)
PAPER_GPUS = 4


class Bench:
    """The model, the records' scorers and the candidates of the paper's search."""

    def __init__(self, device: torch.device, args: argparse.Namespace) -> None:
        self.device, self.args = device, args
        self.model, tokenizer = random_model(args.shape, device, torch.bfloat16, args.seed)
        layers, vocabulary = self.model.config.num_hidden_layers, self.model.config.vocab_size
        prompts = mdqa_like_prompts(args.records, args.tokens, vocabulary, args.seed, positions=args.positions)
        size = args.chunk_records * args.positions
        self.parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        self.scorers = [
            Scorer(self.model, tokenizer, part, args.tokens_per_batch, compiled=device.type == "cuda")
            for part in self.parts
        ]
        drawn = candidates(layers, CANDIDATES, args.seed, low=args.low, high=args.high, skip_first=2)
        order = np.random.default_rng(args.seed).permutation(CANDIDATES)
        self.candidates = [drawn[index] for index in order]

    def chunk(self, number: int) -> tuple[int, float, int]:
        """Score one chunk: (candidates·prompts, seconds, executed FLOPs)."""
        place = number % len(self.parts)
        start = number * self.args.chunk % CANDIDATES
        chosen = (self.candidates + self.candidates)[start : start + self.args.chunk]
        _, seconds = timed(lambda: self.scorers[place].score(chosen), self.device)
        return len(chosen) * len(self.parts[place]), seconds, executed(self.scorers[place], chosen).flops

    def measure(self, matmul: Any) -> list[dict[str, float]]:
        """Chunks until `seconds` are measured; each scorer's first call (check, compilation) is not among them."""
        for scorer in self.scorers:
            scorer.score(self.candidates[:2])
        self.scorers[0].score(self.candidates[: self.args.chunk])
        chunks: list[dict[str, float]] = []
        spent = 0.0
        while spent < self.args.seconds or len(chunks) < self.args.least_chunks:
            work, seconds, flops = self.chunk(len(chunks))
            product, product_seconds = timed(lambda: matmul(0), self.device)
            spent += seconds
            chunks.append({"work": work, "seconds": seconds, "rate": work / seconds,
                           "mfu": flops / seconds / (product / product_seconds), "tflop": flops / 1e12})  # fmt: skip
            progress(f"chunk {len(chunks)}: {work} candidate·prompts in {seconds:.2f} s, {spent:.0f} s so far")
        return chunks


def extrapolate(chunks: list[dict[str, float]], work: int) -> dict[str, float]:
    """Minutes for `work` candidates·prompts, with the 95 % interval of the chunks' mean time a unit."""
    costs = [chunk["seconds"] / chunk["work"] for chunk in chunks]
    total = sum(chunk["seconds"] for chunk in chunks) / sum(chunk["work"] for chunk in chunks)
    half = 0.0
    if len(costs) > 1:
        half = float(stats.t.ppf(0.975, len(costs) - 1)) * statistics.stdev(costs) / len(costs) ** 0.5
    return {"minutes": work * total / 60, "low": work * (total - half) / 60, "high": work * (total + half) / 60}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="7b")
    parser.add_argument("--tokens", type=int, default=1600, help="of a prompt")
    parser.add_argument("--records", type=int, default=PROMPTS // 5, help="each at every position")
    parser.add_argument("--positions", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=8, help="candidates scored at once")
    parser.add_argument("--chunk-records", type=int, default=10, help="records of a chunk")
    parser.add_argument("--seconds", type=float, default=60, help="to measure at least")
    parser.add_argument("--least-chunks", type=int, default=6)
    parser.add_argument("--tokens-per-batch", type=int, help="without it the engine chooses")
    parser.add_argument("--low", type=float, default=1.0, help="smallest factor drawn (the paper: 1)")
    parser.add_argument("--high", type=float, default=2.5, help="largest factor drawn")
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON report here")
    args = parser.parse_args()
    device = device_of(args.device)
    ceiling = matmul_ceiling(device)
    bench = Bench(device, args)
    chunks = bench.measure(matmul_arm(device, ceiling, seconds=0.3))
    rates, mfu = spread([chunk["rate"] for chunk in chunks]), spread([chunk["mfu"] for chunk in chunks])
    whole = extrapolate(chunks, CANDIDATES * PROMPTS)
    plan = executed(bench.scorers[0], bench.candidates[: args.chunk])
    measured = sum(chunk["seconds"] for chunk in chunks)
    table(f"{args.shape}, {CANDIDATES} candidates x {PROMPTS} prompts of {len(bench.parts[0][0].ids)} tokens", [
        {"what": "measured", "value": f"{measured:.0f} s in {len(chunks)} chunks of {args.chunk} candidates"},
        {"what": "candidates·prompts a second", "value": rates},
        {"what": "MFU", "value": mfu},
        {"what": "prompt tokens computed", "value": plan.token_share},
        {"what": "layers computed", "value": plan.layer_share},
        {"what": "whole search, minutes", "value": "{minutes:.1f} ({low:.1f} to {high:.1f})".format(**whole)},
        {"what": "the paper, minutes on four A100s", "value": "240 to 480"},
    ])  # fmt: skip
    reason = next((scorer.reason for scorer in bench.scorers if scorer.reason), None)
    warn_of_fallback("the search", reason)
    content = {
        "shape": args.shape, "tokens": args.tokens, "prompts": PROMPTS, "candidates": CANDIDATES,
        "chunk_candidates": args.chunk, "chunk_prompts": len(bench.parts[0]), "factors": [args.low, args.high],
        "ceiling": ceiling.to_json(), "reason": reason, "plan": asdict(plan), "chunks": chunks,
        "measured_seconds": measured, "candidate_prompts_per_second": rates, "mfu": mfu, "whole_search": whole,
        "paper": {"hours": PAPER_HOURS, "gpus": PAPER_GPUS, "gpu": "A100"},
    }  # fmt: skip
    report("paper-search", args.seed, device, content, args.out)


if __name__ == "__main__":
    main()
