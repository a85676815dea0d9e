"""Progress of a loop: silent for two seconds, then lines, or a bar on a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from ropewalk.cli import console, counting


def test_a_short_loop_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with counting.counting("Looking", "things") as report:
        for done in range(5):
            report(done, 5)
    assert capsys.readouterr().err == ""


def test_a_longer_one_says_one_line_then_one_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "PATIENCE", 0.0)
    with counting.counting("Looking", "things") as report:
        report(1, 5)
        report(2, 5)
        monkeypatch.setattr(console, "LINE_EVERY", 0.0)
        report(3, None)
    assert re.sub(r"\d+ s", "N s", capsys.readouterr().err) == (
        "Looking: 1/5 things, N s, N s left\nLooking: 3 things, N s\n"
    )


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(counting, "PATIENCE", 0.0)
    monkeypatch.setattr(console, "errors", lambda: Console(file=written, force_terminal=True, width=80))
    with counting.counting("Looking", "things") as report:
        report(3, 5)
    assert "Looking" in written.getvalue()
    assert "3/5" in written.getvalue()
