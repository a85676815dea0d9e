"""Does a likelihood stand in for generated accuracy in mdqa? Rank correlation over candidates, for several likelihoods.

    python benchmarks/likelihood_signal.py --model DIR --data mdqa.jsonl.gz --out likelihood_signal.json

Every candidate (random curves, uniform factors, the model as it is) is scored on the same records of the search split
twice: by really generated answers with the official metric, and by teacher forcing. The likelihoods compared: of the
first alias or of the likeliest one, as a mean over its tokens or as a sum, with the answer standing alone or behind the
words that the model itself begins its answer with. These words, the carrier, come from one generation without factors
on the gold document alone (the task's short form); where that answer names no alias, the alias stands alone. The
interval of a correlation is a bootstrap over the records.
"""

from __future__ import annotations

import argparse
import dataclasses
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

    def __init__(self, name: str, model: Any, tokenizer: Any, renderer: PromptRenderer, examples: Sequence[Example]):
        self.name = name
        self.prompts = [renderer.render_all(example) for example in examples]
        flat = [prompt for aliases in self.prompts for prompt in aliases]
        self.scorer = Scorer(model, tokenizer, flat, compiled=model.device.type == "cuda")

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


def correlation(signal: np.ndarray, accuracy: np.ndarray, seed: int) -> dict[str, float]:
    """Spearman's, over candidates, with a bootstrap over records. Both arrays: [candidates, records, positions]."""
    generator = np.random.default_rng(seed)

    def of(rows: np.ndarray) -> float:
        means = [values[:, rows].mean(axis=(1, 2)) for values in (signal, accuracy)]
        return float(stats.spearmanr(*means).statistic)

    records = signal.shape[1]
    drawn = [of(generator.integers(0, records, records)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"median": of(np.arange(records)), "low": float(low), "high": float(high)}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    model, tokenizer = load_pretrained(args.model, dtype="bfloat16", device=device_of(args.device))
    positions = tuple(int(place) for place in args.positions.split(","))
    task = make_task("mdqa", TaskOptions(positions=positions, data=args.data, limit=args.records))
    examples, short = task.examples("search"), task.short().examples("search")
    renderer = PromptRenderer(tokenizer)
    request = Request(task.metric.max_new_tokens, task.metric.stop, end_ids(model, tokenizer))
    plain = Signal("alone", model, tokenizer, renderer, examples)
    asked = [renderer.render(example) for example in [*examples, *short]]
    starts = [prompt.ids[: prompt.first] for prompt in asked]
    answers = plain.scorer.generate(starts[len(examples) :], request)
    carried = with_carriers(examples, {one.record: text for one, text in zip(short, answers, strict=True)})
    named = sum(
        example.opening != "" or example.answers != old.answers for example, old in zip(carried, examples, strict=True)
    )
    progress(f"{named} of {len(examples)} examples have an alias in the model's own words")
    signals = [plain, Signal("carried", model, tokenizer, renderer, carried)]

    layers = model.config.num_hidden_layers
    uniform = [ScalingFactors.uniform(value, layers) for value in (0.9, 0.95, 1.05, 1.1, 1.2)]
    arms = [None, *uniform, *candidates(layers, args.candidates, args.seed, low=args.low, high=args.high)]
    shape = (len(arms), args.records, len(positions))
    accuracy, likelihoods = [], {}
    for number, factors in enumerate(arms):
        texts = plain.scorer.generate(starts[: len(examples)], request, factors)
        accuracy.append([task.metric.score(text, one.answers) for text, one in zip(texts, examples, strict=True)])
        for signal in signals:
            for name, values in signal.score(factors).items():
                likelihoods.setdefault(name, []).append(values)
        progress(f"{number + 1}/{len(arms)}: accuracy {np.mean(accuracy[-1]):.3f}")
    scores = np.array(accuracy).reshape(shape)
    found = {name: correlation(np.array(v).reshape(shape), scores, args.seed) for name, v in likelihoods.items()}
    table("Spearman's correlation with generated accuracy, 95 % interval over records",
          [{"likelihood": name, "correlation": row} for name, row in found.items()])  # fmt: skip
    return {
        "model": args.model.name, "task": task.settings(), "candidates": len(arms), "records": args.records,
        "reason": plain.scorer.reason, "named": named, "examples": len(examples),
        "factors": [None if factors is None else factors.values for factors in arms],
        "accuracy": scores.mean(axis=1).tolist(), "correlation": found,
        "likelihood": {name: np.array(v).reshape(shape).mean(axis=1).tolist() for name, v in likelihoods.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True, help="a file that `ropewalk data mdqa` built")
    parser.add_argument("--records", type=int, default=80)
    parser.add_argument("--positions", default="0,4,9")
    parser.add_argument("--candidates", type=int, default=30, help="random curves, beside 5 uniform ones and none")
    parser.add_argument("--low", type=float, default=0.8)
    parser.add_argument("--high", type=float, default=1.25)
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report("likelihood-signal", args.seed, device_of(args.device), measure(args), args.out)


if __name__ == "__main__":
    main()
