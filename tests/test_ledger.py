"""The ledger: fitness as an oracle computes it, prompts counted exactly, and races that only the clearly worse lose."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from scipy.stats import sem
from scipy.stats import t as student

from ropewalk.errors import StudyError
from ropewalk.evaluate import Evaluator
from ropewalk.factors import ScalingFactors
from ropewalk.ledger import BASELINE, Ledger, Member
from ropewalk.objectives import Objective, Part, PositionFloor, ShortTextLimit
from ropewalk.results import TaskResult
from ropewalk.search.space import Candidate
from ropewalk.study import CandidateRecord, open_study
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions
from run_faults import content
from small_search import SPACE, CountingEvaluator, Fault, evaluator, plan, search

GROUP = [Member(0, slot, SPACE.level(factor)) for slot, factor in enumerate((1.1, 0.9, 1.2, 0.85))]
MIX = Objective(
    (Part(name="near", share=2.0), Part(kind="worst", name="far")), PositionFloor(0.0, weight=2), ShortTextLimit(0.0)
)


@contextmanager
def ledger(
    out: Path, on: list[Evaluator], objective: Objective | None = None, short: Evaluator | None = None
) -> Iterator[Ledger]:
    with open_study(out, {"what": "a ledger"}) as study:
        opened = Ledger(study, "search", on, SPACE, objective or Objective(), lambda event: None, short=short)
        opened.score_baseline()
        yield opened


def landscape(
    best: float, *, by_position: tuple[float, float] = (0.0, 0.0), at: float = 0.0, noise: float = 0.02
) -> Fault:
    """Log-likelihoods that fall with the distance of the mean factor from `best`, with noise that a record keeps.

    by_position: added for factors whose mean is `at`.
    """

    def changed(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        mean = float(np.nanmean(factors.to_array()))
        own = [np.random.default_rng(zlib.crc32(f"{record}{factors.values}".encode())) for record in result.records]
        values = np.stack([rng.normal(size=2) * noise - 20 * abs(mean - best) for rng in own])
        return replace(result, log_likelihoods=values + np.multiply(by_position, abs(mean - at) < 1e-9))

    return changed


def pair(loaded: tuple[Any, Any], text: Path) -> tuple[list[Evaluator], Evaluator]:
    """Two tasks of different sizes, and short texts."""
    near = evaluator(*loaded, records=3)
    far = evaluator(*loaded, records=5, keys=2, positions=(0, 1))
    text.write_text("".join(chr(97 + (number * number) % 23) for number in range(4000)))
    texts = make_task("perplexity", TaskOptions(data=str(text), limit=2, positions=2, options={"window": 40}))
    return [near, far], CountingEvaluator(*loaded, texts, texts.examples("search"))


# Fitness -------------------------------------------------------------------------------------------------------------


def beyond_noise(losses: np.ndarray) -> np.ndarray:
    """Mean over records less Student's t times its standard error, [records, positions] -> [positions]."""
    return losses.mean(axis=0) - student.isf(0.05, len(losses) - 1) * sem(losses, axis=0)


def mix_oracle(on: list[Evaluator], short: Evaluator, candidate: Candidate) -> tuple[float, dict[str, float]]:
    """Fitness and penalties in plain float64, from evaluations of their own."""
    factors = SPACE.factors(candidate)
    near, far = (one.score(factors).log_likelihoods for one in on)
    near_vanilla, far_vanilla = (one.score(None).log_likelihoods for one in on)
    near_scale, far_scale = near_vanilla.std(), far_vanilla.std()
    gained = (near - near_vanilla).mean(axis=0)
    gain = 2 / 3 * (0.8 * gained[0] + 1.2 * gained[1]) / 2 / near_scale
    gain += 1 / 3 * (far.mean(axis=0).min() - far_vanilla.mean(axis=0).min()) / far_scale
    near_lost, far_lost = beyond_noise(near_vanilla - near), beyond_noise(far_vanilla - far)
    lost = {f"position @{place} of near": 2 * loss / near_scale for place, loss in zip((0, 2), near_lost, strict=True)}
    lost |= {f"position @{place} of far": 2 * loss / far_scale for place, loss in zip((0, 1), far_lost, strict=True)}
    log_ratios = (short.score(None).log_likelihoods - short.score(factors).log_likelihoods).mean(axis=1, keepdims=True)
    lost["short-text perplexity"] = 100 * np.expm1(beyond_noise(log_ratios)[0])
    penalties = {name: float(loss) for name, loss in lost.items() if loss > 0}
    return float(gain - sum(penalties.values())), penalties


