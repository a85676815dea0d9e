"""What docs/analysis.md quotes is what the committed results say, and what today's code says of their records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ropewalk import files
from ropewalk.analysis import make_analysis
from ropewalk.analysis.base import SCHEMA

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "analysis.md").read_text()
QUOTED = sorted(set(re.findall(r"benchmarks/results/analysis/(\S+?\.json)", PAGE)))


@pytest.mark.parametrize("name", QUOTED)
def test_a_quoted_answer_is_that_of_its_records(name: str) -> None:
    document = files.read_json(ROOT / "benchmarks" / "results" / "analysis" / name)
    assert document["schema"] == SCHEMA
    assert document["provenance"]["command"].startswith(f"ropewalk analyze {document['settings']['analysis']} ")
    analysis = make_analysis(document["settings"]["analysis"])
    assert analysis.answer(document["records"]) == document["sentence"]
    assert analysis.panels(document["records"])
    shown = " ".join(PAGE.replace("\n> ", " ").split())
    assert document["sentence"] in shown
