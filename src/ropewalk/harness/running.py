"""Both arms of a comparison, on one loaded model: what lm-eval asks is built anew for each, by the same seeds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.utils import normalize_gen_kwargs

from ropewalk.errors import DataError, PrerequisiteError, RopewalkError
from ropewalk.factors import ScalingFactors
from ropewalk.gguf_tokenizer import first_line
from ropewalk.harness.calm import calm
from ropewalk.harness.loading import Loaded, explained, seed_everything
from ropewalk.harness.model import CountedLM, OnProgress, Planned
from ropewalk.patch import patched, unpatched

Results = Mapping[str, Any]  # as lm-eval's evaluate returns them, with samples


@dataclass(frozen=True)
class Settings:
    """How the tasks are asked.

    limit: records of each task, None for all. num_fewshot: examples before each question, None for the task's own
    number. chat_template: prompts by the model's chat template.
    """

    limit: int | None = None
    num_fewshot: int | None = None
    chat_template: bool = False
    unsafe_code: bool = False


@dataclass(frozen=True)
class TaskPlan:
    """What a task will ask in one arm.

    records: questions or texts. prompts: what is scored, of a text its windows. tokens: of all prompts. longest: tokens
    of the longest. cut: prompts that lose their beginning because the model takes no more tokens. texts_split: texts
    that are scored in several windows.
    """

    records: int
    prompts: int
    tokens: int
    longest: int
    cut: int
    texts_split: int
    shots: int


class Arms:
    """A model with and without factors, on the same requests. The model is left as it was found."""

    def __init__(self, model: Any, lm: CountedLM, loaded: Loaded, settings: Settings) -> None:
        self.model, self.lm, self.loaded, self.settings = model, lm, loaded, settings
        if settings.chat_template and not getattr(lm.tokenizer, "chat_template", None):
            raise DataError("--apply-chat-template: this model's tokenizer has no chat template")
        for task in loaded.tasks.values():
            _set_shots(task, settings.num_fewshot)

    def plan(self) -> dict[str, TaskPlan]:
        """Build all requests without running any, and measure them. Raises `DataError` for one that can't be asked."""
        self.lm.planning = True
        try:
            with calm():
                self._evaluate()
        except Planned:
            pass
        except (RopewalkError, MemoryError):
            raise
        except Exception as error:  # templates and functions of the user's, on the user's data
            raise explained(", ".join(self.loaded.roots), error) from error
        finally:
            self.lm.planning = False
        plans = {name: self._plan(name, task) for name, task in self.loaded.tasks.items()}
        self.lm.longest = min(self.lm.max_length, max(plan.longest for plan in plans.values()))
        return plans

    def score(
        self, factors: ScalingFactors | None, *, any_model: bool = False, on_progress: OnProgress | None = None
    ) -> Results:
        """Run every request with these factors, None for the model as trained; lm-eval's results with all samples."""
        arm = unpatched(self.model) if factors is None else patched(self.model, factors, any_model=any_model)
        if on_progress is not None:
            self.lm.on_progress = on_progress
        self.lm.begin_arm()
        with arm, calm(), _one_line_memory():
            results: Results = self._evaluate()
        return results

    def seconds(self, plans: Mapping[str, TaskPlan]) -> float:
        """About how long one arm takes here: one batch of each task's middling prompts is timed."""
        total = 0.0
        with unpatched(self.model), calm(), _one_line_memory():
            for name, plan in plans.items():
                instances = sorted(self.loaded.tasks[name].instances, key=lambda one: len(str(one.args[0])))
                some = [instances[len(instances) // 2]]
                ask = getattr(self.lm, some[0].request_type)
                tokens = max(1, self._size(some[0])[0])
                ask(some)  # the first call of a shape is slow
                started = time.monotonic()
                ask(some)
                total += (time.monotonic() - started) * max(plan.tokens / tokens, 1.0)
        return total

    def _evaluate(self) -> Any:
        seed_everything()
        for task in self.loaded.tasks.values():
            task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
        return evaluate(
            lm=self.lm,
            task_dict=self.loaded.task_dict(),
            limit=self.settings.limit,
            bootstrap_iters=0,  # its intervals take no account of the pairs
            log_samples=True,
            apply_chat_template=self.settings.chat_template,
            fewshot_as_multiturn=True,  # where a chat template is applied: as simple_evaluate
            confirm_run_unsafe_code=self.settings.unsafe_code,
        )

    def _plan(self, name: str, task: Any) -> TaskPlan:
        measured = [self._checked_size(name, instance) for instance in task.instances]
        repeats = [instance.repeats for instance in task.instances]
        return TaskPlan(
            records=len({instance.doc_id for instance in task.instances}),
            prompts=sum(windows * count for (_, windows, _), count in zip(measured, repeats, strict=True)),
            tokens=sum(tokens * count for (tokens, _, _), count in zip(measured, repeats, strict=True)),
            longest=max(tokens for tokens, _, _ in measured),
            cut=sum(cut * count for (_, _, cut), count in zip(measured, repeats, strict=True)),
            texts_split=sum(windows > 1 for _, windows, _ in measured),
            shots=int(task.get_config("num_fewshot") or 0),
        )

    def _checked_size(self, name: str, instance: Any) -> tuple[int, int, bool]:
        try:
            return self._size(instance)
        except DataError as error:
            raise DataError(f"task {name}, record {instance.doc_id}: {error}") from None

    def _size(self, instance: Any) -> tuple[int, int, bool]:
        """(tokens, windows, whether its beginning is cut off) of a request."""
        lm, limit = self.lm, self.lm.max_length
        if instance.request_type == "loglikelihood_rolling":
            tokens = len(lm.tok_encode(instance.args[0]))
            if not tokens:
                raise DataError("its text is empty")
            return tokens, -(-tokens // limit), False
        if instance.request_type == "generate_until":
            tokens = len(lm.tok_encode(instance.args[0]))
            new = int(normalize_gen_kwargs(instance.args[1], lm.max_gen_toks)["max_gen_toks"])
            if new >= limit:
                raise DataError(f"asks for {new} new tokens of a model that takes {limit} in all (--max-length)")
            return min(tokens, limit - new) + new, 1, tokens > limit - new
        context, answer = instance.args
        prompt, rest = lm._encode_pair(context, answer) if context else ([0], lm.tok_encode(answer))
        if not rest:
            raise DataError(f"the answer {answer!r} adds no token to its prompt")
        if len(rest) > limit:
            raise DataError(f"an answer has {len(rest)} tokens, and the model takes {limit} in all (--max-length)")
        return min(len(prompt) + len(rest), limit + 1), 1, len(prompt) + len(rest) > limit + 1


def _set_shots(task: Any, asked: int | None) -> None:
    """As lm-eval's simple_evaluate: a task that says 0 examples itself keeps to that."""
    own = task.get_config("num_fewshot")
    if asked is not None and own != 0:
        task.set_config(key="num_fewshot", value=asked)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)


@contextmanager
def _one_line_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PrerequisiteError(
            f"the device's memory is too small for this ({first_line(error)}); give a smaller --batch-size or "
            "--max-length"
        ) from error
