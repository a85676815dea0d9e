"""Does a likelihood stand in for generated accuracy in mdqa? Rank correlation over candidates, for several likelihoods.

    python benchmarks/likelihood_signal.py --model DIR --data mdqa.jsonl.gz --out likelihood_signal.json

Every candidate (the model as it is, uniform factors, random curves in narrow, wide and very wide bounds) is scored on
the same records of the search split twice: by really generated answers with the official metric, and by teacher
forcing. Two correlations: over all candidates, whose accuracy spreads from the best to that of a broken model, and over
those near 1 alone, all factors within `NEAR`, which is where a search goes on. The likelihoods compared: of the
first alias or of the likeliest one, as a mean over its tokens or as a sum, with the answer standing alone or behind the
words that the model itself begins its answer with. These words, the carrier, come from one generation without factors
on the gold document alone (the task's short form); where that answer names no alias, the alias stands alone. The
interval of a correlation is a bootstrap over the records.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from measure import device_of
from reporting import progress, report, table
from ropewalk.checkpoint import load_pretrained
from ropewalk.engine.generation import Request, end_ids
from ropewalk.engine.scorer import Scorer
from ropewalk.factors import ScalingFactors
from ropewalk.prompts import PromptRenderer
from ropewalk.tasks import make_task
from ropewalk.tasks.base import Example, TaskOptions
from workload import candidates

RESAMPLES = 2000
UNIFORM = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.35, 1.5, 2.0)
NEAR = (0.85, 1.2)
BOUNDS = (NEAR, (0.7, 1.5), (0.5, 2.0))  # of the random curves
SAVED = 6  # candidates from one writing of the report to the next


def with_carriers(examples: Sequence[Example], answers: dict[str, str]) -> list[Example]:
    """The examples with the alias that the record's answer names, as it is written there, behind its carrier."""
    return [_with_carrier(example, answers[example.record]) for example in examples]


def _with_carrier(example: Example, answer: str) -> Example:
    found = [(answer.lower().find(alias.lower()), alias) for alias in example.answers]
    named = [(place, alias) for place, alias in found if place >= 0]
    if not named:
        return example
    place, alias = max(named, key=lambda pair: len(pair[1]))
    return dataclasses.replace(example, answers=(answer[place : place + len(alias)],), opening=answer[:place])


class Signal:
    """Teacher-forced scores of all aliases of some examples, reduced in several ways to one number an example."""

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        renderer: PromptRenderer,
        examples: Sequence[Example],
        tokens: int | None,
    ) -> None:
        self.name = name
        self.prompts = [renderer.render_all(example) for example in examples]
        flat = [prompt for aliases in self.prompts for prompt in aliases]
        self.scorer = Scorer(model, tokenizer, flat, tokens, compiled=model.device.type == "cuda")

    def score(self, factors: ScalingFactors | None) -> dict[str, np.ndarray]:
        scores = iter(self.scorer.score([factors])[0])
        rows: dict[str, list[float]] = {}
        for aliases in self.prompts:
            own = [next(scores) for _ in aliases]
            means = np.array([score.log_likelihood for score in own])
            sums = means * [score.tokens for score in own]
            for name, value in (
                ("first alias, mean", means[0]),
                ("likeliest alias by mean, mean", means.max()),
                ("likeliest alias by sum, mean", means[sums.argmax()]),
                ("likeliest alias, sum", sums.max()),
                ("any alias, sum", np.logaddexp.reduce(sums)),
            ):
                rows.setdefault(f"{self.name}: {name}", []).append(float(value))
        return {name: np.array(values) for name, values in rows.items()}


def correlation(signal: np.ndarray, accuracy: np.ndarray, seed: int) -> dict[str, float] | None:
    """Spearman's, over candidates, with a bootstrap over records. Both arrays: [candidates, records, positions].

    None where there is none: all candidates are alike, or a likelihood is not a number.
    """
    if not np.isfinite(signal).all() or any(np.ptp(values.mean(axis=(1, 2))) == 0 for values in (signal, accuracy)):
        return None
    records = signal.shape[1]
    drawn = np.random.default_rng(seed).multinomial(records, np.full(records, 1 / records), RESAMPLES)
    weights = np.concatenate([np.ones((1, records)), drawn]) / records
    ranks = [stats.rankdata(np.round(values.mean(axis=2) @ weights.T, 12), axis=0) for values in (signal, accuracy)]
    one, other = (rank - rank.mean(axis=0) for rank in ranks)
    with np.errstate(invalid="ignore"):  # where all candidates of a draw are alike
        found = (one * other).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
    low, high = np.nanquantile(found[1:], [0.025, 0.975])
    return {"median": float(found[0]), "low": float(low), "high": float(high)}


def chosen_candidates(layers: int, each: int, seed: int) -> list[ScalingFactors | None]:
    """The model as it is, uniform factors, and `each` random curves in each of the bounds."""
    curves = [one for low, high in BOUNDS for one in candidates(layers, each, seed, low=low, high=high)]
    return [None, *(ScalingFactors.uniform(value, layers) for value in UNIFORM), *curves]


