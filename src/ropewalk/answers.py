"""What a model answers to a fixed set of prompts, under any factors: the part of scoring that needs the model.

It takes prompts and gives scores and texts, and knows no task. So it runs wherever the model is: in this process, or on
other processes that hold the model for this one (`ropewalk.elsewhere`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ropewalk.elsewhere import Holders
from ropewalk.engine.generation import Request, end_ids
from ropewalk.engine.scorer import NO_PROMPTS, Scorer
from ropewalk.engine.scoring import AnswerScore
from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors
from ropewalk.prompts import RenderedPrompt

Report = Callable[[int], None]
Block = tuple[int, ...]  # numbers of examples that are scored together


@dataclass(frozen=True)
class Questions:
    """prompts: by example its aliases, of which the likeliest counts. generated: whether answers are generated too,
    of `max_new_tokens` at most and up to one of the texts `stop`. The rest: as for `Scorer`.
    """

    prompts: tuple[tuple[RenderedPrompt, ...], ...]
    generated: bool = False
    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    tokens_per_batch: int | None = None
    own_loop: bool = True
    candidates: int = 1

    def __post_init__(self) -> None:
        if not self.prompts:
            raise DataError(NO_PROMPTS)


@dataclass(frozen=True)
class Answers:
    """Of one candidate: a score for each prompt, one example after another, and the generated text of each example."""

    scores: tuple[AnswerScore, ...]
    texts: tuple[str, ...] | None = None

    @staticmethod
    def joined(parts: Sequence[Answers]) -> Answers:
        """Those of several blocks, in their order."""
        texts = tuple(text for part in parts for text in part.texts or ())
        scores = tuple(score for part in parts for score in part.scores)
        return Answers(scores, None if parts[0].texts is None else texts)


class LocalAnswers:
    """By a model in this process. A block's batches are its own: what else is scored does not change them."""

    def __init__(self, model: Any, tokenizer: Any, questions: Questions) -> None:
        self.questions = questions
        flat = [prompt for aliases in questions.prompts for prompt in aliases]
        self._whole = Scorer(
            model,
            tokenizer,
            flat,
            questions.tokens_per_batch,
            own_loop=questions.own_loop,
            candidates=questions.candidates,
        )
        self._parts: dict[Block, Scorer] = {tuple(range(len(questions.prompts))): self._whole}
        self._request = Request(questions.max_new_tokens, questions.stop, end_ids(model, tokenizer))

    @property
    def reason(self) -> str | None:
        """Why `model.forward` is used; None for the own layer loop. Final after the first answers."""
        return next((part.reason for part in self._parts.values() if part.reason is not None), None)

    def answers(
        self, blocks: Sequence[Block], candidates: Sequence[ScalingFactors | None], any_model: bool, report: Report
    ) -> list[Answers]:
        """One a candidate, over the examples of all blocks in their order. report: told how many were just done."""
        found = [self._of_block(block, candidates, any_model, report) for block in blocks]
        return [Answers.joined(parts) for parts in zip(*found, strict=True)]

    def _of_block(
        self, block: Block, candidates: Sequence[ScalingFactors | None], any_model: bool, report: Report
    ) -> list[Answers]:
        prompts = [self.questions.prompts[number] for number in block]
        if block not in self._parts:
            self._parts[block] = self._whole.of([prompt for aliases in prompts for prompt in aliases])
        scorer, generated = self._parts[block], self.questions.generated
        counted = _by_example(prompts, (lambda count: None) if generated else report)
        scores = [tuple(own) for own in scorer.score(candidates, counted, any_model)]
        if not generated:
            return [Answers(own) for own in scores]
        asked = [aliases[0].ids[: aliases[0].first] for aliases in prompts]
        texts = [
            tuple(scorer.generate(asked, self._request, one, lambda numbers, count: report(len(numbers)), any_model))
            for one in candidates
        ]
        return [Answers(*pair) for pair in zip(scores, texts, strict=True)]


class Job(Protocol):
    """Answers that were asked for and may not be there yet. seconds: of the run's time, once they are."""

    seconds: float

    def answers(self) -> list[Answers]:
        """As of `LocalAnswers`; raises what scoring raised."""
        ...

    def cancel(self) -> None:
        """Nobody waits for them any more."""
        ...


class Answerers(Holders, Protocol):
    """Processes that hold a model and answer for it."""

    def start(
        self,
        questions: Questions,
        blocks: Sequence[Block],
        candidates: Sequence[ScalingFactors | None],
        any_model: bool,
        report: Report,
    ) -> Job:
        """Ask, without waiting for it."""
        ...

    def wait(self, jobs: Collection[Job]) -> Job:
        """One of the jobs, as soon as it is done."""
        ...

    def reason(self, questions: Questions) -> str | None:
        """As of `LocalAnswers`."""
        ...


class RemoteAnswers:
    """`LocalAnswers` of a model that others hold."""

    def __init__(self, holders: Answerers, questions: Questions) -> None:
        self.holders, self.questions = holders, questions

    @property
    def reason(self) -> str | None:
        """As of `LocalAnswers`."""
        return self.holders.reason(self.questions)

    def start(
        self, blocks: Sequence[Block], candidates: Sequence[ScalingFactors | None], any_model: bool, report: Report
    ) -> Job:
        """Ask, without waiting for it."""
        return self.holders.start(self.questions, blocks, candidates, any_model, report)

    def answers(
        self, blocks: Sequence[Block], candidates: Sequence[ScalingFactors | None], any_model: bool, report: Report
    ) -> list[Answers]:
        """As of `LocalAnswers`."""
        job = self.start(blocks, candidates, any_model, report)
        try:
            return self.holders.wait([job]).answers()
        except BaseException:
            job.cancel()
            raise


def _by_example(prompts: Sequence[Sequence[RenderedPrompt]], report: Report) -> Callable[[Sequence[int], int], None]:
    """What tells of examples where it is told of prompts: an example is done with its last alias."""
    owner = [number for number, aliases in enumerate(prompts) for _ in aliases]
    left = [len(aliases) for aliases in prompts]

    def scored(numbers: Sequence[int], count: int) -> None:
        owners = [owner[number] for number in numbers]
        for number in owners:
            left[number] -= 1
        done = sum(left[number] <= 0 for number in set(owners))
        for number in owners:
            left[number] = len(prompts[number]) if left[number] <= 0 else left[number]
        if done:
            report(done * count)

    return scored
