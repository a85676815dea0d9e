"""(model, tokenizer, task, candidates) -> one `TaskResult` per candidate. Leaves the model as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ropewalk.engine.generation import Request, end_ids
from ropewalk.engine.rope_schemes import longest_input
from ropewalk.engine.scorer import Scorer
from ropewalk.engine.scoring import AnswerScore
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors
from ropewalk.prompt_cache import rendered
from ropewalk.prompts import PromptRenderer, RenderedPrompt
from ropewalk.results import OWN_LOOP, PERPLEXITY_METRIC, TaskResult
from ropewalk.splits import Split
from ropewalk.tasks.base import Example, Metric, Task

Overflow = Literal["error", "skip"]
OnProgress = Callable[[int], None]


class Evaluator:
    """A model and a fixed set of examples, ready to score any number of factors.

    examples must hold every record at every position, record by record, as `Task.examples` gives them. chat_template:
    False gives the model the bare completion prompt, also where the tokenizer has a chat template. overflow: prompts
    over the model's limit are an error that names them, or "skip" leaves their records out at every position alike.
    generate: report the metric of really generated answers; None: if the task's metric asks for it. own_loop: False
    uses `model.forward` in any case. candidates: how many will be scored in all, to see whether compiling pays.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task: Task,
        examples: Sequence[Example],
        *,
        chat_template: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokens_per_batch: int | None = None,
        overflow: Overflow = "error",
        generate: bool | None = None,
        own_loop: bool = True,
        candidates: int = 1,
    ) -> None:
        self.model, self.task = model, task
        self.generated = task.metric.generated if generate is None else generate
        if self.generated and task.metric.score is None:
            raise DataError(f"task {task.name} has nothing to generate; leave out --generate")
        renderer = PromptRenderer(tokenizer, chat_template_kwargs, chat_template=chat_template)
        # Once: the task reads its file to say what is in it, and every result says it.
        self._settings = {**task.settings(), "prompt": renderer.settings()}
        records = _records(examples, task.positions)
        prompts = rendered(renderer, examples)
        self.skipped = self._over_limit(prompts, overflow)
        kept = [number for number, example in enumerate(examples) if example.record not in self.skipped]
        if examples and not kept:
            which = "the only record has" if len(records) == 1 else f"all {len(records)} records have"
            raise DataError(f"{which} a prompt over the model's limit, none is left")
        self.examples = [examples[number] for number in kept]
        self._records = tuple(record for record in records if record not in self.skipped)
        self._prompts = [prompts[number] for number in kept]
        self._owner = [number for number, aliases in enumerate(self._prompts) for _ in aliases]
        flat = [prompt for aliases in self._prompts for prompt in aliases]
        self.prompt_tokens = sum(len(aliases[0].ids) for aliases in self._prompts)
        self._parts: dict[tuple[int, ...], Evaluator] = {}
        self._scorer = Scorer(model, tokenizer, flat, tokens_per_batch, own_loop=own_loop, candidates=candidates)
        self._request = Request(task.metric.max_new_tokens, task.metric.stop, end_ids(model, tokenizer))

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the prompts, as JSON: the task's settings and, under "prompt", how they are dressed."""
        return copy.deepcopy(self._settings)

    @property
    def fallback_reason(self) -> str | None:
        """Why `model.forward` is used; None for the own layer loop. Final after the first score."""
        return self._scorer.reason

    @property
    def engine(self) -> str:
        """What computes the scores, in words; final after the first score."""
        return OWN_LOOP if self.fallback_reason is None else f"model.forward, for {self.fallback_reason}"

    @property
    def records(self) -> tuple[str, ...]:
        """The records that are scored, each at every position, in their order."""
        return self._records

    def part(self, rows: Sequence[int]) -> Evaluator:
        """The same on some of the records, by their place in `records`; made once for each choice."""
        chosen = tuple(rows)
        if chosen == tuple(range(len(self._records))):
            return self
        if chosen not in self._parts:
            self._parts[chosen] = self._make_part(chosen)
        return self._parts[chosen]

    def _make_part(self, rows: tuple[int, ...]) -> Evaluator:
        width = len(self.task.positions)
        kept = [row * width + column for row in rows for column in range(width)]
        part = copy.copy(self)
        part.examples = [self.examples[number] for number in kept]
        part._records = tuple(self._records[row] for row in rows)
        part._prompts = [self._prompts[number] for number in kept]
        part._owner = [number for number, aliases in enumerate(part._prompts) for _ in aliases]
        part.prompt_tokens = sum(len(aliases[0].ids) for aliases in part._prompts)
        part._parts = {}
        part._scorer = self._scorer.of([prompt for aliases in part._prompts for prompt in aliases])
        return part

    def score(
        self, factors: ScalingFactors | None, *, any_model: bool = False, on_progress: OnProgress | None = None
    ) -> TaskResult:
        """The result under `factors`; None is the model without any (vanilla), also where it carries some."""
        return self.score_many([factors], any_model=any_model, on_progress=on_progress)[0]

    def score_many(
        self,
        candidates: Sequence[ScalingFactors | None],
        *,
        any_model: bool = False,
        on_progress: OnProgress | None = None,
    ) -> list[TaskResult]:
        """One result a candidate, computed together. on_progress: told how many examples were just done."""
        report = on_progress or (lambda count: None)
        left = [len(aliases) for aliases in self._prompts]  # an example is done with its last alias

        def scored(numbers: Sequence[int], count: int) -> None:
            owners = [self._owner[number] for number in numbers]
            for owner in owners:
                left[owner] -= 1
            done = sum(left[owner] <= 0 for owner in set(owners))
            for owner in owners:
                left[owner] = len(self._prompts[owner]) if left[owner] <= 0 else left[owner]
            if done and not self.generated:
                report(done * count)

        found = self._scorer.score(candidates, scored, any_model)
        return [
            self._result(scores, self._texts(factors, any_model, report) if self.generated else None)
            for factors, scores in zip(candidates, found, strict=True)
        ]

    def _texts(self, factors: ScalingFactors | None, any_model: bool, report: OnProgress) -> list[str]:
        asked = [aliases[0].ids[: aliases[0].first] for aliases in self._prompts]
        return self._scorer.generate(
            asked, self._request, factors, lambda numbers, count: report(len(numbers)), any_model
        )

    def _result(self, scores: Sequence[AnswerScore], texts: list[str] | None) -> TaskResult:
        metric = self.task.metric
        best: list[AnswerScore] = []
        start = 0
        for aliases in self._prompts:
            best.append(_likeliest(scores[start : start + len(aliases)]))
            start += len(aliases)
        if texts is not None and metric.score is not None:
            values = [metric.score(text, example.answers) for text, example in zip(texts, self.examples, strict=True)]
        elif metric.name == PERPLEXITY_METRIC:
            values = [score.matches / score.tokens for score in best]
        else:
            values = [float(score.verdict) for score in best]
        shape = (len(self._records), len(self.task.positions))
        return TaskResult(
            task=self.settings,
            positions=self.task.positions,
            records=self._records,
            scores=np.array(values, dtype=np.float64).reshape(shape),
            log_likelihoods=np.array([score.log_likelihood for score in best]).reshape(shape),
            margins=np.array([score.margin for score in best]).reshape(shape),
            answer_tokens=np.array([score.tokens for score in best]).reshape(shape),
            metric=_metric_name(metric, texts is not None),
            generated=texts is not None,
            graded=metric.graded and (texts is not None or not metric.generated),
            texts=None if texts is None else _rows(texts, shape[1]),
            groups=tuple(example.group for example in self.examples[:: shape[1]]),
            skipped=self.skipped,
        )

    def _over_limit(self, prompts: Sequence[Sequence[RenderedPrompt]], overflow: Overflow) -> tuple[str, ...]:
        """The records with a prompt over the model's limit. Raises `DataError` that names the examples."""
        limit = longest_input(self.model)
        budget = self.task.metric.max_new_tokens if self.generated else 0
        sizes = {
            aliases[0].example: max(max(len(one.ids), one.first + budget) for one in aliases) for aliases in prompts
        }
        long = [example for example, size in sizes.items() if limit and size > limit]
        if long and overflow == "error":
            names = ", ".join(f"{example.id} ({sizes[example]} tokens)" for example in long[:3])
            answers = f", {budget} of them for the answer" if budget else ""
            raise DataError(
                f"{len(long)} of {len(prompts)} prompts are longer than the model's {limit} tokens: {names}"
                f"{', …' if len(long) > 3 else ''}{answers}. Use shorter ones (for kv fewer --keys), or --overflow "
                "skip to leave their records out at every position"
            )
        return tuple(dict.fromkeys(example.record for example in long))


def evaluate(
    model: Any,
    tokenizer: Any,
    task: Task,
    candidates: Sequence[ScalingFactors | None],
    *,
    split: Split = "test",
    any_model: bool = False,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> list[TaskResult]:
    """Score every candidate on the same examples: all records of `split`, each at every position of the task.

    candidates: factors, or None for the model without any. options: those of `Evaluator`. Returns one result a
    candidate, in their order. Pure: the model carries afterwards what it carried before.
    """
    evaluator = Evaluator(model, tokenizer, task, task.examples(split), **options)
    return evaluator.score_many(candidates, any_model=any_model, on_progress=on_progress)


def _likeliest(aliases: Sequence[AnswerScore]) -> AnswerScore:
    """The alias that the model finds likeliest as a whole; one that is not a number is never hidden by another."""
    return max(aliases, key=lambda score: (np.isnan(score.log_likelihood), score.log_likelihood * score.tokens))


def _rows(texts: Sequence[str], width: int) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(texts[start : start + width]) for start in range(0, len(texts), width))


def _records(examples: Sequence[Example], positions: Sequence[int]) -> tuple[str, ...]:
    """The records in their order; `DataError` unless the examples are every one of them at every position."""
    records = tuple(dict.fromkeys(example.record for example in examples))
    expected = [(record, position) for record in records for position in positions]
    if [(example.record, example.gold_index) for example in examples] != expected:
        raise DataError(
            f"{len(examples)} examples of {len(records)} records: expected each record at every position "
            f"{list(positions)}, record by record, as Task.examples gives them"
        )
    return records


def _metric_name(metric: Metric, generated: bool) -> str:
    if generated == metric.generated:
        return metric.name
    return f"{metric.name}, generated" if generated else "exact_match"
