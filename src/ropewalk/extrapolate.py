"""How far a model reads beyond its trained length: base schemes as they are, and with layer factors.

At every length the same windows, objects and needles are read under: nothing, `linear`, `dynamic` and `yarn` with the
factor length / trained length, and for some of the schemes a triangle of layer factors made by hand and layer factors
that are searched, for the likelihood of the far tokens, on other parts of the texts than those that are tested.

Every arm is in a file of its own as soon as it is scored, and a search is a durable run: the same call goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk import files
from ropewalk.engine.rope_schemes import has_length_dependent_rope, rope_schemes
from ropewalk.errors import DataError, StudyError
from ropewalk.evaluate import Evaluator
from ropewalk.events import OnEvent, Scored, Stage
from ropewalk.extrapolate_prompts import POSITIONS, LongTexts, kv_task, length_words, needle_task
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.layers import decoder_layers, text_config
from ropewalk.objectives import Objective, Part
from ropewalk.patch import remove, rotary_layers
from ropewalk.prompts import PromptRenderer
from ropewalk.provenance import provenance
from ropewalk.results import TaskResult
from ropewalk.rope_override import LIMIT, ORIGINAL
from ropewalk.run import Examples, SearchPlan, search
from ropewalk.search import make_method
from ropewalk.search.space import SearchSpace
from ropewalk.search_plan import within_budget
from ropewalk.splits import Split
from ropewalk.tasks.base import Task

NOTHING, SCHEMES = "nothing", ("linear", "dynamic", "yarn")
TASKS = ("kv", "needle")
TRIANGLE, SEARCHED = "triangle", "searched"
HEIGHT = 0.3  # of the triangle: the author's notebook has the PI factor times 1, 1.3 in the middle, 1
METHOD, POPULATION = "default", 16
LOW, HIGH = 0.7, 1.35  # bounds of the searched factors
FINALISTS = 2
FEWEST = 2  # records that an interval needs
SCHEMA = "ropewalk.extrapolation-arm/1"

Load = Callable[[str | None], tuple[Any, Any]]  # a text for `--rope`, or None for the model's own -> model, tokenizer


@dataclass(frozen=True)
class Extrapolation:
    """What is to be read. lengths: tokens, ascending. text: files, see task perplexity.

    searched: schemes that layer factors are tried for. tasks: what is asked beside the windows. trained: tokens; None:
    what the config says. limit: windows of each text, and records of kv and needle. budget: windows that a search may
    read; 0: no search.
    """

    lengths: tuple[int, ...]
    text: str
    searched: tuple[str, ...] = ("linear", "dynamic")
    tasks: tuple[str, ...] = TASKS
    trained: int | None = None
    limit: int = 8
    budget: int = 96
    seed: int = 0


@dataclass(frozen=True)
class Arm:
    """One way to read one length. results: by task; a task is missing where no prompt of it is so short.

    rope: as `--rope` takes it, None for the model's own scheme. factors: of the layers. search: how they were found.
    """

    name: str
    rope: str | None
    results: Mapping[str, TaskResult]
    factors: ScalingFactors | None = None
    search: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Reading:
    """All arms of one length. factor: length / trained length, at least 1."""

    length: int
    factor: float
    arms: Mapping[str, Arm]


OnReadings = Callable[[Sequence[Reading]], None]


def trained_length(model: Any, given: int | None) -> int:
    """Tokens that a model was trained to: as given, or by its config. Raises `DataError` if that says nothing."""
    config = text_config(model)
    if given is not None:
        return given
    schemes = rope_schemes(model)
    known = getattr(config, ORIGINAL, None) or next((one[ORIGINAL] for one in schemes if one.get(ORIGINAL)), None)
    if known is None and any(one.get("rope_type") == "linear" for one in schemes):
        raise DataError("the model is linear already, and does not say its trained length: give --trained-length")
    known = known or getattr(config, LIMIT, None)
    if not known:
        raise DataError("the model's config does not say its trained length: give --trained-length")
    return int(known)


def scheme_factor(length: int, trained: int) -> float:
    """How many times the trained length, rounded up so that the longest input is no shorter; at least 1."""
    return max(1.0, math.ceil(1e4 * length / trained) / 1e4)


def triangle(model: Any) -> ScalingFactors:
    """1 in the first and the last rotary layer, 1.3 in the middle, straight lines between."""
    layers = rotary_layers(model)
    depths = [0.5 if len(layers) == 1 else number / (len(layers) - 1) for number in range(len(layers))]
    values: list[float | None] = [None] * len(decoder_layers(model))
    for layer, depth in zip(layers, depths, strict=True):
        values[layer] = 1 + HEIGHT * (1 - abs(2 * depth - 1))
    return ScalingFactors(values)


def extrapolate(
    plan: Extrapolation,
    load: Load,
    out: Path,
    on_event: OnEvent = lambda event: None,
    on_readings: OnReadings = lambda readings: None,
) -> list[Reading]:
    """Every length's arms. Files go to `out`. One model is held at a time.

    on_readings: told what was read so far after every arm, once there is `nothing` at every length. Raises `DataError`
    for texts that are too short, and `StudyError` for arms in `out` that were made otherwise.
    """
    model, tokenizer = load(None)
    remove(model)  # a checkpoint's own factors are for the lengths that it was trained to
    texts, trained = LongTexts.read(plan.text, tokenizer), trained_length(model, plan.trained)
    reader = _Reader(plan, load, out, on_event, texts, trained)
    for length in plan.lengths:  # before anything is scored
        reader.check(length)
    tasks = {length: reader.tasks(length, tokenizer) for length in plan.lengths}
    arms = {length: {NOTHING: reader.nothing(length, model, tokenizer, tasks[length])} for length in plan.lengths}
    del model
    readings = [Reading(length, scheme_factor(length, trained), own) for length, own in arms.items()]
    on_readings(readings)
    for reading in readings:
        for arm in reader.beyond(reading, tokenizer, tasks[reading.length]):
            arms[reading.length][arm.name] = arm
            on_readings(readings)
    return readings


@dataclass
class _Reader:
    plan: Extrapolation
    load: Load
    out: Path
    on_event: OnEvent
    texts: LongTexts
    trained: int

    def check(self, length: int) -> None:
        """Raise `DataError` for too few windows to test or to search on, and a budget that pays for no search."""
        searches = bool(self.plan.budget and self.plan.searched) and length > self.trained
        needed: tuple[tuple[Split, int], ...] = (("test", FEWEST), ("search", 1 if searches else 0))
        for split, least in needed:
            windows = self.texts.windows(length, split, self.plan.limit)
            count = 0 if windows is None else len(windows.examples(split))
            if count < least:
                raise DataError(
                    f"{self.plan.text}: its texts have room for {count} windows of {length} tokens among those for the "
                    f"{split} (40 % of each text), expected at least {least}; give more or longer texts, or a smaller "
                    "length (--lengths, --limit)"
                )
            smallest = count + POPULATION
            if split == "search" and searches and self.plan.budget < smallest:
                raise DataError(
                    f"--budget is {self.plan.budget}: a search at {length} tokens reads at least {smallest} windows, "
                    f"{count} without factors and one for each of {POPULATION} candidates; give 0 for no search"
                )

    def nothing(self, length: int, model: Any, tokenizer: Any, tasks: Mapping[str, Task]) -> Arm:
        """The model as it is."""
        with _longer(model, length):
            return self._arm(Arm(NOTHING, None, {}), length, model, tokenizer, tasks)

    def beyond(self, reading: Reading, tokenizer: Any, tasks: Mapping[str, Task]) -> Iterator[Arm]:
        """All arms but `nothing`, each as soon as it is read; none up to the trained length."""
        length = reading.length
        for kind in SCHEMES if length > self.trained else ():
            rope = f"{kind}:{reading.factor:.10g},original={self.trained}"
            model, _ = self.load(rope)
            remove(model)
            alone = self._arm(Arm(kind, rope, {}), length, model, tokenizer, tasks)
            yield alone
            if kind in self.plan.searched:
                hand = Arm(f"{kind}+{TRIANGLE}", rope, {}, triangle(model))
                yield self._arm(hand, length, model, tokenizer, tasks)
            if kind in self.plan.searched and self.plan.budget:
                found = self._searched(kind, rope, length, model, tokenizer)
                yield self._arm(found, length, model, tokenizer, tasks, alone)
            del model  # before the next one is loaded

    def tasks(self, length: int, tokenizer: Any) -> dict[str, Task]:
        """What is asked at a length; of long prompts only to make them takes seconds."""
        renderer, seed = PromptRenderer(tokenizer), self.plan.seed
        records = max(self.plan.limit, FEWEST)
        makers = {"kv": kv_task, "needle": needle_task}
        made = {"perplexity": self.texts.windows(length, "test", self.plan.limit)}
        for name in (name for name in TASKS if name in self.plan.tasks):
            self.on_event(Stage(f"{length_words(length)} {name}: making", records * POSITIONS))
            made[name] = makers[name](length, records, seed, renderer)
            self.on_event(Scored(records * POSITIONS))
        return {name: task for name, task in made.items() if task is not None}

    def _arm(
        self,
        arm: Arm,
        length: int,
        model: Any,
        tokenizer: Any,
        tasks: Mapping[str, Task],
        same: Arm | None = None,
    ) -> Arm:
        """The arm with its results: from its file, of `same` if its factors change nothing, or scored now."""
        path = self.out / "arms" / f"{length}-{arm.name}.json"
        evaluators = {name: _evaluator(model, tokenizer, task, "test") for name, task in tasks.items()}
        settings = {
            "schema": SCHEMA,
            "model": model_identity(model),
            "base": base_scheme(model),
            "dtype": provenance(model)["dtype"],
            "tasks": {name: evaluator.settings for name, evaluator in evaluators.items()},
            "factors": None if arm.factors is None else list(arm.factors.values),
        }
        known = _known(path, settings)
        if known is not None:
            return Arm(arm.name, arm.rope, known, arm.factors, arm.search)
        if same is not None and arm.factors is not None and arm.factors.is_identity:
            return Arm(arm.name, arm.rope, same.results, arm.factors, arm.search)
        prompts = sum(len(evaluator.examples) for evaluator in evaluators.values())
        self.on_event(Stage(f"{length_words(length)} {arm.name}", prompts))
        results = {
            name: evaluator.score(arm.factors, on_progress=lambda count: self.on_event(Scored(count)))
            for name, evaluator in evaluators.items()
        }
        files.write_json(path, settings | {"results": {name: result.to_dict() for name, result in results.items()}})
        return Arm(arm.name, arm.rope, results, arm.factors, arm.search)

    def _searched(self, kind: str, rope: str, length: int, model: Any, tokenizer: Any) -> Arm:
        """Layer factors for the likelihood of the far tokens, found on the search part of the texts."""
        num_layers, rotary = len(decoder_layers(model)), rotary_layers(model)
        space = SearchSpace(num_layers, None if len(rotary) == num_layers else tuple(rotary), low=LOW, high=HIGH)
        objective = Objective((Part("likelihood", "mean", name="far tokens"),))
        splits: tuple[Split, Split] = ("search", "validation")
        on, validation = (self._far(length, split, model, tokenizer) for split in splits)
        if on is None:
            raise DataError(f"{self.plan.text}: no text has room for a window of {length} tokens to search on")

        def planned(generations: int) -> SearchPlan:
            method = make_method(METHOD, space, self.plan.seed, population=POPULATION, generations=generations)
            at_once = 16 if provenance(model)["device_type"] == "cuda" else 1
            return SearchPlan(
                space, method, objective, FINALISTS if validation else 0, at_once=at_once, budget=self.plan.budget
            )

        plan = within_budget(planned(1), on, planned)
        found = search(plan, on, validation, self.out / "search" / f"{length}-{kind}", on_event=self.on_event)
        facts = {
            "evaluations": found.evaluations,
            "validation_evaluations": found.validation_evaluations,
            "fitness": found.fitness,
            "windows": len(on.tasks[0].records),
            "validation_windows": 0 if validation is None else len(validation.tasks[0].records),
            "method": plan.method.settings(),
        }
        return Arm(f"{kind}+{SEARCHED}", rope, {}, found.factors, facts)

    def _far(self, length: int, split: Split, model: Any, tokenizer: Any) -> Examples | None:
        """The far tokens of a split's windows; None where no text has room for one."""
        task = self.texts.windows(length, split, self.plan.limit)
        return None if task is None else Examples((_evaluator(model, tokenizer, task, split, self.plan.budget),))


