"""A search beside whose candidates others are scored, and whose answers arrive in any order, is the same search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shuffled import ShuffledAnswerers

from ropewalk import evaluate, identity, provenance
from ropewalk.checkpoint import load_pretrained
from ropewalk.elsewhere import hand_over, holders_of
from ropewalk.errors import RopewalkError
from ropewalk.evaluate import Evaluator
from ropewalk.events import Evaluated
from ropewalk.patch import layer_reports, remove
from ropewalk.run import SearchPlan
from ropewalk.search.bezier_ga import BezierGA
from run_faults import Stop, content, same_end
from small_search import PLANS, SPACE, evaluator, plan, search


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records a block."""
    monkeypatch.setattr(evaluate, "BLOCK_TOKENS", 400)


def elsewhere(path: Path, loaded: tuple[Any, Any], seed: int) -> tuple[Any, Any]:
    """The tiny model without weights, whose holder answers in the order of a seed."""
    model, tokenizer = load_pretrained(path, weights=False, apply_factors=False)
    hand_over(model, ShuffledAnswerers(*loaded, seed))
    return model, tokenizer


def both(loaded: tuple[Any, Any], records: int, **options: Any) -> tuple[Any, Any]:
    return evaluator(*loaded, records=records, **options), evaluator(*loaded, "validation", records=records, **options)


@pytest.mark.parametrize("method", ["default", "bezier-ga", pytest.param("smooth-cma", marks=pytest.mark.slow)])
def test_the_same_study(method: str, tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path) -> None:
    make, records = PLANS[method]
    one = make(at_once=1, racing=True)
    own = search(one, *both(loaded, records), tmp_path / "own")
    away = elsewhere(tiny_path, loaded, 1)
    other = search(one, *both(away, records), tmp_path / "away")
    same_end(own, tmp_path / "own", (other, tmp_path / "away"))
    assert max(holders_of(away[0]).log) > 3  # they were beside one another


