"""What the benchmarks count and compare: FLOPs against torch's own counter, verdicts of baselines, the arithmetic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import flops
import likelihood_signal
import measure
import ours
import paper_search
import racing
import reporting
import workload
from baselines import Baselines
from ropewalk import files
from ropewalk.engine import attention, decoder
from ropewalk.prompts import RenderedPrompt
from ropewalk.search.space import Candidate
from ropewalk.study import CandidateRecord
from scored_prompts import prompts_of_records
from tiny import prompt, tiny_model


def counted(call: Any) -> int:
    """FLOPs by torch's counter, those of the rotary tables (an outer product of positions and frequencies) left out."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    tables = [sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name.endswith("rotary_emb")]
    return counter.get_total_flops() - sum(tables)


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("scored", [20, 3])
def test_a_plain_forward_pass_is_counted_as_torch_counts_it(model_type: str, scored: int) -> None:
    model = tiny_model(model_type, attn_implementation="eager")
    expected = flops.executed_flops(flops.Shape.of(model.config), [flops.whole(20, scored)] * 2, attention="full")
    assert counted(lambda: model(input_ids=prompt(), use_cache=False, logits_to_keep=scored)) == expected


def test_tokens_behind_a_cache_are_counted_as_torch_counts_them() -> None:
    model = tiny_model(attn_implementation="eager")
    ids = prompt(rows=1)
    cache = model(input_ids=ids[:, :12]).past_key_values
    expected = flops.executed_flops(flops.Shape.of(model.config), [flops.Segment(12, 20, 8, 8)], attention="full")
    assert counted(lambda: model(input_ids=ids[:, 12:], past_key_values=cache)) == expected


def test_causal_attention_counts_each_token_against_itself_and_those_before_it() -> None:
    shape = flops.Shape(hidden=8, layers=2, heads=2, kv_heads=1, head_dim=4, intermediate=16, vocabulary=10)
    by_hand = sum(4 * shape.heads * shape.head_dim * (p + 1) for p in range(7))
    by_hand += sum(4 * shape.heads * shape.head_dim * (p + 1) for p in (5, 6))  # the last layer: two queries
    linear = 7 * (shape.kv_flops + shape.rest_flops) + 7 * shape.kv_flops + 2 * shape.rest_flops
    assert flops.executed_flops(shape, [flops.Segment(0, 7, 2, 2)]) == by_hand + linear + 2 * 2 * 8 * 10


def test_what_candidates_have_in_common_counts_once() -> None:
    shape = flops.Shape(hidden=8, layers=3, heads=2, kv_heads=2, head_dim=4, intermediate=16, vocabulary=10)
    groups = flops.candidate_groups([(1.0, 1.0, 1.1), (1.0, 1.0, 1.2), (1.0, 0.9, 1.2)])
    assert groups == [1, 2, 3]
    alone, segments = [1, 1, 1], [flops.whole(5)]
    one = flops.executed_flops(shape, segments, alone)
    assert flops.executed_flops(shape, segments, [3, 3, 3]) == 3 * one
    layer = flops.executed_flops(shape, segments, [2, 1, 1]) - one
    assert flops.executed_flops(shape, segments, groups) == 3 * one - 3 * layer


@pytest.fixture(scope="module")
def scored() -> tuple[Any, Any, list[RenderedPrompt]]:
    """A tiny model, its tokenizer, and prompts of which it answers every other one as it should."""
    model = tiny_model(vocab_size=128, pad_token_id=None, bos_token_id=None, eos_token_id=None)
    tokenizer = workload.plain_tokenizer(128)
    prompts = workload.mdqa_like_prompts(2, 80, 128, seed=3, documents=4, positions=4, answer=3)
    right = []
    for number, one in enumerate(prompts):
        ids = torch.tensor([one.ids[: one.first]])
        for _ in range(3):
            with torch.no_grad():
                ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
        answer = ids[0, one.first :].tolist() if number % 2 else one.ids[one.first :]
        right.append(RenderedPrompt(one.example, (*one.ids[: one.first], *answer), one.first, one.terminator))
    return model, tokenizer, right


def one_after_another(work: Any, parts: Any) -> list[Any]:
    return [work(part) for part in parts]


