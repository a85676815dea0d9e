"""(model, tokenizer, task, candidates) -> one `TaskResult` per candidate. Leaves the model as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ropewalk.engine.scoring import AnswerScorer
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors
from ropewalk.patch import patched, unpatched
from ropewalk.prompts import PromptRenderer
from ropewalk.results import TaskResult
from ropewalk.splits import Split
from ropewalk.tasks.base import Example, Task


class Evaluator:
    """A model and a fixed set of examples, ready to score any number of factors.

    examples must hold every record at every position, record by record, as `Task.examples` gives them. chat_template:
    False gives the model the bare completion prompt, also where the tokenizer has a chat template.
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
    ) -> None:
        self.model, self.task, self.examples = model, task, list(examples)
        self._records = _records(self.examples, task.positions)
        renderer = PromptRenderer(tokenizer, chat_template_kwargs, chat_template=chat_template)
        self._prompt_settings = renderer.settings()
        prompts = [renderer.render(example) for example in self.examples]
        self.prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        self._scorer = AnswerScorer(model, tokenizer, prompts, tokens_per_batch)

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the prompts, as JSON: the task's settings and, under "prompt", how they are dressed."""
        return {**self.task.settings(), "prompt": dict(self._prompt_settings)}

    @property
    def shared_prefix_reason(self) -> str | None:
        """Why prompts that begin alike are computed one by one all the same; None if their beginning is shared."""
        return self._scorer.shared_prefix_reason

    def score(
        self,
        factors: ScalingFactors | None,
        *,
        any_model: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> TaskResult:
        """The result under `factors`; None is the model without any (vanilla), also where it carries some."""
        context = unpatched(self.model) if factors is None else patched(self.model, factors, any_model=any_model)
        with context:
            scores = self._scorer.score(on_progress)
        shape = (len(self._records), len(self.task.positions))
        return TaskResult(
            task=self.settings,
            positions=self.task.positions,
            records=self._records,
            scores=np.array([score.verdict for score in scores], dtype=np.float64).reshape(shape),
            log_likelihoods=np.array([score.log_likelihood for score in scores]).reshape(shape),
            margins=np.array([score.margin for score in scores]).reshape(shape),
            answer_tokens=np.array([score.tokens for score in scores]).reshape(shape),
            metric=self.task.metric.name,
        )


def evaluate(
    model: Any,
    tokenizer: Any,
    task: Task,
    candidates: Sequence[ScalingFactors | None],
    *,
    split: Split = "test",
    chat_template: bool = True,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    any_model: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> list[TaskResult]:
    """Score every candidate on the same examples: all records of `split`, each at every position of the task.

    candidates: factors, or None for the model without any. chat_template: False for the bare completion prompt. Returns
    one result a candidate, in their order. Pure: the model carries afterwards what it carried before.
    """
    evaluator = Evaluator(
        model,
        tokenizer,
        task,
        task.examples(split),
        chat_template=chat_template,
        chat_template_kwargs=chat_template_kwargs,
    )
    return [evaluator.score(factors, any_model=any_model, on_progress=on_progress) for factors in candidates]


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
