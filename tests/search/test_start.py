"""A search that starts from given factors: its first generation scores them, and a continued run knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ropewalk import RopewalkError, ScalingFactors
from ropewalk.cli import run
from ropewalk.search import make_method
from ropewalk.search.space import SearchSpace

SPACE = SearchSpace(6, (0, 2, 3, 5))
FREE = ScalingFactors([0.9, None, 1.234, 1.1, None, 1.0])
POINTS = [[0.0, 0.9], [0.3, 1.3], [0.8, 1.1], [1.0, 1.0]]
CURVE = ScalingFactors(
    ScalingFactors.from_bezier(POINTS, 6, rotary_layers=(0, 2, 3, 5)).values, found={"control_points": POINTS}
)


@pytest.mark.parametrize(
    ("name", "factors"), [("default", FREE), ("default", CURVE), ("layerwise-ga", FREE), ("bezier-ga", CURVE)]
)
def test_the_first_generation_scores_them(name: str, factors: ScalingFactors) -> None:
    method, plain = (make_method(name, SPACE, 3, population=5, generations=2) for _ in range(2))
    method.start_from(factors)
    asked = method.ask()
    assert asked[:-1] == plain.ask()[:-1]
    found = SPACE.factors(asked[-1]).values
    assert found == pytest.approx([value if value is None else round(value, 4) for value in factors], abs=6e-5)
    assert method.settings() != plain.settings()
    method.tell(asked, [float(place) for place in range(5)])
    assert len(method.ask()) > 0
    assert any(SPACE.factors(one).values == found for one in method.finalists()) or name == "default"


@pytest.mark.parametrize(
    ("name", "factors", "says"),
    [
        ("smooth-cma", CURVE, "can't start from factors"),
        ("bezier-ga", FREE, "--method default"),
        ("default", ScalingFactors([1.0] * 6), "layers"),
        ("default", ScalingFactors([9.0, None, 1.0, 1.0, None, 1.0]), "beyond the bounds"),
    ],
)
def test_what_cant_be_started_from_is_said(name: str, factors: ScalingFactors, says: str) -> None:
    with pytest.raises(RopewalkError, match=says):
        make_method(name, SPACE, 0).start_from(factors)


def test_layers_that_are_left_alone_must_have_factor_1() -> None:
    with pytest.raises(RopewalkError, match="leaves them alone"):
        make_method("default", SearchSpace(6, (0, 2, 3, 5), skip_first=1), 0).start_from(FREE)


def test_a_search_from_the_command_line_scores_them(roomy_path: Path, tmp_path: Path) -> None:
    start = ScalingFactors([0.9, 1.2, 1.1, 0.95])
    start.save(tmp_path / "start.json")
    small = ("--keys", "3", "--positions", "2", "--limit", "2", "--validation-limit", "2", "--test-limit", "4")
    few = ["--generations", "1", "--population", "3", "--control-budget", "0", "--start", str(tmp_path / "start.json")]
    command = ["search", "--model", str(roomy_path), *small, *few, "--out", str(tmp_path / "kv")]
    assert run(command) == 0
    from ropewalk.report.history import read_history

    history = read_history(tmp_path / "kv" / "study.db")
    space = SearchSpace(**history.settings["method"]["space"])
    scored: list[Any] = [space.factors(one.candidate).values for one in history.candidates]
    assert scored[2] == pytest.approx(start.values, abs=1e-4)
    assert run([*command[:-4], *command[-2:]]) == 2  # without the start it is another search
