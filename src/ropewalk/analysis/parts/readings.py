"""What the layers of a model attend to on all prompts of a task, with factors and without; kept prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.analysis.base import Json, Subject
from ropewalk.errors import DataError
from ropewalk.events import Scored, Stage
from ropewalk.factors import ScalingFactors

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Readings:
    """One arm's attention in the L rotary layers, by record; all arrays float64, means over a record's prompts.

    entropy: [records, L], nats, of the queries that predict the answer. thirds: [records, L, 3], their weight on the
    first, middle and last third of the tokens up to them. first: [records, L], on the very first token alone.
    prompt_entropy, prompt_thirds: the same of all queries before the answer's. scores: [records, L, distances], mean
    scaled q·k of all queries in each class of distance, NaN where there is no pair; the first class is distance 0.
    bound: [L, distances], RoFormer's bound of the rotation alone, as a share of that at distance 0.
    """

    entropy: Array
    thirds: Array
    first: Array
    prompt_entropy: Array
    prompt_thirds: Array
    scores: Array
    bound: Array


def read_arms(subject: Subject, arms: Mapping[str, ScalingFactors | None]) -> tuple[list[int], dict[str, Readings]]:
    """Where the classes of distance begin, and the readings of each arm; None is the model without factors.

    Raises `UnsupportedModelError` for a model whose attention can't be read, `DataError` for one that gives NaN.
    """
    from ropewalk.analysis.parts.attention_statistics import distance_starts
    from ropewalk.patch import check_factors

    given = [factors for factors in arms.values() if factors is not None]
    check_factors(subject.model, *given, any_model=subject.any_model)  # before minutes are spent on vanilla
    evaluator = subject.evaluator
    prompts = _prompts(subject)
    starts = distance_starts(max(len(prompt.ids) for prompt in prompts)).tolist()
    missing = [
        (prompt, factors, key)
        for factors in arms.values()
        for prompt in prompts
        if subject.kept.find(key := _key(subject, prompt, factors)) is None
    ]
    if missing:
        subject.on_event(Stage("Attention", len(missing)))
    for prompt, factors, key in missing:
        subject.kept.keep(key, _read(subject, prompt, factors))
        subject.on_event(Scored(1))
    found = {
        name: [subject.kept.find(_key(subject, prompt, factors)) for prompt in prompts]
        for name, factors in arms.items()
    }
    shape = (len(evaluator.records), len(prompts) // len(evaluator.records))
    return starts, {name: _readings(documents, shape, len(starts)) for name, documents in found.items()}


def _prompts(subject: Subject) -> list[Any]:
    """The rendered prompts of the evaluator's examples, each with its first answer."""
    from ropewalk.prompt_cache import rendered
    from ropewalk.prompts import PromptRenderer

    evaluator = subject.evaluator
    dress = evaluator.settings["prompt"]
    renderer = PromptRenderer(subject.tokenizer, dress["chat_template_kwargs"], chat_template=dress["format"] == "chat")
    return [aliases[0] for aliases in rendered(renderer, evaluator.examples)]


def _key(subject: Subject, prompt: Any, factors: ScalingFactors | None) -> Json:
    task = next(iter(subject.evaluators))
    values = None if factors is None else list(factors.values)
    return {**subject.settings_of(task), "reading": values, "example": prompt.example.id}


def _read(subject: Subject, prompt: Any, factors: ScalingFactors | None) -> Json:
    """One prompt under one arm: for each rotary layer what `Readings` needs."""
    from ropewalk.analysis.parts.attention_reader import read_attention
    from ropewalk.patch import patched, unpatched

    model = subject.model
    with unpatched(model) if factors is None else patched(model, factors, any_model=subject.any_model):
        read = read_attention(model, prompt.ids, prompt.first)
    answer, before = slice(prompt.first - 1, len(prompt.ids) - 1), slice(0, max(1, prompt.first - 1))
    layers = [read.layers[layer] for layer in subject.rotary_layers]
    if not all(np.isfinite(layer.entropy).all() for layer in layers):
        raise DataError(
            f"example {prompt.example.id}: the model gives numbers that are not finite; use another --dtype"
        )
    return {
        "entropy": [float(layer.entropy[answer].mean()) for layer in layers],
        "thirds": [layer.thirds[answer].mean(axis=0).tolist() for layer in layers],
        "first": [float(layer.first[answer].mean()) for layer in layers],
        "prompt_entropy": [float(layer.entropy[before].mean()) for layer in layers],
        "prompt_thirds": [layer.thirds[before].mean(axis=0).tolist() for layer in layers],
        "sums": [np.nan_to_num(layer.scores * layer.pairs).tolist() for layer in layers],
        "pairs": [layer.pairs.tolist() for layer in layers],
        "bound": [roformer_bound(read.rotations[layer]).tolist() for layer in subject.rotary_layers],
    }


def roformer_bound(rotations: NDArray[np.complex128]) -> Array:
    """How far the rotation alone lets q·k reach at each class of distance, as a share of that at distance 0.

    rotations: complex [T, pairs] at each distance. The bound of Su et al. (RoFormer, arXiv 2104.09864, section 3.4.3):
    |q·k| at distance m is at most max|h_{i+1} − h_i| · Σ_i |S_i(m)|, with S_i(m) the sum of the first i rotations.
    Their figure 2 draws Σ_i |S_i(m)| / (D/2), as is done here, over its value at 0. With a factor s it is that of m/s.
    """
    from ropewalk.analysis.parts.attention_statistics import distance_starts

    sums = np.abs(np.cumsum(rotations, axis=1)).mean(axis=1)
    starts = [*distance_starts(len(rotations)).tolist(), len(rotations)]
    classes = [sums[low:high].mean() for low, high in pairwise(starts)]
    return np.asarray(np.array(classes) / sums[0])


def _readings(documents: list[Json], shape: tuple[int, int], classes: int) -> Readings:
    def by_record(name: str) -> Array:
        values = np.array([document[name] for document in documents])
        return np.asarray(values.reshape(*shape, *values.shape[1:]).mean(axis=1))

    sums, pairs = (
        np.array([_padded(document[name], classes) for document in documents]).reshape(*shape, -1, classes).sum(axis=1)
        for name in ("sums", "pairs")
    )
    longest = max(documents, key=lambda document: len(document["bound"][0]))
    with np.errstate(invalid="ignore"):
        scores = sums / pairs
    names = ("entropy", "thirds", "first", "prompt_entropy", "prompt_thirds")
    return Readings(**{name: by_record(name) for name in names}, scores=scores, bound=np.array(longest["bound"]))


def _padded(rows: list[list[float]], classes: int) -> list[list[float]]:
    return [[*row, *[0.0] * (classes - len(row))] for row in rows]
