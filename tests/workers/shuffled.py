"""The tiny model in this process behind the interface of workers, whose answers arrive in any order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ropewalk.answers import Answers, Block, Job, LocalAnswers, Questions
from ropewalk.elsewhere import Facts
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.patch import layer_reports
from ropewalk.provenance import provenance


@dataclass(eq=False)
class ShuffledJob:
    answer: Callable[[], list[Answers]]
    seconds: float = 1.0
    cancelled: bool = False
    found: list[Answers] = field(default_factory=list)

    def answers(self) -> list[Answers]:
        return self.answer()

    def cancel(self) -> None:
        self.cancelled = True


class ShuffledAnswerers:
    """Answers any of the jobs that are waited for first; `log` has how many jobs were open each time."""

    def __init__(self, model: Any, tokenizer: Any, seed: int) -> None:
        self.model, self.tokenizer, self.random = model, tokenizer, Random(seed)
        self.facts = Facts(
            model_identity(model), base_scheme(model), tuple(layer_reports(model)), provenance(model), "digest"
        )
        self.memory_gib = 0.0
        self.log: list[int] = []
        self.jobs: list[ShuffledJob] = []
        self._sources: dict[int, LocalAnswers] = {}

    def source(self, questions: Questions) -> LocalAnswers:
        return self._sources.setdefault(id(questions), LocalAnswers(self.model, self.tokenizer, questions))

    def start(
        self,
        questions: Questions,
        blocks: Sequence[Block],
        candidates: Sequence[ScalingFactors | None],
        any_model: bool,
        report: Callable[[int], None],
    ) -> Job:
        source = self.source(questions)
        self.jobs.append(ShuffledJob(lambda: source.answers(blocks, candidates, any_model, report)))
        return self.jobs[-1]

    def wait(self, jobs: Collection[Job]) -> Job:
        self.log.append(len(jobs))
        return self.random.choice(list(jobs))

    def reason(self, questions: Questions) -> str | None:
        return self.source(questions).reason
