"""Our engine beside Hugging Face's ways on the same kv prompts, timed in turns, verdicts compared."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from baselines import Baselines, Outcome
from measure import (
    Arm,
    Ceiling,
    Timings,
    best_batch,
    interleave,
    matmul_arm,
    ratio,
    share_of_ceiling,
    spread,
    top_kernels,
)
from ours import Scorer, executed
from reporting import table, warn_of_fallback
from ropewalk.factors import ScalingFactors
from ropewalk.patch import patched
from ropewalk.prompts import RenderedPrompt
from workload import Mode, kv_prompts

ONE = "ours, 1 candidate"
SINGLE = "generate, one prompt a call"
BATCHED = "generate, batched"
FULL_RIGHT = "forward, full logits, right padding"
FULL_LEFT = "forward, full logits, left padding"
ANSWERS = "forward, answers' logits, right padding"
MATMUL = "matmul"
LISTED = 40  # disagreements that the report lists


@dataclass(frozen=True)
class Plan:
    """Sizes of a comparison. The baselines run a part of the prompts in each repeat, another one each time.

    keys, positions, records, seed: the prompts. many: candidates at once; many_records: records scored with them.
    single, batched: prompts a repeat of generation one by one and of the batched baselines. sizes: batch sizes tried.
    """

    keys: int
    positions: int
    records: int
    seed: int
    many: int
    many_records: int
    single: int
    batched: int
    sizes: tuple[int, ...]
    repeats: int

    @classmethod
    def of(cls, args: argparse.Namespace) -> Plan:
        """From the options that `add_options` adds."""
        return cls(
            args.keys, args.positions, args.records, args.seed, args.candidates, args.many_records,
            args.single, args.batched, tuple(args.sizes), args.repeats,
        )  # fmt: skip


@dataclass
class Comparison:
    """One data mode: arms over the same prompts. outcomes: by arm, then by number of the prompt."""

    model: Any
    tokenizer: Any
    plan: Plan
    mode: Mode
    chosen: Sequence[ScalingFactors]
    batch_sizes: dict[str, int]
    outcomes: dict[str, dict[int, Outcome]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.plan
        self.prompts = kv_prompts(
            self.tokenizer, self.mode, keys=plan.keys, positions=plan.positions, records=plan.records, seed=plan.seed
        )
        self.device = self.model.get_input_embeddings().weight.device
        self.baselines = Baselines(self.model, self.tokenizer)
        # As in a search, which scores so many candidates that compiling pays; the first call is outside the timings.
        compiled = self.device.type == "cuda"
        self.scorer = Scorer(self.model, self.tokenizer, self.prompts, compiled=compiled)
        self.few = self.prompts[: plan.many_records * plan.positions]
        self.many_scorer = Scorer(self.model, self.tokenizer, self.few, compiled=compiled)

    @property
    def many(self) -> str:
        return f"ours, {self.plan.many} candidates"

    def runs(self) -> dict[str, Callable[[Sequence[RenderedPrompt]], list[Outcome]]]:
        """The baselines as functions of the prompts of one call."""
        return {
            SINGLE: self.baselines.generate,
            BATCHED: self.baselines.generate,
            FULL_RIGHT: lambda prompts: self.baselines.forward(prompts, "right"),
            FULL_LEFT: lambda prompts: self.baselines.forward(prompts, "left"),
            ANSWERS: lambda prompts: self.baselines.forward(prompts, "right", full_logits=False),
        }

    def find_batch_sizes(self) -> dict[str, dict[int, float]]:
        """Try batch sizes for each batched baseline; keeps the best in `batch_sizes`, returns what was found."""
        found = {}
        sizes = [size for size in self.plan.sizes if size <= len(self.prompts)]
        for name, run in self.runs().items():
            if name == SINGLE:
                continue
            with patched(self.model, self.chosen[0]):
                trial = lambda size, run=run: run(self.prompts[:size])  # noqa: E731
                self.batch_sizes[name], found[name] = best_batch(trial, sizes, self.device, name)
        return found

    def arms(self) -> dict[str, Arm]:
        arms: dict[str, Arm] = {ONE: self._ours, self.many: self._ours_many}
        for name, run in self.runs().items():
            size = self.batch_sizes.get(name, 1)
            count = self.plan.single if name == SINGLE else -(-self.plan.batched // size) * size
            arms[name] = self._baseline(name, run, size, min(count, len(self.prompts)))
        return arms

    def _ours(self, _repeat: int) -> float:
        (scores,) = self.scorer.score([self.chosen[0]])
        self.outcomes[ONE] = {i: Outcome(score.verdict, score.margin) for i, score in enumerate(scores)}
        return len(self.prompts)

    def _ours_many(self, _repeat: int) -> float:
        scores = self.many_scorer.score(list(self.chosen))[0]
        self.outcomes[self.many] = {i: Outcome(score.verdict, score.margin) for i, score in enumerate(scores)}
        return len(self.few) * len(self.chosen)

    def _baseline(self, name: str, run: Callable[..., list[Outcome]], size: int, count: int) -> Arm:
        def arm(repeat: int) -> float:
            numbers = [(repeat * count + index) % len(self.prompts) for index in range(count)]
            with patched(self.model, self.chosen[0]):
                for begin in range(0, count, size):
                    part = numbers[begin : begin + size]
                    outcomes = run([self.prompts[number] for number in part])
                    self.outcomes.setdefault(name, {}).update(zip(part, outcomes, strict=True))
            return float(count)

        return arm

    def agreement(self, name: str) -> dict[str, Any]:
        """Verdicts of an arm against those of ours with one candidate, disagreements with both margins."""
        ours, theirs = self.outcomes[ONE], self.outcomes[name]
        different = [number for number in theirs if theirs[number].verdict != ours[number].verdict]
        return {
            "compared": len(theirs),
            "equal": len(theirs) - len(different),
            "right": sum(outcome.verdict for outcome in theirs.values()),
            "disagreements": [
                {"example": self.prompts[n].example.id, "ours": ours[n].verdict, "margin": ours[n].margin,
                 "theirs": theirs[n].verdict, "their_margin": theirs[n].margin}
                for n in sorted(different)[:LISTED]
            ],
        }  # fmt: skip

    def summary(self, timings: dict[str, Timings], matmul: Timings) -> dict[str, Any]:
        """Print the table of this mode and return it for the report. matmul: timed in turns with the arms."""
        tokens = statistics.mean(len(prompt.ids) for prompt in self.prompts)
        rows, arms = [], {}
        for name, timing in timings.items():
            agreement, rates = self.agreement(name), spread(timing.rates)
            arms[name] = {
                "prompts_per_second": rates,
                "rates": timing.rates,
                "tokens_per_second": rates["median"] * tokens,
                "warm_up_seconds": timing.first,
                "prompts_per_repeat": timing.work[0],
                "batch_size": self.batch_sizes.get(name),
                "ours_1_over_this": ratio(timings[ONE], timing),
                "ours_many_over_this": ratio(timings[self.many], timing),
                "verdicts": agreement,
            }
            rows.append({
                f"{self.mode}: arm": f"{name} ({size})" if (size := self.batch_sizes.get(name)) else name,
                "prompts/s": rates, "tokens/s": arms[name]["tokens_per_second"],
                "ours (1) over it": arms[name]["ours_1_over_this"],
                f"ours ({self.plan.many}) over it": arms[name]["ours_many_over_this"],
                "verdicts equal": f"{agreement['equal']}/{agreement['compared']}",
            })  # fmt: skip
        table(f"{len(self.prompts)} prompts of {tokens:.0f} tokens ({self.mode}); batch sizes in brackets", rows)
        shares = []
        for name, chosen, scorer in (
            (ONE, self.chosen[:1], self.scorer),
            (self.many, self.chosen, self.many_scorer),
        ):
            work = executed(scorer, chosen)
            share = share_of_ceiling(work.flops, timings[name], matmul)
            arms[name] |= {"share_of_ceiling": share, "executed": asdict(work)}
            shares.append({"arm": name, "share of ceiling": share, "tokens computed": work.token_share,
                           "layers computed": work.layer_share})  # fmt: skip
        warn_of_fallback(f"ours ({self.mode})", self.scorer.reason or self.many_scorer.reason)
        table("executed FLOPs a second over those of a large matrix product in the same repeat", shares)
        right = sum(outcome.verdict for outcome in self.outcomes[ONE].values())
        return {
            "prompts": len(self.prompts),
            "tokens_mean": tokens,
            "right": right,
            "reason": self.scorer.reason,
            "arms": arms,
        }


def compare(
    model: Any,
    tokenizer: Any,
    plan: Plan,
    chosen: Sequence[ScalingFactors],
    ceiling: Ceiling,
    modes: Sequence[Mode],
    *,
    profile: bool = False,
) -> dict[str, Any]:
    """Both data modes one after the other, and what the shared prefixes of generated records bring."""
    found: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    ours: dict[str, Timings] = {}
    for mode in modes:
        comparison = Comparison(model, tokenizer, plan, mode, chosen, sizes)
        if not sizes:
            found["batch_size_search"] = comparison.find_batch_sizes()
        arms = {MATMUL: matmul_arm(comparison.device, ceiling), **comparison.arms()}
        timings = interleave(arms, plan.repeats, comparison.device)
        ours[mode], matmul = timings[ONE], timings.pop(MATMUL)
        found[mode] = {"matmul_tflops": spread([rate / 1e12 for rate in matmul.rates])}
        found[mode] |= comparison.summary(timings, matmul)
        if profile:
            kernels = top_kernels(lambda done=comparison: done.scorer.score(done.chosen[:1]), comparison.device)
            found[mode]["profile"] = kernels
            table(f"{ONE} ({mode}): what takes the time", kernels)
        if comparison.device.type == "cuda":
            torch.cuda.empty_cache()
    if len(ours) == 2:
        moved, generated = ours["gold moved"], ours["generated"]
        found["shared_prefix_gain"] = ratio(generated, moved)
        table(
            "what shared prefixes bring", [{"": "generated over gold moved", "prompts/s": found["shared_prefix_gain"]}]
        )
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that both evaluator benchmarks have; each sets its own defaults of those that have none here."""
    parser.add_argument("--model", type=Path, help="model folder; without it the default model is used")
    parser.add_argument("--positions", type=int, default=5, help="gold positions of each record")
    parser.add_argument("--candidates", type=int, default=8, help="candidates that ours scores at once")
    parser.add_argument("--mode", choices=["both", "gold moved", "generated"], default="both")
    parser.add_argument("--profile", action="store_true", help="print the kernels of ours that take the most time")
    parser.add_argument("--keys", type=int)
    parser.add_argument("--records", type=int, help="each at every position")
    parser.add_argument("--many-records", type=int, help="records that several candidates are scored on")
    parser.add_argument("--single", type=int, help="prompts a repeat of generation one by one")
    parser.add_argument("--batched", type=int, help="prompts a repeat of the batched baselines")
    parser.add_argument("--sizes", type=int, nargs="+", help="batch sizes to try")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON report here")
