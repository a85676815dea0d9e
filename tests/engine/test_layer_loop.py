"""The own loop's batches: their size and their candidates change no score, and running out of memory loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ropewalk.engine.candidates import Factors
from ropewalk.engine.decoder import Decoder
from ropewalk.engine.layer_loop import LayerLoop
from ropewalk.engine.memory import Budget
from ropewalk.engine.scoring import AnswerScore
from ropewalk.errors import RopewalkError
from ropewalk.patch import rotary_layers
from ropewalk.prompts import RenderedPrompt
from scored_prompts import ENDS, assert_equal_scores, oracle, out_of_memory, prompt_of_length, prompts_of_records
from tiny import tiny_model

VANILLA = (None,) * 4
DIFFERENT = (1.2, 0.9, 0.95, 1.1)
ALIKE = (1.2, 0.9, 0.95, 1.0)
TERMINATORS = {'"': tuple(ENDS), "": ()}


def loop(model: PreTrainedModel, prompts: Sequence[RenderedPrompt], tokens: int) -> LayerLoop:
    return LayerLoop(Decoder(model, rotary_layers(model)), prompts, TERMINATORS, Budget(tokens))


def scores(of: LayerLoop, candidates: Sequence[Factors]) -> list[list[AnswerScore]]:
    """A list a candidate; every prompt must come once."""
    found: list[dict[int, AnswerScore]] = [{} for _ in candidates]
    with torch.no_grad(), of.ready():
        for numbers, by_candidate in of.score(candidates):
            for known, own in zip(found, by_candidate, strict=True):
                assert not known.keys() & set(numbers)
                known.update(zip(numbers, own, strict=True))
    assert all(sorted(known) == list(range(len(of.prompts))) for known in found)
    return [[known[number] for number in range(len(of.prompts))] for known in found]


def mixed() -> list[RenderedPrompt]:
    """Three rows of four tails, and prompts of 6 to 250 tokens."""
    lengths = (250, 6, 7, 12, 64, 65, 33, 120)
    return [*prompts_of_records(3), *(prompt_of_length(length) for length in lengths)]


def test_the_size_of_batches_changes_no_score() -> None:
    model = tiny_model("gemma3_text", head_dim=16, sliding_window=16).double()
    candidates = [VANILLA, DIFFERENT, ALIKE]
    expected = scores(loop(model, mixed(), 10_000), candidates)
    assert_equal_scores(expected[0], oracle(model, mixed()), 1e-9)
    for tokens in (1, 50, 400):
        for own, wanted in zip(scores(loop(model, mixed(), tokens), candidates), expected, strict=True):
            assert_equal_scores(own, wanted, 1e-9)


@pytest.mark.parametrize(
    "others",
    [
        [],
        [VANILLA],
        [ALIKE, DIFFERENT],
        [(1.2, 1.2, 1.2, 1.2), VANILLA, VANILLA],
        [[0.9 + n / 50] * 4 for n in range(9)],
    ],
)
def test_other_candidates_change_no_score(others: list[Factors]) -> None:
    model = tiny_model().double()
    of = loop(model, mixed(), 400)
    (alone,) = scores(of, [DIFFERENT])
    assert_equal_scores(scores(of, [DIFFERENT, *others])[0], alone, 1e-9)
    assert_equal_scores(scores(of, [*others, DIFFERENT])[-1], alone, 1e-9)


def test_the_same_call_gives_the_same_bits() -> None:
    """Also after another call has been in between."""
    of = loop(tiny_model(), mixed(), 400)
    once = scores(of, [VANILLA, DIFFERENT])
    scores(of, [ALIKE])
    assert scores(of, [VANILLA, DIFFERENT]) == once
    assert scores(loop(tiny_model(), mixed(), 400), [VANILLA, DIFFERENT]) == once


def test_equal_candidates_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    of = loop(tiny_model(), mixed(), 10_000)
    widths: list[int] = []
    hidden = of.decoder.hidden

    def counted(batch: Any, levels: Any, *rest: Any) -> Any:
        widths.append(sum(len(level.factors) for level in levels))
        return hidden(batch, levels, *rest)

    monkeypatch.setattr(of.decoder, "hidden", counted)
    one, two, three = scores(of, [DIFFERENT, VANILLA, DIFFERENT])
    assert one == three != two
    assert set(widths) == {2 * 4}
    widths.clear()
    scores(of, [DIFFERENT, ALIKE])
    assert set(widths) == {4 + 1}


def test_a_batch_that_does_not_fit_is_halved_for_good() -> None:
    model = tiny_model().double()
    expected = oracle(model, mixed())
    of = loop(model, mixed(), 10_000)
    with out_of_memory(of.decoder, "hidden", 400) as failed:
        assert_equal_scores(scores(of, [VANILLA])[0], expected, 1e-9)
        failures = len(failed)
        assert failures > 0
        assert failed == sorted(failed, reverse=True)
        assert of.budget.tokens <= 400
        assert_equal_scores(scores(of, [VANILLA])[0], expected, 1e-9)
        assert len(failed) == failures
    assert failed[0] <= 10_000


def test_memory_may_run_out_later_than_at_the_first_batch() -> None:
    model = tiny_model().double()
    expected = oracle(model, mixed())
    of = loop(model, mixed(), 700)
    found: dict[int, AnswerScore] = {}
    with torch.no_grad(), of.ready():
        steps = of.score([VANILLA])
        numbers, (own,) = next(steps)
        found.update(zip(numbers, own, strict=True))
        with out_of_memory(of.decoder, "hidden", 300) as failed:
            for numbers, (own,) in steps:
                assert not found.keys() & set(numbers)
                found.update(zip(numbers, own, strict=True))
    assert failed
    assert_equal_scores([found[number] for number in range(len(expected))], expected, 1e-9)


def test_candidates_are_split_where_one_row_does_not_fit_with_all() -> None:
    """The longest row has 250 tokens: four candidates fail, one fits."""
    model = tiny_model().double()
    candidates = [VANILLA, DIFFERENT, ALIKE, (1.3, 1.3, 1.3, 1.3), VANILLA]
    prompts = mixed()[12:]
    expected = scores(loop(model, prompts, 10_000), candidates)
    of = loop(model, prompts, 10_000)
    with out_of_memory(of.decoder, "hidden", 260) as failed:
        for own, wanted in zip(scores(of, candidates), expected, strict=True):
            assert_equal_scores(own, wanted, 1e-9)
        failures = len(failed)
        assert any(size == 4 * 250 for size in failed)
        assert of.widest() == 1
        scores(of, [VANILLA])
        assert len(failed) == failures


def test_rows_of_several_prompts_are_cut_where_they_do_not_fit() -> None:
    """A row of four tails has 90 tokens, one of its prompts has 54."""
    model = tiny_model().double()
    prompts = prompts_of_records(3)
    expected = oracle(model, prompts)
    of = loop(model, prompts, 10_000)
    before = len(of.rows)
    with out_of_memory(of.decoder, "hidden", 60) as failed:
        assert_equal_scores(scores(of, [VANILLA])[0], expected, 1e-9)
        failures = len(failed)
        assert_equal_scores(scores(of, [VANILLA])[0], expected, 1e-9)
        assert len(failed) == failures
    assert len(of.rows) > before
    assert sorted(number for row in of.rows for number, _ in row.spans) == list(range(len(prompts)))


def test_the_smallest_batch_that_does_not_fit_is_an_error() -> None:
    of = loop(tiny_model(), mixed(), 10_000)
    with (
        out_of_memory(of.decoder, "hidden", 249),
        pytest.raises(RopewalkError, match="a batch of 250 tokens, the smallest possible one, does not fit"),
    ):
        scores(of, [VANILLA, DIFFERENT])
