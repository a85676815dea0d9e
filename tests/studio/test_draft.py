"""Curves with single layers off them, and the session that keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk import FactorsError, ScalingFactors
from ropewalk.errors import DataError, StudyError
from ropewalk.studio.draft import Draft, Shape, drafted
from ropewalk.studio.session import Session, check_shape

SHAPE = Shape(6, (0, 2, 3, 5))
FACTOR = st.floats(0.6, 1.9)


@settings(max_examples=8, deadline=None)
@given(st.lists(FACTOR, min_size=4, max_size=4))
def test_any_factors_can_be_edited_and_are_kept_exactly(values: list[float]) -> None:
    placed = [values[0], None, values[1], values[2], None, values[3]]
    draft = drafted(placed, SHAPE)
    assert draft.factors(SHAPE).values == tuple(placed)
    assert Draft.from_json(json.loads(json.dumps(draft.to_json()))) == draft


@pytest.mark.parametrize("mode", ["depth", "uniform"])
@pytest.mark.parametrize("skip", [0, 2])
def test_the_curve_they_were_found_with_is_the_one_to_edit(mode: str, skip: int) -> None:
    points = ((0.0, 0.9), (0.3, 1.5), (0.8, 1.1), (1.0, 1.0))
    expected = ScalingFactors.from_bezier(points, 6, mode=mode, rotary_layers=(0, 2, 3, 5), skip_first=skip)
    draft = drafted(expected.values, SHAPE, points, mode, skip)
    assert draft == Draft(points, mode, skip)
    assert draft.factors(SHAPE) == expected


def test_free_layers_are_drawn_on_the_nearest_curve_not_on_the_flat_one() -> None:
    values = [1.0, None, 1.2, 1.2, None, 1.0]
    flat = [[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]]  # what such factors are stored as offsets from
    draft = drafted(values, SHAPE, flat)
    assert draft.factors(SHAPE).values == tuple(values)
    assert np.ptp([y for _, y in draft.control_points]) > 0.1


@pytest.mark.parametrize("values", [[1.0] * 6, [1.0] * 4, [1.0, None, None, 1.0, None, 1.0]])
def test_factors_of_another_shape_are_refused(values: list[float | None]) -> None:
    with pytest.raises(FactorsError, match="layers"):
        drafted(values, SHAPE)


def test_a_session_is_what_it_was_after_a_restart(tmp_path: Path) -> None:
    session = Session(tmp_path, "m")
    curves = [Draft.level(1 + step / 100) for step in range(220)]
    for draft in curves:
        session.change(draft)
    session.save("good one")
    session.undo()
    again = Session(tmp_path, "m")
    assert again.view() == session.view()
    assert again.current == curves[-2]
    for _ in range(250):
        again.undo()
    assert not again.view()["can_undo"]
    assert again.current == curves[-201]  # the oldest steps are forgotten
    with pytest.raises(StudyError, match="is a session on 'm'"):
        Session(tmp_path, "other")


def test_a_session_on_other_layers_is_refused(tmp_path: Path) -> None:
    session = Session(tmp_path, "m")
    session.change(Draft(Draft.level().control_points, layers={5: 1.2}))
    check_shape(session, SHAPE)
    with pytest.raises(DataError, match="don't fit this model"):
        check_shape(session, Shape(4, (0, 1, 2, 3)))


@pytest.mark.parametrize("text", ["[]", '{"schema": "other"}', '{"schema": "ropewalk.studio/1", "model": "m"}', "no"])
def test_a_spoilt_session_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "session.json").write_text(text)
    with pytest.raises(DataError, match=r"session\.json"):
        Session(tmp_path, "m")
