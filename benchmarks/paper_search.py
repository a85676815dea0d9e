"""How long the paper's whole search takes: 418 candidates on 200 prompts of about 1,600 tokens, a 7B model.

    python benchmarks/paper_search.py --out paper_search.json
    python benchmarks/paper_search.py --racing racing.json --out paper_search_racing.json
    python benchmarks/paper_search.py --shape tiny --tokens 200 --records 4 --seconds 5 --device cpu

Llama-7B's shape with random weights, prompts of random ids laid out as MDQA's (workload.py), candidates drawn as the
paper's are: the first two layers keep factor 1, the others follow a random Bézier curve. A chunk of the search
(`--chunk` candidates on `--chunk-records` records at every position) is scored again and again with new candidates and
the next records until `--seconds` have been measured; the whole is extrapolated from the candidates·prompts a second.
The interval is that of the time a candidate·prompt takes (t over chunks, 95 %). No candidate is stopped early.
The paper reports 4 to 8 hours on four A100s.

With `--racing` the chunks are calls that the raced searches of a report by racing.py made, drawn at random from all of
them: as many candidates as were still in the race, on the records of that stage. The whole is then what such a search
scored on average. How many candidates survive is that model's; how long that takes, this shape's.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from measure import device_of, matmul_arm, matmul_ceiling, spread, timed
from ours import Scorer, executed
from reporting import progress, report, table, warn_of_fallback
from ropewalk import files
from workload import SHAPES, candidates, mdqa_like_prompts, random_model

CANDIDATES = 418
PROMPTS = 200
PAPER_HOURS = (4.0, 8.0)  # on four A100s (arXiv 2503.04355)
PAPER_GPUS = 4

Call = tuple[int, int, int]  # candidates, first record, the one behind the last


class Bench:
    """The model, the records' scorers, the candidates of the paper's search, and its calls.

    A call is so many candidates, scored together on the records from one number to another.
    """

    def __init__(self, device: torch.device, args: argparse.Namespace) -> None:
        self.device, self.args = device, args
        self.model, self.tokenizer = random_model(args.shape, device, torch.bfloat16, args.seed)
        layers, vocabulary = self.model.config.num_hidden_layers, self.model.config.vocab_size
        self.prompts = mdqa_like_prompts(args.records, args.tokens, vocabulary, args.seed, positions=args.positions)
        self.scorers: dict[tuple[int, int], Scorer] = {}
        drawn = candidates(layers, CANDIDATES, args.seed, low=args.low, high=args.high, skip_first=2)
        self.random = np.random.default_rng(args.seed)
        self.candidates = [drawn[index] for index in self.random.permutation(CANDIDATES)]
        self.raced = None if args.racing is None else raced_calls(args.racing, args.records)
        starts = range(0, args.records, args.chunk_records)
        self.calls: list[Call] = [
            (args.chunk, start, min(start + args.chunk_records, args.records)) for start in starts
        ]
        if self.raced is not None:
            self.calls = [self.raced.calls[place] for place in self.random.permutation(len(self.raced.calls))]

    @property
    def work(self) -> float:
        """Candidates·prompts of the whole search."""
        return CANDIDATES * PROMPTS if self.raced is None else self.raced.records * self.args.positions

    def scorer(self, start: int, stop: int) -> Scorer:
        """Of these records' prompts; all compile once."""
        if (start, stop) not in self.scorers:
            part = self.prompts[start * self.args.positions : stop * self.args.positions]
            known = next(iter(self.scorers.values()), None)
            compiled = self.device.type == "cuda"
            self.scorers[start, stop] = (
                Scorer(self.model, self.tokenizer, part, self.args.tokens_per_batch, compiled=compiled)
                if known is None
                else known.of(part)
            )
        return self.scorers[start, stop]

    def chunk(self, number: int) -> tuple[int, float, int]:
        """Score one call with candidates that are its own: (candidates·prompts, seconds, executed FLOPs)."""
        alive, start, stop = self.calls[number % len(self.calls)]
        first = number * self.args.chunk % CANDIDATES
        chosen = (self.candidates + self.candidates)[first : first + alive]
        scorer = self.scorer(start, stop)
        _, seconds = timed(lambda: scorer.score(chosen), self.device)
        return len(chosen) * len(scorer.prompts), seconds, executed(scorer, chosen).flops

    def measure(self, matmul: Any) -> list[dict[str, float]]:
        """Chunks until `seconds` are measured; the first calls (check, compilation) are not among them."""
        scorer = self.scorer(*self.calls[0][1:])
        for count in (1, 4):  # four fill a batch
            scorer.score(self.candidates[:count])
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