def _evaluator(model: Any, tokenizer: Any, task: Task, split: Split, windows: int = 0) -> Evaluator:
    """Answers are teacher-forced: of long prompts that costs the reading alone. windows: that a search will read."""
    examples = task.examples(split)
    return Evaluator(model, tokenizer, task, examples, generate=False, candidates=max(1, windows // len(examples)))


def _known(path: Path, settings: Mapping[str, Any]) -> dict[str, TaskResult] | None:
    """The results of an arm's file; None where there is none. Raises `StudyError` for one that was made otherwise."""
    if not path.exists():
        return None
    document = files.read_json(path)
    odd = [name for name, value in settings.items() if not isinstance(document, dict) or document.get(name) != value]
    if odd:
        raise StudyError(
            f"{path}: was made with other settings ({', '.join(odd)} differ); give the same command, or another --out"
        )
    return {name: TaskResult.from_dict(result) for name, result in document["results"].items()}


@contextmanager
def _longer(model: Any, length: int) -> Iterator[None]:
    """A model that says for a while that it takes `length` tokens: rotary positions have no end of their own.

    One whose base follows the length keeps its limit, from which it reckons.
    """
    config = text_config(model)
    before = getattr(config, LIMIT, None)
    if not before or has_length_dependent_rope(model):
        yield
        return
    try:
        setattr(config, LIMIT, max(before, length))
        yield
    finally:
        setattr(config, LIMIT, before)
