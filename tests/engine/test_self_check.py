"""The check by result: a loop that is wrong on purpose is found out, and the scores are right all the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ropewalk.engine import self_check
from ropewalk.engine.blocks import after_attention
from ropewalk.engine.decoder import Decoder
from ropewalk.engine.generation import Request, Texts
from ropewalk.engine.layer_spec import LayerSpec
from ropewalk.engine.rotary_tables import RotaryTables
from ropewalk.engine.scorer import Scorer
from ropewalk.engine.self_check import (
    SHORTEST,
    difference_from_forward,
    generation_fault,
    largest_difference,
    probe_factors,
    probe_loop,
    tolerance,
)
from ropewalk.factors import ScalingFactors
from ropewalk.patch import patched, rotary_layers
from ropewalk.prompts import RenderedPrompt
from ropewalk.tasks.base import Example
from scored_prompts import (
    ENDS,
    TinyTokenizer,
    assert_equal_scores,
    oracles,
    prompt_of,
    prompt_of_length,
    prompts_of_records,
)
from tiny import tiny_model

Fault = Callable[[pytest.MonkeyPatch], None]
FACTORS = ScalingFactors([1.2, 0.9, 0.95, 1.1])
TERMINATORS = {'"': tuple(ENDS), "": ()}
ALL = Request(12, (), frozenset())


def change_specs(monkeypatch: pytest.MonkeyPatch, change: Callable[[LayerSpec], LayerSpec]) -> None:
    """Every decoder from now on has its layers' specs changed."""
    build = Decoder.__init__

    def changed(self: Decoder, *args: Any) -> None:
        build(self, *args)
        self.layers = [change(spec) for spec in self.layers]

    monkeypatch.setattr(Decoder, "__init__", changed)


def other_window(monkeypatch: pytest.MonkeyPatch) -> None:
    change_specs(monkeypatch, lambda spec: dataclasses.replace(spec, window=15))


def other_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    change_specs(monkeypatch, lambda spec: dataclasses.replace(spec, scale=spec.scale * 1.1))


def no_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right without factors, so that only the second half of the check can tell."""
    at = RotaryTables.at

    def ignoring(self: RotaryTables, positions: Any, factors: Any, *args: Any) -> Any:
        ones = torch.ones(len(factors), dtype=torch.float64)
        return at(self, positions, ones if isinstance(factors, torch.Tensor) else [1.0] * len(factors), *args)

    monkeypatch.setattr(RotaryTables, "at", ignoring)


def skipped_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Decoder.__init__

    def built(self: Decoder, *args: Any) -> None:
        build(self, *args)
        second = self.layers[1]
        self.after = lambda spec, x, out: x if spec is second else after_attention(spec, x, out)

    monkeypatch.setattr(Decoder, "__init__", built)


def not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = Decoder.hidden
    monkeypatch.setattr(Decoder, "hidden", lambda *args: hidden(*args) * math.nan)


@pytest.mark.parametrize("fault", [other_window, other_scale, no_factors, skipped_layer, not_a_number])
def test_a_loop_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    model = tiny_model("mistral", sliding_window=16).double()
    prompts = prompts_of_records(2)
    fault(monkeypatch)
    scorer = Scorer(model, TinyTokenizer(), prompts)
    found = scorer.score([None, FACTORS])
    assert "differ from model.forward's by" in str(scorer.reason)
    assert ("by inf nats" in str(scorer.reason)) is (fault is not_a_number)
    for own, expected in zip(found, oracles(model, prompts, [None, FACTORS]), strict=True):
        assert_equal_scores(own, expected, 1e-9)
    first = scorer.reason
    scorer.score([FACTORS])
    assert scorer.reason == first


def test_a_loop_that_raises_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise IndexError("no such place")

    model = tiny_model().double()
    prompts = prompts_of_records(1)
    monkeypatch.setattr(Decoder, "hidden", broken)
    scorer = Scorer(model, TinyTokenizer(), prompts)
    (found,) = scorer.score([None])
    assert scorer.reason == "the layer loop fails on it (IndexError: no such place)"
    assert_equal_scores(found, oracles(model, prompts, [None])[0], 1e-9)


@pytest.mark.parametrize("where", ["a layer", "the embedding", "the rotary module"])
def test_what_is_hooked_into_the_model_is_seen(where: str) -> None:
    """The loop runs layers part by part, so it passes by what someone put around a whole layer."""
    model: Any = tiny_model().double()
    module = {"a layer": model.model.layers[1], "the embedding": model.model.embed_tokens}.get(where)
    if module is None:
        model.model.rotary_emb.register_forward_hook(lambda *args: tuple(table * 1.1 for table in args[-1]))
    else:
        module.register_forward_hook(lambda *args: args[-1] * 1.01)
    prompts = prompts_of_records(1)
    scorer = Scorer(model, TinyTokenizer(), prompts)
    (found,) = scorer.score([None])
    assert (scorer.reason is None) is (where == "the embedding")  # that one is called as a module
    assert_equal_scores(found, oracles(model, prompts, [None])[0], 1e-9)


def test_a_model_of_nan_is_counted_and_decides_nothing() -> None:
    """The check is made again as soon as something is finite."""
    model: Any = tiny_model().double()
    weight = model.model.layers[2].mlp.up_proj.weight
    kept = weight.detach().clone()
    prompts = prompts_of_records(1)
    scorer = Scorer(model, TinyTokenizer(), prompts)
    rotary_layers(model)  # whether factors fit a model can't be told any more when its outputs are NaN
    with torch.no_grad():
        weight.fill_(math.nan)
        for _ in range(2):
            for found in scorer.score([None, FACTORS]):
                assert all(math.isnan(one.log_likelihood) and not one.verdict for one in found)
        assert scorer.reason is None
        assert not scorer._checked
        assert [len(text.split()) for text in scorer.generate([[3, 4, 5]], ALL)] == [12]
        weight.copy_(kept)
    assert_equal_scores(scorer.score([None])[0], oracles(model, prompts, [None])[0], 1e-9)
    assert scorer._checked


def test_a_model_that_was_nan_from_the_start_is_scored_without_factors() -> None:
    model: Any = tiny_model()
    prompts = prompts_of_records(2)
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[0, 0] = math.nan
    (found,) = Scorer(model, TinyTokenizer(), prompts).score([None])
    assert [(math.isnan(one.log_likelihood), one.verdict) for one in found] == [(True, False)] * len(prompts)


def stepped_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new token stands one place too far to the right."""
    step = Decoder.step

    def late(self: Decoder, ids: Any, positions: Any, keys: Any, levels: Any, cache: Any) -> Any:
        own = self.tables.at

        def shifted(positions: Any, *args: Any) -> Any:
            return own(positions + 1, *args)

        self.tables.at = shifted  # type: ignore[method-assign]
        try:
            return step(self, ids, positions, keys, levels, cache)
        finally:
            del self.tables.at

    monkeypatch.setattr(Decoder, "step", late)


