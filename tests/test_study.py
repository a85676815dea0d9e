"""The study: records come back to the bit, and what is no study of ours, or another's, is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from ropewalk.constraints import Scores
from ropewalk.errors import StudyError
from ropewalk.search.space import Candidate
from ropewalk.study import SCHEMA, CandidateRecord, open_study
from study_process import SETTINGS, SPACE, run_python, same

RNG = np.random.default_rng(5)


def record(slot: int, fitness: float = 0.1, *, generation: int = 0, **more: Any) -> CandidateRecord:
    likelihoods = -RNG.random((4, 3))
    found = (Scores((likelihoods > -0.5) * 0.3, likelihoods),)
    rows = ((0, 2, 5, 6),)
    return CandidateRecord(
        generation, slot, SPACE.level(1 + slot / 7), fitness, **({"found": found, "rows": rows} | more)
    )


def spoilt(slot: int, likelihood: float) -> CandidateRecord:
    found = Scores(np.array([[1.0]]), np.array([[likelihood]]))
    return record(slot, math.nan, generation=1, found=(found,), rows=((3,),), error="not finite", prompts=1)


def refusal(folder: Path, settings: dict[str, object] = SETTINGS) -> str:
    with pytest.raises(StudyError) as caught, open_study(folder, settings) as study:
        study.records()
    return str(caught.value)


# Records -----------------------------------------------------------------------------------------------------------


def test_records_come_back_to_the_bit(tmp_path: Path) -> None:
    offsets = Candidate(SPACE.identity().control_points, (0.1, -0.2, 1 / 3, 0.0, 1e-17, -1.0))
    mix = (*record(0).found, Scores(np.array([[0.25]]), np.array([[-1 / 3]])), *record(0).found)
    added = [
        record(0, 1 / 3, generation=-1),
        record(1, float(np.nextafter(0.1, 1)), parents=((0, 3), (-1, 0)), prompts=12, seconds=0.1 + 0.2),
        record(2, -1e-300, found=(), rows=()),
        record(3, 1e300),
        CandidateRecord(0, 4, offsets, 0.5, mix, ((0, 1, 2, 3), (7,))),
        record(5, -0.25, stopped=True, penalties={"position @4 of kv": 0.1 + 0.2}),
        record(0, math.nan, generation=1, found=(), rows=(), error="Traceback …\nRuntimeError: “broken”"),
        spoilt(1, -math.inf),
        spoilt(2, math.nan),
    ]
    with open_study(tmp_path, SETTINGS) as study:
        for one in added:
            study.add(one)
        live = study.records()
    with open_study(tmp_path, SETTINGS) as study:
        stored = study.records()
        assert study.records("validation") == {}
    assert list(stored) == list(live) == [(one.generation, one.slot) for one in added]
    for one in added:
        assert same(stored[one.generation, one.slot], one)
        assert same(live[one.generation, one.slot], one)


def test_validation_records_stand_apart(tmp_path: Path) -> None:
    with open_study(tmp_path, SETTINGS) as study:
        study.add(record(0, 0.5))
        study.add(record(0, 0.7), "validation")
    with open_study(tmp_path, SETTINGS) as study:
        assert study.records()[0, 0].fitness == 0.5
        assert study.records("validation")[0, 0].fitness == 0.7


def test_optuna_reads_the_study(tmp_path: Path) -> None:
    """Its dashboard does: best value and parameters of every trial."""
    with open_study(tmp_path, SETTINGS) as study:
        study.add(record(1, 0.25))
        study.add(record(2, 0.75))
        study.add(CandidateRecord(0, 3, SPACE.identity(), math.nan, error="x"))
        study.add(record(4, 0.9, stopped=True, parents=((0, 1), (0, 2)), seconds=1.5))  # never the best
    read = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/study.db")
    assert read.best_value == 0.75
    assert read.best_params == {
        name: value
        for index, point in enumerate(SPACE.level(1 + 2 / 7).control_points)
        for name, value in zip((f"x{index}", f"y{index}"), point, strict=True)
    }
    assert [trial.state.name for trial in read.get_trials()] == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED"]
    stopped = read.get_trials()[-1]
    assert stopped.value == 0.9
    assert stopped.user_attrs["record"]["parents"] == [[0, 1], [0, 2]]
    assert stopped.user_attrs["record"]["seconds"] == 1.5
    assert len(stopped.user_attrs["record"]["by_position"][0]) == 3


def test_a_dashboard_may_read_while_a_search_writes(tmp_path: Path) -> None:
    with open_study(tmp_path, SETTINGS) as study:
        for slot in range(3):
            study.add(record(slot))
            read = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/study.db")
            assert len(read.get_trials()) == slot + 1
            read._storage.remove_session()


def test_the_folder_can_be_copied_after_a_clean_end(tmp_path: Path) -> None:
    with open_study(tmp_path / "run", SETTINGS) as study:
        study.add(record(0))
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"study.db", "study.lock"}
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "run" / "study.db", tmp_path / "copy" / "study.db")
    with open_study(tmp_path / "copy", SETTINGS) as study:
        assert list(study.records()) == [(0, 0)]


def test_an_exception_inside_closes_the_study(tmp_path: Path) -> None:
    def interrupted() -> None:
        with open_study(tmp_path, SETTINGS) as study:
            study.add(record(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.glob("*-wal"))
    with open_study(tmp_path, SETTINGS) as study:
        assert list(study.records()) == [(0, 0)]


def test_a_folder_of_odd_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a?b#c %20 {x} 'q' ü"
    with open_study(folder, SETTINGS) as study:
        study.add(record(0))
    with open_study(folder, SETTINGS) as study:
        assert list(study.records()) == [(0, 0)]


# Refusals ----------------------------------------------------------------------------------------------------------


def test_changed_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    with open_study(tmp_path, SETTINGS) as study:
        study.add(record(0))
    changed = {"method": {"seed": 1, "population": 8}, "search": {"task": "kv", "positions": [0, 9], "keys": 5}}
    message = refusal(tmp_path, changed)
    assert "method.seed: 0 -> 1" in message
    assert "search.positions: [0, 4, 9] -> [0, 9]" in message
    assert "search.keys: '(not set)' -> 5" in message
    assert "population" not in message
    assert "--out" in message
    assert "tasks.1.keys: 3 -> 4" in refusal(
        tmp_path, {**SETTINGS, "tasks": [{"keys": 3, "seed": 0}, {"keys": 4, "seed": 0}]}
    )
    with open_study(tmp_path, SETTINGS) as study:
        assert list(study.records()) == [(0, 0)]


def test_tuples_are_lists_as_json_has_them(tmp_path: Path) -> None:
    with open_study(tmp_path, {"weights": (1, 2)}) as study:
        study.add(record(0))
    with open_study(tmp_path, {"weights": [1, 2]}) as study:
        assert len(study.records()) == 1


def test_a_study_without_records_takes_new_settings(tmp_path: Path) -> None:
    """So the advice after a model that can't be scored, another --dtype, works in the same folder."""
    with open_study(tmp_path, {"dtype": "float16"}):
        pass
    with open_study(tmp_path, {"dtype": "float32"}) as study:
        study.add(record(0))
    assert "dtype: 'float32' -> 'float16'" in refusal(tmp_path, {"dtype": "float16"})


