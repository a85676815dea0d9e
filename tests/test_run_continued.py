"""Searches that are interrupted, killed and continued end as if they had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import StudyError
from ropewalk.factors import ScalingFactors
from ropewalk.run import Baseline, Evaluated, Scored, SearchResult, Stage
from ropewalk.study import open_study
from run_faults import CANDIDATES, Stop, same_end, stored_settings
from small_search import SPACE, CountingEvaluator, accuracy, evaluator, plan, search


@pytest.mark.parametrize(("kind", "count"), [(Stage, 1), (Scored, 1), (Scored, 6), (Evaluated, 3), (Evaluated, 7)])
def test_an_interrupted_search_ends_as_if_it_had_not_been(
    tmp_path: Path,
    on_search: CountingEvaluator,
    on_validation: CountingEvaluator,
    uninterrupted: tuple[SearchResult, Path],
    kind: type,
    count: int,
) -> None:
    reused = plan()
    with pytest.raises(KeyboardInterrupt):
        search(reused, on_search, on_validation, tmp_path, Stop(kind, count))
    with open_study(tmp_path, stored_settings(tmp_path)) as study:
        kept = len({SPACE.factors(record.candidate).values for record in study.records().values()})
    on_search.calls = 0
    result = search(reused, on_search, on_validation, tmp_path)  # the very plan that was interrupted
    assert on_search.calls == CANDIDATES - kept
    same_end(result, tmp_path, uninterrupted)


def test_interrupted_among_the_finalists(
    tmp_path: Path,
    on_search: CountingEvaluator,
    on_validation: CountingEvaluator,
    uninterrupted: tuple[SearchResult, Path],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(plan(), on_search, on_validation, tmp_path, Stop(Scored, CANDIDATES + 2))
    on_search.calls = on_validation.calls = 0
    same_end(search(plan(), on_search, on_validation, tmp_path), tmp_path, uninterrupted)
    assert (on_search.calls, on_validation.calls) == (0, 2)


def test_a_finished_search_is_not_scored_again(
    tmp_path: Path,
    on_search: CountingEvaluator,
    on_validation: CountingEvaluator,
    uninterrupted: tuple[SearchResult, Path],
) -> None:
    search(plan(), on_search, on_validation, tmp_path)
    on_search.calls = on_validation.calls = 0
    events: list[Any] = []
    same_end(search(plan(), on_search, on_validation, tmp_path, events.append), tmp_path, uninterrupted)
    assert (on_search.calls, on_validation.calls) == (0, 0)
    assert [event for event in events if not isinstance(event, Baseline)] == [Stage("Search", 0), Stage("Finalists", 0)]


def test_factors_are_rebuilt_from_the_study(
    tmp_path: Path, on_search: CountingEvaluator, uninterrupted: tuple[SearchResult, Path]
) -> None:
    """A kill between a record and the file, or somebody's hand: the study is the truth."""
    with pytest.raises(KeyboardInterrupt):
        search(plan(), on_search, None, tmp_path, Stop(Evaluated, 8))
    best = ScalingFactors.load(tmp_path / "factors.json")
    (tmp_path / "factors.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        search(plan(), on_search, None, tmp_path, Stop(Scored, 1))
    assert ScalingFactors.load(tmp_path / "factors.json").values == best.values


def test_other_settings_are_refused(tmp_path: Path, loaded: tuple[Any, Any], on_search: CountingEvaluator) -> None:
    search(plan(), on_search, None, tmp_path)
    before = (tmp_path / "factors.json").read_bytes()
    for message, other in {
        "method.seed: 0 -> 1": (plan(seed=1), on_search),
        "method.generations: 3 -> 4": (plan(generations=4), on_search),
        "objective.parts.0.measure: 'likelihood' -> 'accuracy'": (plan(objective=accuracy()), on_search),
        "tasks.0.seed: 0 -> 5": (plan(), evaluator(*loaded, seed=5)),
        "tasks.0.sha256": (plan(), evaluator(*loaded, "test")),
        "racing: False -> True": (plan(racing=True), on_search),
        "budget: None -> 900": (plan(budget=900), on_search),
        "seconds: None -> 60": (plan(seconds=60), on_search),
    }.items():
        with pytest.raises(StudyError, match=message):
            search(other[0], other[1], None, tmp_path)
    assert (tmp_path / "factors.json").read_bytes() == before


def test_another_version_of_the_method_is_refused(tmp_path: Path, on_search: CountingEvaluator) -> None:
    """Equal settings, other proposals: the records would be taken for candidates they are not of."""
    search(plan(), on_search, None, tmp_path)
    changed = plan()
    changed.method.ask(1)
    with pytest.raises(StudyError, match="another version of the search method"):
        search(changed, on_search, None, tmp_path)