@pytest.mark.parametrize(("tolerance", "layout"), [(0.0, "random"), (0.05, "shared stems")])
def test_the_engines_products_are_the_ones_that_are_counted(
    scored: Any, tolerance: float, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (attention, decoder):  # a CPU's attention in blocks is made of products, too
        monkeypatch.setattr(module, "takes_blocks", lambda q: False)
    monkeypatch.setattr(decoder, "side_by_side", one_after_another)  # in the counter's thread
    model, tokenizer, _ = scored
    # The random ones share nothing and have no padding: to the last FLOP.
    prompts = workload.random_prompts(4, 60, 5, 128, seed=0) if layout == "random" else prompts_of_records(2, prefix=90)
    scorer = ours.Scorer(model, tokenizer, prompts, compiled=False)
    chosen = workload.candidates(4, 3, seed=1, skip_first=1)
    scorer.score(chosen)  # its check against model.forward is not counted
    assert scorer.reason is None
    plan = ours.executed(scorer, chosen, "none")
    assert (plan.token_share < 1) == (layout == "shared stems")
    assert plan.layer_share == pytest.approx((1 + 3 + 3 + 3) / 12)
    with FlopCounterMode(display=False) as counter:
        scorer.score(chosen)
    products = counter.get_flop_counts()["Global"]
    attended = sum(count for op, count in products.items() if "attention" in str(op))
    assert counter.get_total_flops() - attended == pytest.approx(plan.flops, rel=tolerance)


def test_baselines_and_engine_give_the_same_verdicts(scored: Any) -> None:
    model, tokenizer, prompts = scored
    expected = [number % 2 == 1 for number in range(len(prompts))]
    baselines = Baselines(model, tokenizer)
    mixed = [*prompts[:4], *workload.random_prompts(2, 30, 3, 128, seed=1)]  # other lengths, so that there is padding
    for outcomes in (
        baselines.generate(mixed),
        baselines.forward(mixed, "left"),
        baselines.forward(mixed, "right"),
        baselines.forward(mixed, "right", full_logits=False),
    ):
        assert [outcome.verdict for outcome in outcomes[:4]] == expected[:4]
    (scores,) = ours.Scorer(model, tokenizer, prompts).score([None])
    assert [score.verdict for score in scores] == expected


def test_prompts_laid_out_as_mdqa_keep_the_documents_and_their_order() -> None:
    prompts = workload.mdqa_like_prompts(1, 200, 512, seed=0)
    assert [one.example.gold_index for one in prompts] == [0, 2, 4, 7, 9]
    assert {len(one.ids) for one in prompts} == {200}
    assert len({tuple(sorted(one.ids)) for one in prompts}) == 1
    common = [a == b for a, b in zip(prompts[3].ids, prompts[4].ids, strict=True)].index(False)
    assert common >= 40 + 7 * 13  # the instruction and seven documents


def test_ratios_are_of_rates_within_a_repeat() -> None:
    fast, slow = (
        measure.Timings(work=[10, 10, 10], seconds=[1, 2, 4]),
        measure.Timings(work=[1, 1, 1], seconds=[1, 1, 2]),
    )
    assert measure.ratio(fast, slow) == {"median": 5.0, "low": 5.0, "high": 10.0}
    assert measure.share_of_ceiling(8.0, fast, slow) == {"median": 4.0, "low": 4.0, "high": 8.0}


def test_arms_take_turns_and_every_one_is_warmed_up() -> None:
    calls: list[str] = []
    arms = {name: lambda repeat, name=name: calls.append(f"{name}{repeat}") or 1.0 for name in "ab"}
    timings = measure.interleave(arms, 2, torch.device("cpu"))  # type: ignore[arg-type]
    assert calls == ["a0", "b0", "a0", "b0", "b1", "a1"]
    assert [len(timing.rates) for timing in timings.values()] == [2, 2]


def test_the_extrapolation_of_a_search_holds_its_interval() -> None:
    chunks = [{"work": 10, "seconds": seconds} for seconds in (1.0, 1.2, 1.1)]
    found = paper_search.extrapolate(chunks, 6000)
    assert found["minutes"] == pytest.approx(11.0)
    half = 4.302653 * 0.01 / 3**0.5 * 100
    assert (found["low"], found["high"]) == (pytest.approx(11 - half, rel=1e-4), pytest.approx(11 + half, rel=1e-4))


def test_a_report_says_what_was_run_on_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/benchmarks/mfu.py", "--out", str(tmp_path / "mfu.json")])
    reporting.report("mfu", 3, torch.device("cpu"), {"value": 1.5}, tmp_path / "mfu.json")
    found = files.read_json(tmp_path / "mfu.json")
    assert found["command"] == "python benchmarks/mfu.py --out mfu.json"
    assert found["versions"]["torch"] == torch.__version__
    assert (found["seed"], found["value"], found["hardware"]["device_type"]) == (3, 1.5, "cpu")


def raced(generation: int, slot: int, records: int, prompts: int | None = None) -> CandidateRecord:
    scored = records * 5 if prompts is None else prompts
    rows = (tuple(range(records)),)
    return CandidateRecord(generation, slot, Candidate(((0.0, 1.0), (1.0, 1.0))), 0.0, rows=rows, prompts=scored)


def test_the_calls_of_a_race_are_those_still_in_it_on_each_stage() -> None:
    """Before there is a rival a group is one call; what is repeated or failed before it was scored is in none."""
    history = [raced(-1, 0, 8), raced(0, 0, 8, prompts=0), raced(0, 1, 8), raced(0, 2, 8)]
    history += [raced(1, 0, 4), raced(1, 1, 8), raced(1, 2, 6), raced(1, 3, 4)]
    expected = [(1, 0, 8), (1, 0, 8), (1, 0, 8), (2, 0, 4), (1, 4, 6), (1, 6, 8), (2, 0, 4), (1, 4, 6)]
    assert racing.schedule(reversed(history), 8, at_once=2) == expected
    assert sum(alive * (stop - start) for alive, start, stop in expected) == sum(r.prompts for r in history) / 5


def test_raced_searches_are_read_from_their_report(tmp_path: Path) -> None:
    arms = [("paper", [[2, 0, 4], [1, 4, 8]]), ("paper", [[2, 0, 8]]), ("paper, our bounds", [[9, 0, 8]])]
    pairs = [{"kind": kind, "raced": {"calls": calls}} for kind, calls in arms]
    files.write_json(tmp_path / "racing.json", {"pairs": pairs})
    found = paper_search.raced_calls(tmp_path / "racing.json", 8)
    assert (found.searches, found.records) == (2, 14)
    assert found.calls == [(2, 0, 4), (1, 4, 8), (2, 0, 8)]
    with pytest.raises(SystemExit, match="raced on 8 records, expected 40"):
        paper_search.raced_calls(tmp_path / "racing.json", 40)


def test_the_extrapolation_holds_for_chunks_of_different_sizes() -> None:
    chunks = [{"work": work, "seconds": work / 20} for work in (100, 700, 50)]
    assert paper_search.extrapolate(chunks, 1200) == pytest.approx({"minutes": 1.0, "low": 1.0, "high": 1.0})


def test_a_correlation_over_candidates_with_its_interval() -> None:
    """Spearman's over candidates' means; every draw of records ranks them alike where each record does."""
    accuracy = np.arange(12.0)[:, None, None] + np.zeros((12, 5, 3))
    assert likelihood_signal.correlation(accuracy**3, accuracy, 0) == pytest.approx({"median": 1, "low": 1, "high": 1})
    rng = np.random.default_rng(0)
    noisy = rng.normal(size=(12, 40, 3))
    other = noisy + rng.normal(size=(12, 40, 3))
    found = likelihood_signal.correlation(noisy, other, 0)
    spearman = stats.spearmanr(noisy.mean(axis=(1, 2)), other.mean(axis=(1, 2))).statistic
    assert found is not None
    assert found["median"] == pytest.approx(spearman)
    assert -1 <= found["low"] < found["median"] < found["high"] <= 1
    assert likelihood_signal.correlation(noisy, np.zeros((12, 40, 3)), 0) is None
    assert likelihood_signal.correlation(noisy * np.nan, noisy, 0) is None


def test_candidates_of_the_signal_spread_from_near_1_to_far_off() -> None:
    chosen = likelihood_signal.chosen_candidates(24, 8, 0)
    assert len(chosen) == 37 >= 30
    near = [one for one in chosen if likelihood_signal.is_near(one)]
    assert chosen[0] in near
    assert 8 + 5 <= len(near) < 20