def is_near(factors: ScalingFactors | None) -> bool:
    return factors is None or all(value is None or NEAR[0] <= value <= NEAR[1] for value in factors.values)


class Bench:
    """The records, their generated answers and their likelihoods, candidate by candidate."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        model, tokenizer = load_pretrained(args.model, dtype="bfloat16", device=device_of(args.device))
        self.positions = tuple(int(place) for place in args.positions.split(","))
        self.task = make_task("mdqa", TaskOptions(positions=self.positions, data=args.data, limit=args.records))
        self.examples, short = self.task.examples("search"), self.task.short().examples("search")
        renderer, tokens = PromptRenderer(tokenizer), args.tokens_per_batch
        self.request = Request(self.task.metric.max_new_tokens, self.task.metric.stop, end_ids(model, tokenizer))
        plain = Signal("alone", model, tokenizer, renderer, self.examples, tokens)
        asked = [renderer.render(example) for example in [*self.examples, *short]]
        starts = [prompt.ids[: prompt.first] for prompt in asked]
        answers = plain.scorer.generate(starts[len(self.examples) :], self.request)
        carried = with_carriers(self.examples, {one.record: text for one, text in zip(short, answers, strict=True)})
        pairs = zip(carried, self.examples, strict=True)
        self.named = sum(example.opening != "" or example.answers != old.answers for example, old in pairs)
        progress(f"{self.named} of {len(self.examples)} examples have an alias in the model's own words")
        self.starts = starts[: len(self.examples)]
        self.signals = [plain, Signal("carried", model, tokenizer, renderer, carried, tokens)]
        self.candidates = chosen_candidates(model.config.num_hidden_layers, args.candidates, args.seed)
        self.accuracy: list[list[float]] = []
        self.likelihoods: dict[str, list[np.ndarray]] = {}

    def score(self, factors: ScalingFactors | None) -> None:
        texts = self.signals[0].scorer.generate(self.starts, self.request, factors)
        pairs = zip(texts, self.examples, strict=True)
        self.accuracy.append([self.task.metric.score(text, example.answers) for text, example in pairs])
        for signal in self.signals:
            for name, values in signal.score(factors).items():
                self.likelihoods.setdefault(name, []).append(values)

    def found(self) -> dict[str, Any]:
        """All that was measured so far."""
        shape = (len(self.accuracy), -1, len(self.positions))
        accuracy = np.array(self.accuracy).reshape(shape)
        return {
            "model": self.args.model.name, "task": self.task.settings(), "candidates": len(accuracy),
            "records": accuracy.shape[1], "reason": self.signals[0].scorer.reason, "named": self.named,
            "examples": len(self.examples), "near": [is_near(factors) for factors in self.candidates[: len(accuracy)]],
            "factors": [None if one is None else one.values for one in self.candidates[: len(accuracy)]],
            "accuracy": accuracy.mean(axis=1).tolist(),
            "likelihood": {
                name: [
                    [float(value) if np.isfinite(value) else None for value in row]
                    for row in np.array(values).reshape(shape).mean(axis=1)
                ]
                for name, values in self.likelihoods.items()
            },
        }  # fmt: skip

    def correlations(self, members: Sequence[int]) -> dict[str, dict[str, float] | None]:
        """Over these candidates, by likelihood."""
        shape = (len(members), -1, len(self.positions))
        accuracy = np.array([self.accuracy[member] for member in members]).reshape(shape)
        return {
            name: correlation(np.array([values[member] for member in members]).reshape(shape), accuracy, self.args.seed)
            for name, values in self.likelihoods.items()
        }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    bench, began = Bench(args), time.perf_counter()
    for number, factors in enumerate(bench.candidates, 1):
        bench.score(factors)
        each = (time.perf_counter() - began) / number
        left = each * (len(bench.candidates) - number)
        progress(f"{number}/{len(bench.candidates)}: accuracy {np.mean(bench.accuracy[-1]):.3f}, {left:.0f} s left")
        if number % SAVED == 0:
            report("likelihood-signal", args.seed, device_of(args.device), bench.found(), args.out)
    near = [number for number, factors in enumerate(bench.candidates) if is_near(factors)]
    found = bench.found() | {
        "correlation": bench.correlations(range(len(bench.candidates))),
        "correlation_near": bench.correlations(near),
    }
    columns = {f"all {len(bench.candidates)}": found["correlation"], f"near 1, {len(near)}": found["correlation_near"]}
    table("Spearman's correlation with generated accuracy, 95 % interval over records",
          [{"likelihood": name, **{column: rows[name] for column, rows in columns.items()}}
           for name in bench.likelihoods])  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True, help="a file that `ropewalk data mdqa` built")
    parser.add_argument("--records", type=int, default=80)
    parser.add_argument("--positions", default="0,4,9")
    parser.add_argument("--candidates", type=int, default=8, help="random curves in each of the three bounds")
    parser.add_argument("--tokens-per-batch", type=int, help="without it the engine chooses")
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report("likelihood-signal", args.seed, device_of(args.device), measure(args), args.out)


if __name__ == "__main__":
    main()