def step_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise IndexError("no such place")

    monkeypatch.setattr(Decoder, "step", broken)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (stepped_astray, "of 8 generated tokens are not those of model.forward"),
        (step_fails, r"the layer loop fails to generate with it (IndexError: no such place)"),
    ],
)
def test_a_broken_step_is_found_before_anything_is_generated(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, reason: str
) -> None:
    model = tiny_model().double()
    prompts = [list(prompt.ids) for prompt in prompts_of_records(2)]
    expected = Scorer(model, TinyTokenizer(), prompts_of_records(2), own_loop=False).generate(prompts, ALL, FACTORS)
    fault(monkeypatch)
    scorer = Scorer(model, TinyTokenizer(), prompts_of_records(2))
    scorer.score([None])
    assert scorer.reason is None
    assert scorer.generate(prompts, ALL, FACTORS) == expected
    assert reason in str(scorer.reason)
    assert_equal_scores(scorer.score([None])[0], oracles(model, prompts_of_records(2), [None])[0], 1e-9)


def test_a_right_step_has_no_fault() -> None:
    model = tiny_model("gemma3_text", head_dim=16, sliding_window=16).double()
    decoder = Decoder(model, rotary_layers(model))
    prompts = [list(prompt.ids) for prompt in prompts_of_records(1)]
    with torch.no_grad():
        assert generation_fault(model, decoder, TinyTokenizer(), prompts, rotary_layers(model)) is None


@pytest.mark.parametrize(("at", "fault"), [("smallest", None), ("largest", "1 of 8 generated tokens")])
def test_the_second_token_of_a_near_tie_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, at: str, fault: str | None
) -> None:
    """In bfloat16, one step of eight: where the lead is smaller than the rounding, and where it is not."""
    model = tiny_model().to(torch.bfloat16)
    decoder = Decoder(model, rotary_layers(model))
    told = self_check.generate

    def second_best(decoder: Decoder, head: Any, tokenizer: Any, prompts: Any, factors: Any, request: Any) -> Texts:
        texts = told(decoder, head, tokenizer, prompts, factors, request)
        with patched(model, ScalingFactors(factors)):
            steps = model(input_ids=torch.tensor([[*prompts[0], *texts.tokens[0]]]), use_cache=False).logits[0].float()
        best = steps[len(prompts[0]) - 1 : -1].topk(2)
        leads = best.values[:, 0] - best.values[:, 1]
        step = int(leads.argmin() if at == "smallest" else leads.argmax())
        assert (float(leads[step]) < 0.3) is (at == "smallest")
        head_ids = [*prompts[0], *texts.tokens[0][:step], int(best.indices[step, 1])]
        rest = Request(request.max_new_tokens - step - 1, (), frozenset())
        added = told(decoder, head, tokenizer, [head_ids], factors, rest).tokens[0] if rest.max_new_tokens else []
        texts.tokens[0] = [*head_ids[len(prompts[0]) :], *added]
        return texts

    monkeypatch.setattr(self_check, "generate", second_best)
    prompts = [list(prompt.ids) for prompt in prompts_of_records(1, positions=1)]
    with torch.no_grad():
        found = generation_fault(model, decoder, TinyTokenizer(), prompts, rotary_layers(model))
    assert (found is None) if fault is None else (fault in str(found))


