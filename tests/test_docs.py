"""The documentation builds strictly and holds what the code has: figures, options and public names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import yaml

import ropewalk
from doc_blocks import PAGES, ROOT
from ropewalk.bezier import curve_factors
from ropewalk.cli import app
from ropewalk.rotary import Installation

sys.path.insert(0, str(ROOT / "docs"))
EXTERNAL = re.compile(r'<(?:link|script|img|iframe)\b[^>]*\b(?:src|href)="https?:')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_the_site_asks_no_other_host(site: Path) -> None:
    pages = sorted(site.glob("*.html"))
    assert len(pages) > 15
    assert [page.name for page in pages if EXTERNAL.search(page.read_text())] == []


def test_the_figures_are_there_and_drawn(site: Path) -> None:
    html = "".join(page.read_text() for page in site.glob("*.html"))
    shown = set(re.findall(r'src="(figures/[\w-]+\.svg)', html))
    names = ("accuracy", "factors", "attention", "curve")
    assert shown == {f"figures/{name}{theme}.svg" for name in names for theme in ("", "-dark")}
    for name in shown:
        drawn = ElementTree.parse(site / name).iter()
        marks = [element for element in drawn if re.search("mark-(line|symbol)", element.get("class", ""))]
        assert sum(len(mark) for mark in marks if "role-mark" in mark.get("class", "")) > 2, name


def test_every_verb_has_its_options(site: Path) -> None:
    page = (site / "options.html").read_text()
    for verb in (name for name in app if not name.startswith("-")):
        assert f'id="ropewalk-{verb}"' in page
    search = {name for argument in app["search"].assemble_argument_collection() for name in argument.names}
    assert len(search) > 50
    assert [name for name in search if name.startswith("--") and name not in page] == []


def test_every_public_name_is_described(site: Path) -> None:
    page = (site / "api.html").read_text()
    named = [name for name in ropewalk.__all__ if not name.startswith("__")]
    assert [name for name in named if not re.search(rf'id="ropewalk\.[\w.]*\b{name}"', page)] == []


def test_the_attention_figure_shows_the_tables_of_the_formula() -> None:
    import site_figures

    factors, distances = (0.8, 1.0, 1.3), 50
    inv_freq = 10_000.0 ** (-np.arange(32) / 32)
    expected = [np.cos(np.arange(distances)[:, None] / s * inv_freq).mean(axis=1) for s in factors]
    np.testing.assert_allclose(site_figures.rotary_scores(factors, distances), expected, atol=1e-5)
    assert Installation.__module__ == "ropewalk.rotary"


def test_the_curve_figure_has_the_factors_of_the_curve() -> None:
    import site_figures

    drawn = json.dumps(site_figures.curve())
    for factor in curve_factors(site_figures.CONTROL_POINTS, site_figures.LAYERS):
        assert repr(float(factor)) in drawn


def test_the_citation_is_whole() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["references"][0]["url"] == "https://arxiv.org/abs/2503.04355"


def test_the_changelog_has_the_unreleased_version_on_top() -> None:
    assert re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[0] == "0.1.0 – unreleased"
    assert "CHANGELOG.md" in PAGES


def test_links_of_the_root_pages_lead_to_files() -> None:
    for page in (name for name in PAGES if "/" not in name):
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
        assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_example_factors_are_those_of_the_benchmark() -> None:
    factors = ropewalk.ScalingFactors.load(ROOT / "examples" / "smollm2-kv10.json")
    runs = [json.loads(line) for line in (ROOT / str(factors.found["run"])).read_text().splitlines()]
    (run,) = [run for run in runs if run["arm"] == "default" and run["seed"] == factors.found["seed"]]
    assert list(factors.values) == run["factors"]
    assert factors.found["evaluations"] == run["evaluations"]
    page = (ROOT / "docs" / "index.md").read_text()
    assert f"from {100 * np.mean(run['vanilla']):.1f} to {100 * np.mean(run['accuracy']):.1f} %" in page
