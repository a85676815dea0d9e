"""`Scorer`: fixed prompts, any candidates. The own layer loop where it fits the model, else `model.forward`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ropewalk.comparators.base import comparator_on
from ropewalk.engine.candidates import Factors
from ropewalk.engine.decoder import Decoder
from ropewalk.engine.forward import ForwardScorer
from ropewalk.engine.generation import Request, by_loop, by_model
from ropewalk.engine.layer_loop import LayerLoop
from ropewalk.engine.layer_spec import NotFitError
from ropewalk.engine.memory import Budget, budget
from ropewalk.engine.rotary_tables import kept_base
from ropewalk.engine.scoring import AnswerScore
from ropewalk.engine.self_check import difference_from_forward, generation_fault, probe_loop, tolerance
from ropewalk.errors import DataError, RopewalkError, UnsupportedModelError
from ropewalk.factors import ScalingFactors
from ropewalk.layers import decoder_layers, input_device, scored_model, text_decoder
from ropewalk.patch import check_factors, patched, rotary_layers, unpatched
from ropewalk.prompts import RenderedPrompt, terminator_ids

OnProgress = Callable[[Sequence[int], int], None]

COMPILE_FLOPS = 3e16
NO_PROMPTS = "no prompts to score: the task gave no examples"

# What was found right already, by decoder: (what was checked, tokens of the longest prompt that was read).
_CHECKED: WeakKeyDictionary[nn.Module, dict[object, int]] = WeakKeyDictionary()


class Scorer:
    """Scores a fixed list of prompts under any candidates, and leaves the model as it was.

    tokens_per_batch: None finds a size for the device; a batch that does not fit is halved, and the smaller size is
    kept. own_loop: False takes `model.forward` in any case. compiled: torch.compile for the loop; None: on CUDA, if
    `candidates`, as many as will be scored in all, are so much work that compiling pays.

    reason: why `model.forward` is used, None for the own layer loop. The loop is checked against it at the first
    `score`, so this is final only then.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[RenderedPrompt],
        tokens_per_batch: int | None = None,
        *,
        own_loop: bool = True,
        compiled: bool | None = None,
        candidates: int = 1,
    ) -> None:
        if not prompts:
            raise DataError(NO_PROMPTS)
        self.model: Any = scored_model(model)
        self.tokenizer, self.prompts = tokenizer, list(prompts)
        self.device = input_device(self.model)
        self.reason: str | None = None if own_loop else "it was asked for"
        self._terminators: dict[str, Sequence[int]] = {}
        self._terminators = self._terminators_of(self.prompts)
        self._tokens_per_batch = tokens_per_batch
        self._budget = budget(self.model, self.device, tokens_per_batch)
        self._generation_budget: Budget | None = None
        self._compiled = self._pays(candidates) if compiled is None else compiled
        self._decoder: Decoder | None = None
        self._loop: LayerLoop | None = None
        self._checked = self._generation_checked = False

    def of(self, prompts: Sequence[RenderedPrompt]) -> Scorer:
        """The same way of scoring for other prompts: compiled if this one is, by `model.forward` if it was found so.

        What this one has found or made of the model it has too, and both have one budget of memory.
        """
        if not prompts:
            raise DataError(NO_PROMPTS)
        scorer = copy.copy(self)
        scorer.prompts, scorer._loop = list(prompts), None
        scorer._checked = scorer._generation_checked = False
        scorer._terminators = self._terminators_of(scorer.prompts)
        return scorer

    def _terminators_of(self, prompts: Sequence[RenderedPrompt]) -> dict[str, Sequence[int]]:
        """The tokens that begin with each terminator; finding them reads the whole vocabulary, so once."""
        texts = {prompt.terminator for prompt in prompts}
        missing = sorted(texts - self._terminators.keys())
        return self._terminators | {text: terminator_ids(self.tokenizer, text) for text in missing}

    def score(
        self,
        candidates: Sequence[ScalingFactors | None],
        on_progress: OnProgress | None = None,
        any_model: bool = False,
    ) -> list[list[AnswerScore]]:
        """For each candidate (None: no factors) one score a prompt, in the order given.

        on_progress: told which prompts were just done and for how many candidates. Raises `FactorsError` for
        factors that are not for this model.
        """
        report = on_progress or (lambda numbers, candidates: None)
        found: list[dict[int, AnswerScore]] = [{} for _ in candidates]
        with self._model_at_rest():
            given = [factors for factors in candidates if factors is not None]
            if given:
                check_factors(self.model, *given, any_model=any_model)
            self._prepare()
            parts = self._by_forward if self._loop is None else self._by_loop
            for members, numbers, by_candidate in parts(candidates, any_model):
                for member, scores in zip(members, by_candidate, strict=True):
                    found[member].update(zip(numbers, scores, strict=True))
                report(numbers, len(members))
        return [[scores[number] for number in range(len(self.prompts))] for scores in found]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        request: Request,
        factors: ScalingFactors | None = None,
        on_progress: OnProgress | None = None,
        any_model: bool = False,
    ) -> list[str]:
        """Greedily generated answers to token ids under `factors`, each up to the first stop."""
        if not prompts:
            return []
        report = on_progress or (lambda numbers, candidates: None)
        found: dict[int, str] = {}
        with self._model_at_rest():
            if factors is not None:
                check_factors(self.model, factors, any_model=any_model)
            self._prepare()
            for numbers, texts in self._texts(prompts, request, factors, any_model):
                found.update(zip(numbers, texts, strict=True))
                report(numbers, 1)
        return [found[number] for number in range(len(prompts))]

    def _texts(
        self, prompts: Sequence[Sequence[int]], request: Request, factors: ScalingFactors | None, any_model: bool
    ) -> Iterator[tuple[list[int], list[str]]]:
        size = self._generation_budget or budget(self.model, self.device, self._tokens_per_batch, cached=True)
        self._generation_budget = size
        if self._loop is not None and self._checked and not self._generation_checked:
            fault = self._generation_fault(self._loop.decoder, prompts)
            self._generation_checked = True
            if fault is not None:
                self.reason, self._loop = fault, None
        if self._loop is not None:
            values = [None] * len(self._loop.decoder.layers) if factors is None else factors.values
            yield from by_loop(self._loop.decoder, self.tokenizer, prompts, values, request, size)
            return
        with patched(self.model, factors, any_model=any_model) if factors is not None else unpatched(self.model):
            yield from by_model(self.model, self.tokenizer, prompts, request, size)

    @contextmanager
    def _model_at_rest(self) -> Iterator[None]:
        """No gradients, no dropout, no factors; afterwards the model is what it was."""
        if self.reason is None:
            _check_comparator(self.model)
        with torch.no_grad(), evaluation_mode(self.model), unpatched(self.model), kept_base(self.model):
            yield

    def _generation_fault(self, decoder: Decoder, prompts: Sequence[Sequence[int]]) -> str | None:
        try:
            return generation_fault(self.model, decoder, self.tokenizer, prompts, rotary_layers(self.model))
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # whatever it is, `model.generate` is there
            return f"the layer loop fails to generate with it ({type(error).__name__}: {error})"

    def _known(self, probe: LayerLoop) -> tuple[dict[object, int], object, int]:
        """What was found right for this decoder so far, what the probe would check, and over how many tokens.

        A search makes four scorers of one model: one check does for all that ask for no more.
        """
        decoder = text_decoder(self.model)
        layers = tuple(id(layer) for layer in decoder_layers(self.model))
        tails = any(row.has_tails for row in probe.rows)
        implementation = getattr(decoder.config, "_attn_implementation", None)
        what = (layers, self.model.dtype, self.device, implementation, self._compiled, tails)
        return _CHECKED.setdefault(decoder, {}), what, max(len(prompt.ids) for prompt in probe.prompts)

    def _pays(self, candidates: int) -> bool:
        """Whether compiling, which takes 10 to 25 s on an H200, is earned back: it makes the loop 1.15 to 1.4 times as
        fast there.
        """
        tokens = candidates * sum(len(prompt.ids) for prompt in self.prompts)
        return self.device.type == "cuda" and 2 * self.model.num_parameters() * tokens >= COMPILE_FLOPS

    def _by_loop(
        self, candidates: Sequence[ScalingFactors | None], any_model: bool
    ) -> Iterator[tuple[list[int], list[int], list[list[AnswerScore]]]]:
        loop = self._loop
        if loop is None:
            return
        num_layers = len(loop.decoder.layers)
        rows: list[Factors] = [[None] * num_layers if factors is None else factors.values for factors in candidates]
        # Neighbours in this order share the most layers.
        order = sorted(range(len(rows)), key=lambda number: tuple(value or 1.0 for value in rows[number]))
        width = loop.widest()
        with loop.ready():
            for start in range(0, len(order), width):
                members = order[start : start + width]
                for numbers, by_candidate in loop.score([rows[member] for member in members]):
                    yield members, numbers, by_candidate

    def _by_forward(
        self, candidates: Sequence[ScalingFactors | None], any_model: bool
    ) -> Iterator[tuple[list[int], list[int], list[list[AnswerScore]]]]:
        scorer = ForwardScorer(self.model, self.prompts, self._terminators, self._budget)
        for member, factors in enumerate(candidates):
            with patched(self.model, factors, any_model=any_model) if factors is not None else unpatched(self.model):
                for numbers, scores in scorer.score():
                    yield [member], numbers, [scores]

    def _prepare(self) -> None:
        """Choose the way at the first call. Where nothing is finite the check says nothing and is made again."""
        if self.reason is not None or self._checked:
            return
        try:
            rotary = rotary_layers(self.model)
            decoder = self._decoder or self._make_decoder(rotary)
            probe = probe_loop(decoder, self.prompts, self._terminators)
            known, what, tokens = self._known(probe)
            difference = 0.0 if known.get(what, 0) >= tokens else difference_from_forward(self.model, probe, rotary)
        except (NotFitError, UnsupportedModelError) as error:  # without factors any model can be scored
            self.reason = str(error)
            return
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # whatever it is, `model.forward` is there
            self.reason = f"the layer loop fails on it ({type(error).__name__}: {error})"
            return
        allowed = tolerance(self.model.dtype)
        if difference is not None and difference > allowed:
            self.reason = (
                f"its log-likelihoods differ from model.forward's by {difference:.2g} nats a token (relative to those "
                f"beyond 1), expected at most {allowed:g}"
            )
            self._loop = None
            return
        self._checked = difference is not None
        if self._checked:
            known[what] = max(tokens, known.get(what, 0))
        self._decoder = decoder
        self._loop = LayerLoop(decoder, self.prompts, self._terminators, self._budget)

    def _make_decoder(self, rotary: Sequence[int]) -> Decoder:
        decoder = Decoder(self.model, rotary)
        if self._compiled:
            decoder.compile()  # before the check: what it checks is what will run
        return decoder


def _check_comparator(model: Any) -> None:
    """Raise `RopewalkError` where the layer loop would score the model as if a comparator were not on it."""
    comparator = comparator_on(model)
    if comparator is not None and not comparator.engine:
        raise RopewalkError(
            f"{comparator.name} is on this model, which the layer loop can't run; make the evaluator with "
            "own_loop=False"
        )


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """`model.eval()` for a while; not all its modules need have been in one mode before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