def read_by_check(
    monkeypatch: pytest.MonkeyPatch, model: PreTrainedModel, prompts: list[RenderedPrompt]
) -> list[RenderedPrompt]:
    """What the check reads of the prompts; it must find the loop right."""
    read: list[RenderedPrompt] = []
    few = self_check._few

    def noted(*args: Any) -> list[RenderedPrompt]:
        chosen = few(*args)
        read.extend(chosen)
        return chosen

    monkeypatch.setattr(self_check, "_few", noted)
    decoder = Decoder(model, rotary_layers(model))
    with torch.no_grad():
        loop = probe_loop(decoder, prompts, TERMINATORS)
        difference = difference_from_forward(model, loop, rotary_layers(model))
    assert difference is not None
    assert difference < tolerance(model.dtype)
    return read


def sizes(prompts: list[RenderedPrompt]) -> list[int]:
    return [len(prompt.ids) for prompt in prompts]


@pytest.mark.parametrize(
    ("lengths", "read"),
    [
        ([700, 30, 20], [SHORTEST, 30, 20]),
        ([700], [SHORTEST]),
        ([30, 690, 700], [30, SHORTEST - 10, SHORTEST]),
        ([40, 40], [40, 40]),
    ],
)
def test_only_the_ends_of_long_prompts_are_read(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], read: list[int]
) -> None:
    prompts = [prompt_of_length(length) for length in lengths]
    model = tiny_model(max_position_embeddings=1024).double()
    assert sizes(read_by_check(monkeypatch, model, prompts)) == read


def test_neighbours_still_share_a_row_and_answers_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(max_position_embeddings=1024).double()
    prompts = prompts_of_records(1, prefix=600)  # of 612 to 614 tokens
    shortest, longest, neighbour = read_by_check(monkeypatch, model, prompts)
    assert sizes([shortest, longest, neighbour]) == [SHORTEST, SHORTEST, SHORTEST - 2]
    assert longest.ids[:498] == neighbour.ids[:498] == prompts[0].ids[102:600]
    example = Example("r@0", "r", 0, (), ())
    whole = RenderedPrompt(example, prompts[0].ids, 1, "")
    assert read_by_check(monkeypatch, model, [whole])[-1] == whole


def test_where_the_base_follows_the_length_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 16.0}
    model = tiny_model(rope_parameters=scheme, max_position_embeddings=64).double()
    prompts = [prompt_of_length(600), prompt_of_length(30)]
    assert read_by_check(monkeypatch, model, prompts) == prompts


def test_windows_are_read_to_beyond_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("mistral", sliding_window=300, max_position_embeddings=1024).double()
    assert sizes(read_by_check(monkeypatch, model, [prompt_of_length(700)])) == [600]


def test_a_prompt_of_one_token_before_the_answer_can_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model().double()
    assert sizes(read_by_check(monkeypatch, model, [prompt_of([3, 4, 5, 6, 7, 8])])) == [6]


def test_the_factors_of_the_check_differ_in_neighbours_and_are_null_where_they_must() -> None:
    factors = probe_factors(5, [0, 1, 2, 4]).values
    assert factors == (0.9, 1.0, 1.15, None, 1.0)


def test_the_largest_difference_tells_nan_from_agreement() -> None:
    assert largest_difference([0.5, 2.0], [1.0, 2.0]) == 0.5
    assert largest_difference([-5.0], [-4.0]) == 0.25  # relative to what is beyond 1
    assert largest_difference([math.nan, 2.0], [math.nan, 2.0]) == 0.0
    assert largest_difference([math.nan], [1.0]) == math.inf
    assert largest_difference([1.0], [-math.inf]) == math.inf
    assert largest_difference([math.nan], [math.nan]) is None


def test_the_tolerance_follows_the_precision() -> None:
    order = [torch.float64, torch.float32, torch.bfloat16]
    assert [tolerance(dtype) for dtype in order] == sorted(tolerance(dtype) for dtype in order)
    assert tolerance(torch.float16) == tolerance(torch.bfloat16)