@pytest.mark.parametrize("budget", [47, 80])
def test_a_budget_ends_it_at_the_same_candidate(
    budget: int, tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    """Racing makes room for candidates that could not be planned."""
    one = plan(budget=budget, racing=True, population=6, generations=4)
    ends = []
    for name, where in (("own", loaded), ("away", elsewhere(tiny_path, loaded, budget))):
        result = search(one, evaluator(*where, records=5), None, tmp_path / name)
        ends.append([content(record) for record in result.records])
    assert ends[0] == ends[1]


def test_what_fails_does_so_for_itself_alone(tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path) -> None:
    where = elsewhere(tiny_path, loaded, 3)
    on = evaluator(*where, records=4)
    source = holders_of(where[0]).source(on._source.questions)
    answers, calls = source.answers, []

    def sometimes(blocks: Any, candidates: Any, *more: Any) -> Any:
        calls.append(candidates)
        if candidates[0].values[0] > 1.1:
            raise RuntimeError("on purpose")
        return answers(blocks, candidates, *more)

    source.answers = sometimes
    result = search(plan(), on, None, tmp_path)
    failed = [record for record in result.records if record.failed]
    assert 0 < len(failed) < len(result.records) / 2
    for record in result.records:
        assert record.failed == (SPACE.factors(record.candidate).values[0] > 1.1)
    assert all("RuntimeError: on purpose" in (record.error or "") for record in failed)


def test_a_search_that_keeps_failing_stops_at_the_same_candidate(
    tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    """Workers have scored later candidates by then, which don't count yet."""
    told = []
    for name, where in (("own", loaded), ("away", elsewhere(tiny_path, loaded, 3))):
        on = evaluator(*where)
        source = holders_of(where[0]).source(on._source.questions) if name == "away" else on._source
        answers, order = source.answers, [SPACE.factors(one).values for one in plan(population=12).method.ask()]

        def first_ones(blocks: Any, candidates: Any, *more: Any, answers: Any = answers, order: Any = order) -> Any:
            if not candidates[0].is_identity and candidates[0].values in order[:6]:
                raise RuntimeError("on purpose")
            return answers(blocks, candidates, *more)

        source.answers = first_ones
        with pytest.raises(RopewalkError, match="candidates failed, so the search stops") as raised:
            search(plan(population=12), on, None, tmp_path / name)
        told.append(str(raised.value))
    assert told[0] == told[1]


def test_a_stop_cancels_what_nobody_waits_for(tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path) -> None:
    where = elsewhere(tiny_path, loaded, 4)
    with pytest.raises(KeyboardInterrupt):
        search(plan(), evaluator(*where), None, tmp_path, Stop(Evaluated, 2))
    jobs = holders_of(where[0]).jobs
    assert any(job.cancelled for job in jobs)
    again = elsewhere(tiny_path, loaded, 5)
    continued = search(plan(), evaluator(*again), None, tmp_path)
    whole = search(plan(), evaluator(*loaded), None, tmp_path / "whole")
    same_end(continued, tmp_path, (whole, tmp_path / "whole"))


class Twice(BezierGA):
    """A first generation with a candidate in it twice."""

    def born(self) -> list[Any]:
        members = super().born()
        if self.generation > 0:
            return members
        again = SPACE.layerwise([value or 1.0 for value in SPACE.factors(members[1]).values])
        return [*members[:2], again, *members[2:]]


def test_a_candidate_that_comes_again_is_scored_once(tiny_path: Path, loaded: tuple[Any, Any], tmp_path: Path) -> None:
    ends = []
    for name, where in (("own", loaded), ("away", elsewhere(tiny_path, loaded, 6))):
        method = Twice(SPACE, 0, population=5, parents=3, mutations=2, crossovers=2, generations=2)
        base = plan()
        one = SearchPlan(SPACE, method, base.objective, 2)
        result = search(one, evaluator(*where), None, tmp_path / name)
        ends.append([content(record) for record in result.records])
    assert ends[0] == ends[1]


def test_a_model_without_weights_says_what_its_holder_says(tiny_path: Path, loaded: tuple[Any, Any]) -> None:
    model, tokenizer = elsewhere(tiny_path, loaded, 0)
    assert all(weight.is_meta for weight in model.parameters())
    remove(model)
    assert identity.model_identity(model) == identity.model_identity(loaded[0])
    assert identity.base_scheme(model) == identity.base_scheme(loaded[0])
    assert provenance.provenance(model) == provenance.provenance(loaded[0])
    assert layer_reports(model) == layer_reports(loaded[0])
    away, own = evaluator(model, tokenizer), evaluator(*loaded)
    factors = SPACE.factors(SPACE.level(1.2))
    told: list[int] = []
    found = away.score_many([None, factors], on_progress=told.append)
    expected = own.score_many([None, factors])
    for one, other in zip(found, expected, strict=True):
        assert one.to_dict() == other.to_dict()
    assert sum(told) == 2 * len(away.examples)
    assert away.engine == own.engine


def test_blocks_hold_whole_records_and_all_of_them(loaded: tuple[Any, Any]) -> None:
    on = evaluator(*loaded, records=7)
    assert len(on.blocks) > 1
    assert [number for block in on.blocks for number in block] == list(range(14))
    assert all(len(block) % 2 == 0 for block in on.blocks)
    part = on.part((1, 4, 5))
    assert [number for block in part.blocks for number in block] == [2, 3, 8, 9, 10, 11]
    assert [number for block in part.part((1,)).blocks for number in block] == [8, 9]
    both = part.score_many([None])[0]
    assert both.to_dict() == Evaluator(*loaded, on.task, part.examples).score_many([None])[0].to_dict()


def test_only_a_model_that_is_elsewhere_is_asked_without_waiting(loaded: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match="in this process"):
        evaluator(*loaded).begin([None], lambda count: None)
    assert not issubclass(TypeError, RopewalkError)
