"""The model as lm-eval calls it: quiet, counted, and with the same batches in both arms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from lm_eval.models.huggingface import HFLM

CPU_TOKENS = 4096  # of a batch that is chosen by itself: on a CPU larger ones gain nothing
LARGEST_BATCH = 64

OnProgress = Callable[[int], None]


class Planned(Exception):  # noqa: N818  # no error: how a plan ends
    """All requests are built, and none is to be run."""


class CountedLM(HFLM):  # type: ignore[misc]  # lm-eval is untyped
    """A loaded model for lm-eval. on_progress: gets the number of prompts that were just scored."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int | None = None,
        max_length: int | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),  # lm-eval gives it a padding token
            batch_size="auto" if batch_size is None else batch_size,
            max_batch_size=LARGEST_BATCH,
            max_length=max_length,
            chat_template_args=chat_template_kwargs or {},
        )
        self._limit = max_length
        self.planning = False
        self.on_progress: OnProgress = _ignore
        self.longest = self.max_length  # tokens of the longest request, once that is known
        self._found: list[int] = []
        self._asked = 0
        self.set_cache_hook(_Counter(self))

    def begin_arm(self) -> None:
        """The requests of an arm begin: batches are those of the arm before."""
        self._asked = 0

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        """As lm-eval's, without a bar."""
        self._check_planning()
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        """As lm-eval's, without a bar."""
        self._check_planning()
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        """As lm-eval's, without a bar."""
        self._check_planning()
        return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        scored: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, disable_tqdm=True, override_bs=override_bs
        )
        if override_bs is not None:  # windows of a text, which the counter does not see
            self.on_progress(len(requests))
        return scored

    def _detect_batch_size(self, requests: Any = None, pos: int = 0) -> int:
        """The largest batch that fits, found in the first arm: other batches would round otherwise in the second."""
        if self._asked == len(self._found):
            self._found.append(self._fitting(requests, pos))
        self._asked += 1
        return self._found[self._asked - 1]

    def _fitting(self, requests: Any, pos: int) -> int:
        if self.device.type == "cpu":
            tokens = sum(map(len, requests[pos][1:])) if requests else self.longest
            fitting: int = CPU_TOKENS // min(max(1, tokens), self.max_length)
            return max(1, min(LARGEST_BATCH, fitting))
        return self._tried(requests, pos)

    def _tried(self, requests: Any, pos: int) -> int:
        """lm-eval's way: halve the batch until it fits, for the longest request that there is."""
        self._max_length = min(self.max_length, self.longest)  # lm-eval would try the whole of a long context
        try:
            return int(super()._detect_batch_size(requests, pos))
        finally:
            self._max_length = self._limit

    def _check_planning(self) -> None:
        if self.planning:
            raise Planned


class _Counter:
    """What lm-eval calls for its cache after each request, told to the progress display in its place."""

    dbdict = None

    def __init__(self, lm: CountedLM) -> None:
        self._lm = lm

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        """One request was answered; those of whole texts are counted by their windows."""
        if kind != "loglikelihood_rolling":
            self._lm.on_progress(1)


def _ignore(prompts: int) -> None:
    """Nobody looks at the progress."""