@dataclass(frozen=True)
class Raced:
    """Calls of raced searches. searches: how many; records: candidates·records that one of them scored, on average."""

    calls: list[Call]
    searches: int
    records: float


def raced_calls(path: Path, available: int) -> Raced:
    """From a report by racing.py, of its searches in the paper's setting, which raced on `available` records."""
    arms = [pair["raced"] for pair in files.read_json(path)["pairs"] if pair["kind"] == "paper"]
    calls: list[Call] = [tuple(call) for arm in arms for call in arm["calls"]]
    last = max((stop for _, _, stop in calls), default=0)
    if last != available:
        raise SystemExit(f"{path}: its searches raced on {last} records, expected {available} (--records)")
    return Raced(calls, len(arms), sum(alive * (stop - start) for alive, start, stop in calls) / len(arms))


def extrapolate(chunks: list[dict[str, float]], work: float) -> dict[str, float]:
    """Minutes for `work` candidates·prompts: a ratio of sums, with the 95 % interval of a ratio over the chunks."""
    done = sum(chunk["work"] for chunk in chunks)
    total = sum(chunk["seconds"] for chunk in chunks) / done
    half = 0.0
    if len(chunks) > 1:
        off = [chunk["seconds"] - total * chunk["work"] for chunk in chunks]
        error = statistics.stdev(off) * len(chunks) ** 0.5 / done
        half = float(stats.t.ppf(0.975, len(chunks) - 1)) * error
    return {"minutes": work * total / 60, "low": work * (total - half) / 60, "high": work * (total + half) / 60}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="7b")
    parser.add_argument("--tokens", type=int, default=1600, help="of a prompt")
    parser.add_argument("--records", type=int, default=PROMPTS // 5, help="each at every position")
    parser.add_argument("--positions", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=8, help="candidates scored at once")
    parser.add_argument("--chunk-records", type=int, default=10, help="records of a chunk")
    parser.add_argument("--racing", type=Path, help="report of racing.py: time the calls of its raced searches")
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
    whole = extrapolate(chunks, bench.work)
    alive, *records = bench.calls[0]
    plan = executed(bench.scorer(*records), bench.candidates[:alive])
    saved = {} if bench.raced is None else {
        "searches": bench.raced.searches, "evaluations": bench.work, "calls": len(bench.raced.calls),
        "evaluations_left": bench.work / (CANDIDATES * PROMPTS),
    }  # fmt: skip
    measured = sum(chunk["seconds"] for chunk in chunks)
    table(f"{args.shape}, {CANDIDATES} candidates x {PROMPTS} prompts of {len(bench.prompts[0].ids)} tokens", [
        {"what": "measured", "value": f"{measured:.0f} s in {len(chunks)} chunks"},
        {"what": "evaluations left by racing", "value": saved.get("evaluations_left", 1.0)},
        {"what": "candidates·prompts a second", "value": rates},
        {"what": "MFU", "value": mfu},
        {"what": "prompt tokens computed", "value": plan.token_share},
        {"what": "layers computed", "value": plan.layer_share},
        {"what": "whole search, minutes", "value": "{minutes:.1f} ({low:.1f} to {high:.1f})".format(**whole)},
        {"what": "the paper, minutes on four A100s", "value": "240 to 480"},
    ])  # fmt: skip
    reason = next((scorer.reason for scorer in bench.scorers.values() if scorer.reason), None)
    warn_of_fallback("the search", reason)
    content = {
        "shape": args.shape, "tokens": args.tokens, "prompts": PROMPTS, "candidates": CANDIDATES,
        "chunk_candidates": args.chunk, "chunk_prompts": args.chunk_records * args.positions, "racing": saved or None,
        "calls": bench.calls[: len(chunks)], "factors": [args.low, args.high],
        "ceiling": ceiling.to_json(), "reason": reason, "plan": asdict(plan), "chunks": chunks,
        "measured_seconds": measured, "candidate_prompts_per_second": rates, "mfu": mfu, "whole_search": whole,
        "paper": {"hours": PAPER_HOURS, "gpus": PAPER_GPUS, "gpu": "A100"},
    }  # fmt: skip
    report("paper-search", args.seed, device, content, args.out)


if __name__ == "__main__":
    main()