@pytest.mark.parametrize("schema", [1, 2])
def test_a_study_of_an_earlier_schema_is_refused(tmp_path: Path, schema: int) -> None:
    """The first kept verdicts in place of scores, the second knew one task."""
    with open_study(tmp_path, SETTINGS) as study:
        study.add(record(0))
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/study.db")
    stored.set_user_attr("settings", {**SETTINGS, "schema": f"ropewalk.study/{schema}"})
    message = refusal(tmp_path)
    assert f"its records are ropewalk.study/{schema}, this version has {SCHEMA}" in message
    assert "--out" in message


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with open_study(tmp_path, SETTINGS) as study:
        study.add(record(0))
        second = run_python("with open_study(folder, SETTINGS): print('opened')", tmp_path)
        assert second.returncode == 1
        assert "StudyError" in second.stderr
        assert "another process is running this search" in second.stderr
        assert "opened" not in second.stdout
    assert run_python("with open_study(folder, SETTINGS): print('opened')", tmp_path).stdout == "opened\n"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("these are not the records you are looking for\n" * 200)
    content = (tmp_path / "study.db").read_bytes()
    assert "file is not a database" in refusal(tmp_path)
    assert (tmp_path / "study.db").read_bytes() == content


def test_a_cut_study(tmp_path: Path) -> None:
    with open_study(tmp_path, SETTINGS) as study:
        study.add(record(0))
    content = (tmp_path / "study.db").read_bytes()
    (tmp_path / "study.db").write_bytes(content[: len(content) // 2])
    assert "malformed" in refusal(tmp_path)


def test_a_study_with_an_overwritten_page(tmp_path: Path) -> None:
    with open_study(tmp_path, SETTINGS) as study:
        for slot in range(20):
            study.add(record(slot))
    content = bytearray((tmp_path / "study.db").read_bytes())
    content[4096:8192] = b"\xff" * 4096
    (tmp_path / "study.db").write_bytes(content)
    assert "study.db" in refusal(tmp_path)


def test_trials_that_are_no_records(tmp_path: Path) -> None:
    with open_study(tmp_path, SETTINGS):
        pass
    foreign = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/study.db")
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert "can't be read" in refusal(tmp_path)


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.execute("CREATE TABLE letters (text)")
    connection.commit()
    connection.close()
    content = (tmp_path / "study.db").read_bytes()
    assert "no study of ropewalk" in refusal(tmp_path)
    assert (tmp_path / "study.db").read_bytes() == content


def test_a_study_of_another_program_is_left_alone(tmp_path: Path) -> None:
    optuna.create_study(study_name="theirs", storage=f"sqlite:///{tmp_path}/study.db")
    assert "no study of ropewalk" in refusal(tmp_path)
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/study.db") == ["theirs"]


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    assert "no study of ropewalk" in refusal(tmp_path)


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    """Permission bits don't bind the superuser, under whom tests may run: a file in the way binds everybody."""
    (tmp_path / "file").touch()
    assert "is a file, expected a folder" in refusal(tmp_path / "file")
    assert "can't be written (Not a directory)" in refusal(tmp_path / "file" / "below")
    (tmp_path / "run" / "study.lock").mkdir(parents=True)
    assert "can't be written" in refusal(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits don't bind the superuser")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "can't be written (Permission denied)" in refusal(tmp_path)
    tmp_path.chmod(0o700)


def test_candidate_round_trip() -> None:
    candidate = Candidate(((0.0, 0.1 + 0.2), (1 / 3, 1.0), (1.0, 2.5)))
    assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate
