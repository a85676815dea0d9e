"""The figures as a reader gets them: parsed from the SVG, not from the specification."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ropewalk.errors import DataError
from ropewalk.factors import ScalingFactors
from ropewalk.report.figures import curves_figure, save_png, save_svg
from ropewalk.report.layers import round_grid
from ropewalk.stats import wilson

POSITIONS = [0, 18, 37]
RIGHT = {"vanilla": [79, 42, 17], "uniform": [80, 46, 26], "found": [80, 58, 32]}
SERIES = {name: ([k / 100 for k in right], [wilson(k, 100) for k in right]) for name, right in RIGHT.items()}
POINTS = [[0.0, 0.8], [0.5, 1.4], [0.5, 1.2], [1.0, 0.9]]


def found(**more: object) -> ScalingFactors:
    curve = ScalingFactors.from_bezier(POINTS, 8, rotary_layers=[0, 1, 2, 4, 5, 6, 7], skip_first=1)
    return ScalingFactors(curve.values, found={"control_points": POINTS, **more})


FACTORS = {"vanilla": ScalingFactors.uniform(1.0, 8), "uniform": found().matched_uniform(), "found": found()}


def draw(path: Path, factors: dict[str, ScalingFactors] = FACTORS, title: str = "A title & <more>") -> tuple:
    """The text elements and the aria labels of the figure."""
    save_svg(curves_figure(POSITIONS, SERIES, factors, title), path)
    tree = ElementTree.parse(path)
    texts = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    labels = [element.get("aria-label", "") for element in tree.iter()]
    return texts, labels, path.read_text()


def test_titles_axes_and_legend_can_be_read(tmp_path: Path) -> None:
    texts, labels, _ = draw(tmp_path / "curves.svg")
    for wanted in ("A title & <more>", "accuracy (%)", "scaling factor s (position / s)", "layer (index, from 0)"):
        assert wanted in texts
    assert [text for text in texts if text in RIGHT] == list(RIGHT)
    assert {"0", "18", "37", "100"} <= set(texts)
    assert any("'accuracy (%)'" in label and "values from 0.0 to 1.0" in label for label in labels)
    assert not [text for text in texts if text is not None and ("NaN" in text or text == "undefined")]


def test_every_number_is_drawn_once(tmp_path: Path) -> None:
    _, labels, _ = draw(tmp_path / "curves.svg")
    marks = [label for label in labels if "accuracy (%): " in label]
    for name, right in RIGHT.items():
        for position, k in zip(POSITIONS, right, strict=True):
            value = f"{k / 100:g}"
            wanted = rf"from 0\): {position}; accuracy \(%\): {re.escape(value)}; arm: {name}$"
            assert any(re.search(wanted, label) for label in marks)
    layers = [re.search(r"layer \(index, from 0\): (\d+); .*arm: found$", label) for label in labels]
    drawn = {int(match[1]) for match in layers if match}
    assert drawn == {0, 1, 2, 4, 5, 6, 7}  # layer 3 has no rotary position


def test_the_intervals_are_drawn_where_they_are(tmp_path: Path) -> None:
    """The band of one arm, read back from its path: y runs from 280 pixels (0 %) to 0 (100 %)."""
    save_svg(curves_figure(POSITIONS, {"vanilla": SERIES["vanilla"]}, {}, "one arm"), tmp_path / "one.svg")
    svg = (tmp_path / "one.svg").read_text()
    band = re.search(r'aria-roledescription="area mark" d="([^"]+)"', svg)
    assert band is not None
    heights = [1 - float(y) / 280 for _, y in re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", band[1])]
    intervals = SERIES["vanilla"][1]
    expected = [low for low, _ in intervals] + [high for _, high in reversed(intervals)]
    assert heights == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(
    ("space", "layers"),
    [  # the rotary layers are 0 1 2 4 5 6 7, the depths of the points 0, 1/2, 1/2, 1
        ({}, [0, 4, 4, 7]),
        ({"skip_first": 1}, [1, 4.5, 4.5, 7]),
        ({"mode": "uniform"}, [0, 2, 5, 7]),
    ],
)
def test_control_points_stand_at_the_layer_of_their_depth(space: dict, layers: list[float]) -> None:
    chart = curves_figure(POSITIONS, SERIES, {"found": found(method={"space": space})}, "t").to_dict()
    (rows,) = [rows for rows in chart["datasets"].values() if "order" in rows[0]]
    assert [row["y"] for row in rows] == [0.8, 1.4, 1.2, 0.9]
    assert [row["x"] for row in rows] == pytest.approx(layers)


@pytest.mark.parametrize("factors", [[1.0, 1.0], [0.98, 1.01], [0.5, 8.0], [0.001, 100.0], [1.0, 1e6]])
def test_the_factor_axis_holds_every_factor_between_round_numbers(factors: list[float]) -> None:
    grid = round_grid(min(factors), max(factors))
    assert grid[0] < min(factors)
    assert grid[-1] > max(factors)
    assert 3 <= len(grid) <= 10


@pytest.mark.parametrize("found", [{}, {"control_points": [[0.0, 1.0], [1.0, 1.0]], "offsets": [0.1, -0.1]}])
def test_factors_off_any_curve_have_no_control_points(tmp_path: Path, found: dict) -> None:
    _, labels, svg = draw(tmp_path / "hand.svg", {"found": ScalingFactors([1.1, 0.9], found=found)})
    assert not [label for label in labels if "order" in label]
    assert "control points" not in svg


def test_colours_are_of_the_colour_blind_safe_set_and_the_ground_is_white(tmp_path: Path) -> None:
    svg = draw(tmp_path / "curves.svg")[2]
    assert all(colour.lower() in svg.lower() for colour in ("#595959", "#D55E00", "#0072B2"))
    assert re.search(r'<rect[^>]*fill="white"', svg)


def test_png_is_a_picture(tmp_path: Path) -> None:
    save_png(curves_figure(POSITIONS, SERIES, FACTORS, "t"), tmp_path / "runs" / "a.png", scale=1)
    content = (tmp_path / "runs" / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    assert width > 2 * 380
    assert height > 280


def test_a_failed_write_leaves_the_old_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = curves_figure(POSITIONS, SERIES, FACTORS, "t")
    (tmp_path / "a.svg").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    for save in (save_svg, save_png):
        with pytest.raises(DataError, match="No space left"):
            save(chart, tmp_path / "a.svg")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a.svg", "old")]


@pytest.mark.parametrize(
    ("series", "says"),
    [
        (([0.5, 0.5], [(0.4, 0.6)] * 3), "2 accuracies and 3 intervals for 3 positions"),
        (([0.5, 0.5, 0.5], [(0.4, 0.6)] * 2), "3 accuracies and 2 intervals"),
        (([0.5, 50.0, 0.5], [(0.4, 0.6)] * 3), "accuracy 50.0"),
        (([0.5, float("nan"), 0.5], [(0.4, 0.6)] * 3), "accuracy nan"),
        (([0.5, 0.5, 0.5], [(0.6, 0.4)] * 3), "interval"),
    ],
)
def test_numbers_that_cannot_be_drawn_are_refused(series: tuple, says: str) -> None:
    with pytest.raises(DataError) as caught:
        curves_figure(POSITIONS, {"vanilla": series}, {}, "t")
    assert says in str(caught.value)


def test_figures_load_neither_torch_nor_the_evaluation() -> None:
    code = (
        "import sys, ropewalk.report.figures\n"
        "heavy = {'torch', 'transformers', 'ropewalk.evaluate', 'ropewalk.engine', 'ropewalk.run'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
