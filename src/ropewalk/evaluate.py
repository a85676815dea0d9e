"""(model, tokenizer, task, candidates) -> one `TaskResult` per candidate. Leaves the model as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ropewalk.answers import Answers, Block, Job, LocalAnswers, Questions, RemoteAnswers
from ropewalk.elsewhere import holders_of
from ropewalk.engine.rope_schemes import longest_input
from ropewalk.engine.scorer import NO_PROMPTS
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

BLOCK_TOKENS = 65_536
"""About as many tokens of one candidate are scored together, what prompts of a record share counted once. It is half of
the largest batch on a GPU, and a second of one at 7B: small enough to share a generation out evenly among workers.
Blocks are the same wherever the model is, and so are the batches that are made of each, and the scores to the bit.
"""


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
        self._numbers = tuple(range(len(kept)))  # of its examples, among those of the evaluator it is a part of
        self.prompt_tokens = sum(len(aliases[0].ids) for aliases in self._prompts)
        self._parts: dict[tuple[int, ...], Evaluator] = {}
        questions = Questions(
            tuple(map(tuple, self._prompts)),
            self.generated,
            task.metric.max_new_tokens,
            task.metric.stop,
            tokens_per_batch,
            own_loop,
            candidates,
        )
        holders = holders_of(model)
        self._source: LocalAnswers | RemoteAnswers = (
            LocalAnswers(model, tokenizer, questions) if holders is None else RemoteAnswers(holders, questions)
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the prompts, as JSON: the task's settings and, under "prompt", how they are dressed."""
        return copy.deepcopy(self._settings)

    @property
    def fallback_reason(self) -> str | None:
        """Why `model.forward` is used; None for the own layer loop. Final after the first score."""
        return self._source.reason

    @property
    def engine(self) -> str:
        """What computes the scores, in words; final after the first score."""
        return OWN_LOOP if self.fallback_reason is None else f"model.forward, for {self.fallback_reason}"

    @property
    def records(self) -> tuple[str, ...]:
        """The records that are scored, each at every position, in their order."""
        return self._records

    def prompt_ids(self, number: int) -> tuple[int, ...]:
        """What the model reads of example `number` before the answer; of a plain text what precedes its bucket."""
        prompt = self._prompts[number][0]
        return tuple(prompt.ids[: prompt.first])

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
        if not kept:
            raise DataError(NO_PROMPTS)
        part = copy.copy(self)
        part.examples = [self.examples[number] for number in kept]
        part._records = tuple(self._records[row] for row in rows)
        part._prompts = [self._prompts[number] for number in kept]
        part._numbers = tuple(self._numbers[number] for number in kept)
        part.prompt_tokens = sum(len(aliases[0].ids) for aliases in part._prompts)
        part._parts = {}
        vars(part).pop("blocks", None)
        return part

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The examples as they are scored together: records one after another, up to `BLOCK_TOKENS` of them."""
        width = len(self.task.positions)
        blocks: list[list[int]] = []
        filled = 0
        for start in range(0, len(self._prompts), width):
            tokens = _tokens(self._prompts[start : start + width])
            if not blocks or filled + tokens > BLOCK_TOKENS:
                blocks.append([])
                filled = 0
            blocks[-1] += self._numbers[start : start + width]
            filled += tokens
        return tuple(map(tuple, blocks))

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
        return self._results(self._source.answers(self.blocks, candidates, any_model, report))

    def begin(self, candidates: Sequence[ScalingFactors | None], on_progress: OnProgress) -> Job:
        """Ask for the same where the model is elsewhere, without waiting for it; see `finished`."""
        if isinstance(self._source, LocalAnswers):
            raise TypeError("the model is in this process: score_many gives its results at once")
        return self._source.start(self.blocks, candidates, False, on_progress)

    def finished(self, job: Job) -> list[TaskResult]:
        """The results that `begin` asked for, once they are there; raises what scoring raised."""
        return self._results(job.answers())

    def _results(self, found: Sequence[Answers]) -> list[TaskResult]:
        return [self._result(answers.scores, answers.texts) for answers in found]

    def _result(self, scores: Sequence[AnswerScore], texts: Sequence[str] | None) -> TaskResult:
        metric = self.task.metric
        pick = _choice if metric.by_choice else _likeliest
        best: list[AnswerScore] = []
        start = 0
        for aliases in self._prompts:
            best.append(pick(scores[start : start + len(aliases)]))
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


def _choice(choices: Sequence[AnswerScore]) -> AnswerScore:
    """The right choice, which is the first: its verdict is whether it is the likeliest a token, its margin by how much.

    A choice that is not a number makes it fail: it can't be compared.
    """
    right, *others = choices
    best = max((score.log_likelihood for score in others), default=-np.inf)
    margin = right.log_likelihood - best
    if any(np.isnan(score.log_likelihood) for score in choices):
        return replace(right, verdict=False, log_likelihood=np.nan, margin=np.nan)
    return replace(right, verdict=bool(margin > 0), margin=abs(margin))


def _tokens(record: Sequence[Sequence[RenderedPrompt]]) -> int:
    """Of all prompts of a record; what one shares with the first from the left on is not counted again."""
    first, *others = [np.asarray(prompt.ids) for aliases in record for prompt in aliases]
    total = len(first)
    for ids in others:
        size = min(len(first), len(ids))
        differs = first[:size] != ids[:size]
        total += len(ids) - (int(differs.argmax()) if differs.any() else size)
    return total


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
