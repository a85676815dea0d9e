"""Whole searches on a tiny random llama: what they leave, how they are interrupted, killed, continued and spoilt."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.errors import DataError, FactorsError, RopewalkError, StudyError
from ropewalk.factors import ScalingFactors
from ropewalk.identity import base_scheme, model_identity
from ropewalk.ledger import BASELINE
from ropewalk.objectives import Utilisation
from ropewalk.patch import apply, factors_of, remove
from ropewalk.results import TaskResult
from ropewalk.run import Evaluated, Scored, SearchResult, Stage, final_test, search
from ropewalk.study import CandidateRecord, open_study
from small_search import POSITIONS, SPACE, CountingEvaluator, evaluator, load, plan, whole_search

CANDIDATES = 13  # of the small search, the identity among them
PROMPTS = 4  # 2 records at 2 positions


@pytest.fixture(scope="module")
def loaded(tiny_path: Path) -> tuple[Any, Any]:
    return load(tiny_path)


@pytest.fixture
def on_search(loaded: tuple[Any, Any]) -> CountingEvaluator:
    return evaluator(*loaded)


@pytest.fixture
def on_validation(loaded: tuple[Any, Any]) -> CountingEvaluator:
    return evaluator(*loaded, "validation")


@pytest.fixture(scope="module")
def uninterrupted(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    out = tmp_path_factory.mktemp("uninterrupted")
    return whole_search(tiny_path, out), out


class Stop:
    """Raises at the n-th event of a kind, as Ctrl-C would."""

    def __init__(self, kind: type, count: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.kind, self.left, self.error = kind, count, error

    def __call__(self, event: Any) -> None:
        self.left -= isinstance(event, self.kind)
        if self.left == 0:
            raise self.error("stopped on purpose")


def stored_settings(out: Path) -> dict[str, Any]:
    import optuna

    return optuna.load_study(study_name="search", storage=f"sqlite:///{out}/study.db").user_attrs["settings"]


def content(record: CandidateRecord) -> tuple[Any, ...]:
    """All of a record to the bit, NaN equal to NaN."""
    arrays = [None if array is None else array.tobytes() for array in (record.scores, record.log_likelihoods)]
    return (record.generation, record.slot, record.candidate, np.float64(record.fitness).tobytes(), *arrays)


def same_end(result: SearchResult, out: Path, other: tuple[SearchResult, Path]) -> None:
    assert (out / "factors.json").read_bytes() == (other[1] / "factors.json").read_bytes()
    assert result.factors == other[0].factors
    assert (result.candidate, result.fitness, result.evaluations, result.failed, result.validation) == (
        (other[0].candidate, other[0].fitness, other[0].evaluations, other[0].failed, other[0].validation)
    )
    assert [content(record) for record in result.records] == [content(record) for record in other[0].records]


# What a search leaves ----------------------------------------------------------------------------------------------


def test_a_search_from_start_to_end(uninterrupted: tuple[SearchResult, Path], loaded: tuple[Any, Any]) -> None:
    result, out = uninterrupted
    factors = ScalingFactors.load(out / "factors.json")
    assert factors == result.factors
    assert factors.values == SPACE.factors(result.candidate).values
    factors.check_model(model_identity(loaded[0]), base_scheme(loaded[0]))
    assert factors.found["fitness"] == result.fitness
    assert factors.found["validation"] == result.validation
    assert factors.found["control_points"] == [list(point) for point in result.candidate.control_points]
    assert factors.found["evaluations"] == CANDIDATES * PROMPTS
    assert result.evaluations == CANDIDATES * PROMPTS + 3 * PROMPTS
    assert result.failed == 0
    assert len(result.records) == CANDIDATES + 1  # the identity stands before the first generation and in it
    baseline, twin = result.records[0], result.records[1]
    assert (baseline.generation, baseline.slot) == BASELINE
    assert baseline.candidate == twin.candidate == SPACE.identity()
    assert baseline.fitness == twin.fitness == 0.0


def test_the_fitness_is_the_objective_of_the_real_scores(
    uninterrupted: tuple[SearchResult, Path], on_search: CountingEvaluator
) -> None:
    vanilla = on_search.score(None).log_likelihoods
    for record in uninterrupted[0].records[::4]:
        scored = on_search.score(SPACE.factors(record.candidate))
        gain = (scored.log_likelihoods - vanilla).mean(axis=0)
        assert record.fitness == pytest.approx((0.8 * gain[0] + 1.2 * gain[1]) / 2, abs=1e-12)


def test_settings_name_all_that_decides(uninterrupted: tuple[SearchResult, Path], loaded: tuple[Any, Any]) -> None:
    settings = stored_settings(uninterrupted[1])
    assert settings["model"] == model_identity(loaded[0])
    assert settings["base"] == base_scheme(loaded[0])
    assert settings["dtype"] == "float32"
    assert settings["search"]["task"] == settings["validation"]["task"] == "kv"
    assert settings["search"]["positions"] == list(POSITIONS)
    assert settings["search"]["examples"] == PROMPTS
    assert settings["search"]["sha256"] != settings["validation"]["sha256"]
    assert settings["method"] == plan().method.settings()
    assert settings["objective"] == {"measure": "likelihood", "weights": [0.8, 1.0, 1.2]}
    assert settings["finalists"] == 2


def test_factors_are_written_at_each_improvement(tmp_path: Path, on_search: CountingEvaluator) -> None:
    """At every moment the file is whole and holds the best so far, so a kill leaves it."""
    seen = []

    def check(event: Any) -> None:
        if isinstance(event, Evaluated):
            factors = ScalingFactors.load(tmp_path / "factors.json")
            assert factors.found["fitness"] == event.best
            seen.append((event.record.fitness, event.best))

    search(plan(), on_search, None, tmp_path, on_event=check)
    fitness = [pair[0] for pair in seen]
    assert [pair[1] for pair in seen] == np.maximum.accumulate([0.0, *fitness])[1:].tolist()
    assert len({pair[1] for pair in seen}) > 1


def test_events_add_up(tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator) -> None:
    events: list[Any] = []
    search(plan(), on_search, on_validation, tmp_path, on_event=events.append)
    stages = [event for event in events if isinstance(event, Stage)]
    assert stages == [Stage("Search", CANDIDATES * PROMPTS), Stage("Finalists", 3 * PROMPTS)]
    second = events.index(stages[1])
    assert sum(event.prompts for event in events[:second] if isinstance(event, Scored)) == stages[0].prompts
    assert sum(event.prompts for event in events[second:] if isinstance(event, Scored)) == stages[1].prompts
    assert sum(isinstance(event, Evaluated) for event in events) == CANDIDATES
    assert (on_search.calls, on_validation.calls) == (CANDIDATES, 3)


def test_the_model_is_left_as_it_was(tmp_path: Path, loaded: tuple[Any, Any], on_search: CountingEvaluator) -> None:
    search(plan(generations=1), on_search, None, tmp_path / "bare")
    assert factors_of(loaded[0]) is None
    apply(loaded[0], ScalingFactors.uniform(1.1, 4))
    try:
        carrying = search(plan(generations=1), evaluator(*loaded), None, tmp_path / "carrying")
        assert factors_of(loaded[0]) == ScalingFactors.uniform(1.1, 4)
    finally:
        remove(loaded[0])
    assert carrying.records[0].fitness == 0.0
    assert (tmp_path / "bare/factors.json").read_bytes() == (tmp_path / "carrying/factors.json").read_bytes()


# The choice --------------------------------------------------------------------------------------------------------


def test_the_identity_is_among_the_finalists(uninterrupted: tuple[SearchResult, Path]) -> None:
    result, _ = uninterrupted
    assert result.validation[0]["candidate"] == SPACE.identity().to_json()
    assert result.validation[0]["fitness"] == 0.0
    ranked = sorted(result.records, key=lambda record: -record.fitness)
    assert [row["candidate"] for row in result.validation[1:]] == [one.candidate.to_json() for one in ranked[:2]]
    best = max(result.validation, key=lambda row: row["fitness"])
    assert result.candidate.to_json() == best["candidate"]


def worse(factors: ScalingFactors, result: TaskResult) -> TaskResult:
    """All but the identity lose two nats a token."""
    return result if factors.is_identity else replace(result, log_likelihoods=result.log_likelihoods - 2)


def broken(factors: ScalingFactors, result: TaskResult) -> TaskResult:
    if factors.is_identity:
        return result
    raise RuntimeError("broken on purpose")


def test_the_winner_may_be_the_identity(
    tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator
) -> None:
    on_validation.fault = worse
    result = search(plan(), on_search, on_validation, tmp_path)
    assert result.factors.is_identity
    assert result.fitness == 0.0
    assert ScalingFactors.load(tmp_path / "factors.json").is_identity
    assert [row["fitness"] < 0 for row in result.validation] == [False, True, True]


def test_nothing_better_than_vanilla_is_found(tmp_path: Path, on_search: CountingEvaluator) -> None:
    on_search.fault = worse
    assert search(plan(), on_search, None, tmp_path).factors.is_identity


def test_finalists_that_fail_do_not_win(
    tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator
) -> None:
    on_validation.fault = broken
    result = search(plan(), on_search, on_validation, tmp_path)
    assert result.factors.is_identity
    assert [row["fitness"] for row in result.validation] == [0.0, None, None]
    assert result.validation[1]["error"] == "RuntimeError: broken on purpose"


@pytest.mark.parametrize("finalists", [0, 3])
def test_without_validation_the_fittest_wins(
    tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator, finalists: int
) -> None:
    result = search(plan(finalists=finalists), on_search, None if finalists else on_validation, tmp_path)
    assert result.validation == []
    assert on_validation.calls == 0
    assert result.fitness == max(record.fitness for record in result.records)
    assert result.factors.values == SPACE.factors(result.candidate).values


# Interrupted and continued -----------------------------------------------------------------------------------------


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
        search(reused, on_search, on_validation, tmp_path, on_event=Stop(kind, count))
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
        search(plan(), on_search, on_validation, tmp_path, on_event=Stop(Scored, CANDIDATES + 2))
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
    same_end(search(plan(), on_search, on_validation, tmp_path, on_event=events.append), tmp_path, uninterrupted)
    assert (on_search.calls, on_validation.calls) == (0, 0)
    assert events == [Stage("Search", 0), Stage("Finalists", 0)]


def test_factors_are_rebuilt_from_the_study(
    tmp_path: Path, on_search: CountingEvaluator, uninterrupted: tuple[SearchResult, Path]
) -> None:
    """A kill between a record and the file, or somebody's hand: the study is the truth."""
    with pytest.raises(KeyboardInterrupt):
        search(plan(), on_search, None, tmp_path, on_event=Stop(Evaluated, 8))
    best = ScalingFactors.load(tmp_path / "factors.json")
    (tmp_path / "factors.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        search(plan(), on_search, None, tmp_path, on_event=Stop(Scored, 1))
    assert ScalingFactors.load(tmp_path / "factors.json").values == best.values


def test_other_settings_are_refused(tmp_path: Path, loaded: tuple[Any, Any], on_search: CountingEvaluator) -> None:
    search(plan(), on_search, None, tmp_path)
    before = (tmp_path / "factors.json").read_bytes()
    for message, other in {
        "method.seed: 0 -> 1": (plan(seed=1), on_search),
        "method.generations: 3 -> 4": (plan(generations=4), on_search),
        "objective.measure: 'likelihood' -> 'accuracy'": (plan(measure="accuracy"), on_search),
        "search.seed: 0 -> 5": (plan(), evaluator(*loaded, seed=5)),
        "search.sha256": (plan(), evaluator(*loaded, "test")),
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


def kill_a_search(model: Path, out: Path, seconds: float) -> bool:
    """Run the small search in a process and kill it so long after it began; whether it was still running."""
    script = Path(__file__).with_name("small_search.py")
    command = [sys.executable, script, model, out]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "Stage" in process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_a_killed_search_ends_as_if_it_had_not_been(
    tiny_path: Path, tmp_path: Path, uninterrupted: tuple[SearchResult, Path], seconds: float
) -> None:
    assert kill_a_search(tiny_path, tmp_path, seconds)
    same_end(whole_search(tiny_path, tmp_path), tmp_path, uninterrupted)


@pytest.mark.slow
def test_searches_killed_at_twenty_instants(
    tiny_path: Path, tmp_path: Path, uninterrupted: tuple[SearchResult, Path]
) -> None:
    """Some runs are killed several times before they may end; every one ends the same."""
    rng, killed = np.random.default_rng(23), 0
    for run in range(10):
        out = tmp_path / str(run)
        for _ in range(2):
            killed += kill_a_search(tiny_path, out, float(rng.uniform(0, 0.7)))
        same_end(whole_search(tiny_path, out), out, uninterrupted)
    assert killed >= 15  # the others had ended before


# Failures on purpose -----------------------------------------------------------------------------------------------


def test_failed_candidates_are_recorded_and_never_win(
    tmp_path: Path, on_search: CountingEvaluator, on_validation: CountingEvaluator
) -> None:
    """The fittest would be those that fail: some raise, some give NaN."""

    def fault(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        first = factors.values[0]
        if first is not None and first < 0.9:
            raise RuntimeError("an error on purpose")
        if first is not None and first > 1.1:
            likelihoods = result.log_likelihoods + 100
            likelihoods[0, 0] = math.nan
            return replace(result, log_likelihoods=likelihoods)
        return result

    on_search.fault = fault
    larger = plan(population=10, generations=2)
    result = search(larger, on_search, on_validation, tmp_path)
    failed = [record for record in result.records if record.failed]
    assert result.failed == len(failed) > 0
    raised = [record for record in failed if record.log_likelihoods is None]
    spoilt = [record for record in failed if record.log_likelihoods is not None]
    assert raised
    assert spoilt
    for record in raised:
        assert record.error is not None
        assert record.error.startswith("Traceback")
        assert 'raise RuntimeError("an error on purpose")' in record.error
    for record in spoilt:
        assert record.error == "1 of 4 log-likelihoods are not finite"
    assert math.isfinite(result.fitness)
    losers = {json.dumps(record.candidate.to_json()) for record in failed}
    assert not losers & {json.dumps(row["candidate"]) for row in result.validation}
    calls = on_search.calls
    search(larger, on_search, on_validation, tmp_path)  # failed ones are not tried again
    assert on_search.calls == calls


def test_a_search_of_failures_stops_with_the_reason(tmp_path: Path, on_search: CountingEvaluator) -> None:
    on_search.fault = broken
    with pytest.raises(
        RopewalkError, match=r"4 of 6 candidates failed.*The last reason: RuntimeError: broken on purpose\. "
    ) as caught:
        search(plan(population=10), on_search, None, tmp_path)
    assert "\n" not in str(caught.value)
    assert ScalingFactors.load(tmp_path / "factors.json").is_identity
    assert on_search.calls == 5


def test_a_model_that_can_not_be_scored(tmp_path: Path, on_search: CountingEvaluator) -> None:
    def overflow(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        return replace(result, log_likelihoods=result.log_likelihoods * math.nan)

    on_search.fault = overflow
    with pytest.raises(RopewalkError, match=r"the model as it is can't be scored .*4 of 4 .*--dtype float32"):
        search(plan(), on_search, None, tmp_path)

    def crash(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        raise IndexError("no such row")

    on_search.fault = crash
    with pytest.raises(RopewalkError, match=r"can't be scored .*IndexError: no such row") as caught:
        search(plan(), on_search, None, tmp_path)
    assert isinstance(caught.value.__cause__, IndexError)
    on_search.fault = None  # nothing was recorded: the cure works in the same folder, also with other settings
    assert search(plan(seed=1), on_search, None, tmp_path).failed == 0


def test_errors_of_the_user_are_no_failed_candidates(tmp_path: Path, on_search: CountingEvaluator) -> None:
    def refuse(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        raise DataError("the prompts can't be used")

    on_search.fault = refuse
    with pytest.raises(DataError, match="the prompts can't be used"):
        search(plan(), on_search, None, tmp_path)


def test_a_broken_screen_is_no_failed_candidate(
    tmp_path: Path, on_search: CountingEvaluator, uninterrupted: tuple[SearchResult, Path]
) -> None:
    with pytest.raises(BrokenPipeError):
        search(plan(), on_search, None, tmp_path, on_event=Stop(Scored, 4, BrokenPipeError))
    result = search(plan(), on_search, None, tmp_path)
    assert result.failed == 0
    assert [content(one) for one in result.records] == [content(one) for one in uninterrupted[0].records]


def test_weights_that_do_not_fit_are_refused_before_anything_runs(tmp_path: Path, on_search: CountingEvaluator) -> None:
    odd = replace(plan(), objective=Utilisation("likelihood", (1.0, 1.0, 1.0, 1.0)))
    with pytest.raises(RopewalkError, match="4 weights for 2 positions"):
        search(odd, on_search, None, tmp_path / "out")
    with pytest.raises(RopewalkError, match="4 weights for 2 positions"):
        final_test(on_search, ScalingFactors.uniform(1.1, 4), odd.objective)
    assert on_search.calls == 0
    assert not (tmp_path / "out").exists()


# The final test ----------------------------------------------------------------------------------------------------


def test_the_final_tests_summary(loaded: tuple[Any, Any]) -> None:
    held_out = evaluator(*loaded, "test", records=3)
    factors = SPACE.factors(plan().method.ask()[2])
    events: list[Any] = []
    summary, results = final_test(
        held_out, factors, Utilisation(), controls={"uniform": factors.matched_uniform()}, on_event=events.append
    )
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["positions"] == [0, 2]
    assert list(results) == ["vanilla", "uniform", "factors"]
    for name, arm in (("vanilla", None), ("uniform", factors.matched_uniform()), ("factors", factors)):
        block, scored = summary[name], held_out.score(arm)
        assert block["accuracy"] == scored.scores.mean(axis=0).tolist()
        assert block["nll"] == pytest.approx((-scored.log_likelihoods.mean(axis=0)).tolist(), abs=1e-12)
        low, high = np.array(block["interval"]).T
        assert ((low <= block["accuracy"]) & (block["accuracy"] <= high)).tolist() == [True, True]
        assert block["average"] == pytest.approx(scored.scores.mean())
        np.testing.assert_array_equal(results[name].log_likelihoods, scored.log_likelihoods)
    gain = (results["factors"].log_likelihoods - results["vanilla"].log_likelihoods).mean()
    assert summary["gain"]["factors"]["average_log_likelihood"]["difference"] == pytest.approx(gain)
    assert list(summary["gain"]) == ["uniform", "factors"]
    over = (results["factors"].log_likelihoods - results["uniform"].log_likelihoods).mean()
    assert summary["factors_over"]["uniform"]["average_log_likelihood"]["difference"] == pytest.approx(over)
    assert summary["evaluations"] == 3 * 3 * 2
    assert events[0] == Stage("Test", 18)
    assert sum(event.prompts for event in events[1:]) == 18


def test_a_known_result_of_vanilla_is_not_scored_again(loaded: tuple[Any, Any]) -> None:
    held_out, factors = evaluator(*loaded, "test"), ScalingFactors.uniform(1.1, 4)
    vanilla = held_out.score(None)
    whole, _ = final_test(held_out, factors, Utilisation())
    held_out.calls = 0
    events: list[Any] = []
    known, results = final_test(held_out, factors, Utilisation(), vanilla=vanilla, on_event=events.append)
    assert held_out.calls == 1
    assert known == whole
    assert list(results) == ["vanilla", "factors"]
    assert sum(event.prompts for event in events[1:]) == events[0].prompts == PROMPTS
    with pytest.raises(DataError, match="different examples"):
        final_test(evaluator(*loaded, "validation"), factors, Utilisation(), vanilla=vanilla)


def test_the_summary_is_plain_json_where_the_model_gives_nan(loaded: tuple[Any, Any]) -> None:
    def fault(factors: ScalingFactors, result: TaskResult) -> TaskResult:
        return replace(result, log_likelihoods=np.where([[True, False]], math.nan, result.log_likelihoods))

    held_out = evaluator(*loaded, "test")
    held_out.fault = fault
    summary, _ = final_test(held_out, ScalingFactors.uniform(1.1, 4), Utilisation())
    json.dumps(summary, allow_nan=False)
    assert summary["factors"]["nll"][0] is None
    assert summary["factors"]["average_nll"] is None
    assert summary["vanilla"]["average_nll"] is not None
    assert summary["gain"]["factors"]["average_log_likelihood"]["p"] is None


def test_factors_of_one_give_vanillas_scores_exactly(loaded: tuple[Any, Any]) -> None:
    summary, results = final_test(evaluator(*loaded, "test"), ScalingFactors.uniform(1.0, 4), Utilisation())
    np.testing.assert_array_equal(results["vanilla"].log_likelihoods, results["factors"].log_likelihoods)
    assert summary["vanilla"] == summary["factors"]
    assert summary["gain"]["factors"]["average_log_likelihood"]["p"] == 1.0


def test_the_final_test_refuses_before_it_scores(loaded: tuple[Any, Any]) -> None:
    factors = ScalingFactors.uniform(1.1, 4)
    with pytest.raises(DataError, match="a test on 1 record has no interval"):
        final_test(evaluator(*loaded, "test", records=1), factors, Utilisation())
    held_out = evaluator(*loaded, "test")
    for name in ("vanilla", "factors", "gain"):
        with pytest.raises(ValueError, match=f"can't be named {name}"):
            final_test(held_out, factors, Utilisation(), controls={name: factors})
    assert held_out.calls == 0


def test_factors_of_another_model(loaded: tuple[Any, Any]) -> None:
    foreign = ScalingFactors([1.1] * 4, model={"name": "other", "fingerprint": "sha256:0"})
    with pytest.raises(FactorsError, match="another"):
        final_test(evaluator(*loaded, "test"), foreign, Utilisation())
    summary, _ = final_test(evaluator(*loaded, "test"), foreign, Utilisation(), any_model=True)
    assert summary["factors"]["records"] == 2