def test_a_mix_with_constraints_is_what_an_oracle_computes(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    on, short = pair(loaded, tmp_path / "text.txt")
    with ledger(tmp_path / "run", on, MIX, short) as book:
        whole = 3 * 2 + 5 * 2 + len(short.examples)
        assert (book.cost(book.all_rows), book.evaluations) == (whole, whole)
        records = book.score(GROUP[:2], book.all_rows)
        assert book.evaluations == 3 * whole
    for record in records:
        fitness, penalties = mix_oracle(on, short, record.candidate)
        assert record.fitness == pytest.approx(fitness, abs=1e-5)
        assert dict(record.penalties) == pytest.approx(penalties, abs=1e-5)
        assert (record.prompts, record.rows) == (whole, ((0, 1, 2), (0, 1, 2, 3, 4)))
        assert [found.positions for found in record.found] == [(0, 2), (0, 1), short.task.positions]
    assert any(record.penalties for record in records)


def test_the_details_of_a_fitness(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    """Gain without penalties, and the losses of each constraint in turn, also of factors that were scored before."""
    on, short = pair(loaded, tmp_path / "text")
    twin = Member(1, 0, Candidate(SPACE.level(1.1).control_points, (0.0,) * 4))
    with ledger(tmp_path / "run", on, MIX, short) as opened:
        record, again = opened.score([GROUP[0]], opened.all_rows)[0], opened.score([twin], opened.all_rows)[0]
        detail = opened.detail(record)
        assert detail is not None
        assert not again.found
        assert opened.detail(again) == detail
        assert detail.gain == pytest.approx(record.fitness + sum(record.penalties.values()))
        lost = [
            (one.score(None).log_likelihoods - one.score(record_factors()).log_likelihoods).mean(axis=0) for one in on
        ]
        assert detail.losses[:4] == pytest.approx(np.concatenate(lost), abs=1e-9)
        ratio = (short.score(None).log_likelihoods - short.score(record_factors()).log_likelihoods).mean()
        assert detail.losses[4] == pytest.approx(100 * np.expm1(ratio), abs=1e-6)
        assert detail.limits == (0.0,) * 5
        assert opened.detail(replace(record, fitness=float("nan"))) is None
        vanilla = opened.detail(opened.records[BASELINE])
        assert vanilla is not None
        assert vanilla.losses == (0.0,) * 5


def record_factors() -> ScalingFactors:
    return SPACE.factors(GROUP[0].candidate)


def test_a_ledger_that_is_opened_again_knows_all_and_names_positions(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    on, short = pair(loaded, tmp_path / "text.txt")
    with_parents = replace(GROUP[1], parents=((0, 0), BASELINE))
    with ledger(tmp_path / "run", on, MIX, short) as book:
        book.score([GROUP[0]], book.all_rows)
        book.score([with_parents], book.all_rows)
        known = {place: content(record) for place, record in book.records.items()}
        late = book.score([GROUP[2]], book.all_rows)[0]
    with ledger(tmp_path / "other", on, MIX, short) as book:
        book.score([GROUP[0]], book.all_rows)
    with ledger(tmp_path / "other", on, MIX, short) as book:
        book.score([with_parents], book.all_rows)
        assert {place: content(record) for place, record in book.records.items()} == known
        assert book.records[0, 1].parents == ((0, 0), BASELINE)
        assert content(book.score([GROUP[2]], book.all_rows)[0]) == content(late)


def test_vanilla_is_subtracted_on_the_same_rows(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    on = evaluator(*loaded, records=6)
    with ledger(tmp_path, [on]) as book:
        (record,) = book.score(GROUP[:1], ((1, 4),))
    gained = on.score(SPACE.factors(GROUP[0].candidate)).log_likelihoods - on.score(None).log_likelihoods
    assert record.fitness == pytest.approx(gained[[1, 4]].mean(axis=0) @ [0.4, 0.6], abs=1e-6)
    assert (record.rows, record.prompts) == (((1, 4),), 4)


# What is not scored again --------------------------------------------------------------------------------------------


def test_the_identity_is_scored_once(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    on = evaluator(*loaded, records=6)
    identity = SPACE.identity()
    with ledger(tmp_path, [on]) as book:
        assert book.missing([Member(0, 0, identity)], ((0, 3),)) == []
        for slot, rows in enumerate((((0, 3),), book.all_rows, ((0, 3),))):
            (record,) = book.score([Member(0, slot, identity)], rows)
            assert (record.fitness, record.prompts, record.rows) == (0.0, 0, rows)
        assert on.calls == 1
        assert [len(book.records[0, slot].found) for slot in range(3)] == [1, 0, 0]  # twins have no scores of their own
        (behind,) = book.score([Member(1, 0, SPACE.level(0.9))], ((0, 3),), rival=identity)  # it can be a rival
        assert behind.fitness != 0


def test_equal_factors_are_scored_once_on_the_same_rows(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    on = evaluator(*loaded, records=4)
    with ledger(tmp_path, [on]) as book:
        (first,) = book.score(GROUP[:1], book.all_rows)
        again = replace(GROUP[0], generation=3, parents=((0, 1),))
        assert book.missing([again], book.all_rows) == []
        (second,) = book.score([again], book.all_rows)
        assert (second.fitness, second.prompts, second.seconds, second.found) == (first.fitness, 0, 0.0, ())
        assert second.parents == ((0, 1),)
        assert book.missing([replace(again, generation=4)], ((0, 1),)) != []
        assert on.calls == 2
        with pytest.raises(StudyError, match="generation 3, slot 0 differs"):
            book.score([replace(GROUP[1], generation=3, slot=0)], book.all_rows)


@pytest.mark.parametrize("racing", [False, True])
def test_a_group_that_a_kill_left_half_written(loaded: tuple[Any, Any], tmp_path: Path, racing: bool) -> None:
    """The missing ones are scored in the same company: the end is the same to the bit."""
    on = evaluator(*loaded, records=12)
    rival = SPACE.level(1.15)

    def score(book: Ledger) -> list[CandidateRecord]:
        book.score([Member(0, 9, rival)], book.all_rows)
        return book.score(GROUP, book.all_rows, rival if racing else None)

    with ledger(tmp_path / "whole", [on]) as book:
        whole = score(book)
        kept = [book.records[place] for place in (BASELINE, (0, 9), (0, 0), (0, 1))]
    for written in range(1, len(kept) + 1):
        out = tmp_path / str(written)
        with open_study(out, {"what": "a ledger"}) as study:
            for record in kept[:written]:
                study.add(record)
        with ledger(out, [on]) as book:
            assert [content(record) for record in score(book)] == [content(record) for record in whole]
            assert len(book.study.records()) == len(book.records) == 6


# Races ---------------------------------------------------------------------------------------------------------------


def test_a_clearly_worse_one_stops_early_and_a_better_one_never(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    on = evaluator(*loaded, records=16)
    on.fault = landscape(1.1)
    with ledger(tmp_path, [on]) as book:
        rival = book.score([Member(0, 9, SPACE.level(1.05))], book.all_rows)[0]
        better, worse, equal, worst = book.score(
            [Member(1, slot, SPACE.level(factor)) for slot, factor in enumerate((1.1, 0.9, 1.15, 0.8))],
            book.all_rows,
            rival.candidate,
        )
        assert not better.stopped
        assert not equal.stopped
        assert (better.prompts, equal.prompts) == (32, 32)
        assert worse.stopped
        assert worst.stopped
        assert (worse.prompts, worse.rows) == (8, (tuple(range(4)),))
        assert worst.fitness < worse.fitness < rival.fitness < better.fitness
        assert book.record_of(worse.candidate) is None  # nobody's twin, and no finalist
        assert book.best().candidate == better.candidate
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/study.db").get_trials()
    states = {trial.user_attrs["record"]["candidate"]["control_points"][0][1]: trial.state.name for trial in stored[1:]}
    assert states == {1.05: "COMPLETE", 1.1: "COMPLETE", 0.9: "PRUNED", 1.15: "COMPLETE", 0.8: "PRUNED"}
    assert stored[3].user_attrs["record"]["rows"] == [[0, 1, 2, 3]]
    assert stored[3].value == worse.fitness


def test_a_task_of_few_records_is_read_once_in_a_race(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    few, many = evaluator(*loaded, records=4), evaluator(*loaded, records=24, seed=1)
    with ledger(tmp_path, [few, many], Objective((Part(name="few"), Part(name="many")))) as book:
        rival = book.score([Member(0, 9, SPACE.level(1.05))], book.all_rows)[0]
        few.calls = 0
        records = book.score(GROUP, book.all_rows, rival.candidate)
        assert few.calls == len(GROUP)
        for record in records:
            assert record.rows[0] == (0, 1, 2, 3)
            assert record.prompts == 2 * sum(len(own) for own in record.rows)
            assert record.stopped or record.rows == book.all_rows


def test_whoever_loses_less_to_constraints_is_not_stopped_by_a_rival_of_more_gain(
    loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    on = evaluator(*loaded, records=16)
    on.fault = landscape(1.0, by_position=(-1.0, 3.0), at=1.01)
    with ledger(tmp_path, [on], Objective(floor=PositionFloor(0.5))) as book:
        rival = book.score([Member(0, 9, SPACE.level(1.01))], book.all_rows)[0]
        assert rival.penalties
        near, far = book.score(
            [Member(1, slot, SPACE.level(factor)) for slot, factor in enumerate((0.995, 0.5))],
            book.all_rows,
            rival.candidate,
        )
        assert not near.stopped
        assert near.fitness > rival.fitness
        assert far.stopped
        assert far.fitness < rival.fitness


@pytest.mark.parametrize("seed", range(3))
def test_racing_costs_less_and_finds_the_same(loaded: tuple[Any, Any], tmp_path: Path, seed: int) -> None:
    results = []
    for racing in (False, True):
        on = evaluator(*loaded, records=12)
        on.fault = landscape(1.12)
        chosen = plan(seed=seed, racing=racing, at_once=3, population=8, mutations=3, crossovers=3, generations=4)
        results.append(search(chosen, on, None, tmp_path / str(racing)))
    whole, raced = results
    assert raced.factors.values == whole.factors.values
    assert raced.stopped > 0 == whole.stopped
    assert raced.evaluations < whole.evaluations == (8 + 3 * 6) * 24
