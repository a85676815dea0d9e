"""The page in a real headless browser: charts, colours, keyboard, a phone, and nothing asked of anybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ropewalk.report.page import Report
from ropewalk.report.runs import read_runs

pytestmark = pytest.mark.slow
ALL_DRAWN = "document.querySelectorAll('[data-drawn]').length == document.querySelectorAll('[data-chart]').length"
WIDEST = "Math.max(...[...document.querySelectorAll('.chart svg')].map(e => e.getBoundingClientRect().width))"
BEYOND = """[...document.querySelectorAll('main *')].filter((element) =>
    !element.closest('.scroll, .chart, pre') && element.getBoundingClientRect().right > innerWidth + 1
    && getComputedStyle(element).position != 'absolute').map((element) => element.outerHTML.slice(0, 80))"""
FOCUSED = """(e => e === document.body ? '' : e.dataset.chart || e.className || e.getAttribute('href') || e.tagName)(
    document.activeElement)"""
OUTLINED = """(s => s.outlineStyle != 'none' && parseFloat(s.outlineWidth) >= 2)(
    getComputedStyle(document.activeElement))"""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}


@pytest.fixture(scope="module")
def files(run_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of single runs, and one of all."""
    folder = tmp_path_factory.mktemp("pages")
    chosen = {name: [run_folders[name]] for name in ("bezier", "mix", "unfinished")} | {
        "all": list(run_folders.values())
    }
    for name, runs in chosen.items():
        (folder / f"{name}.html").write_text(Report(read_runs(runs)).html(), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in chosen}


@pytest.fixture
def opened(browser: Any, files: dict[str, Path]) -> Iterator[Any]:
    """A function that opens a page from its file; at the end nothing may have gone wrong in any of them."""
    wrong: list[str] = []
    contexts: list[Any] = []

    def open_page(name: str, scheme: str = "light", viewport: dict[str, int] = DESKTOP) -> Any:
        context = browser.new_context(color_scheme=scheme, viewport=viewport, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("request", lambda request: asked(request.url, files[name]))
        page.goto(files[name].as_uri())
        page.wait_for_function(ALL_DRAWN, timeout=120_000)
        return page

    def asked(url: str, own: Path) -> None:
        if url != own.as_uri() and not url.startswith(("data:", "blob:")):
            wrong.append(f"asked for {url}")

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["bezier", "mix", "unfinished", "all"])
def test_all_charts_are_drawn(name: str, scheme: str, opened: Any) -> None:
    page = opened(name, scheme)
    boxes = page.locator("[data-chart]")
    assert boxes.count() > 3
    for index in range(boxes.count()):
        svg = boxes.nth(index).locator("svg").first
        assert svg.bounding_box()["width"] > 150
        assert svg.bounding_box()["height"] > 80
        assert svg.locator("[aria-roledescription$=mark], .mark-rect path, .mark-symbol path").count() > 0
        assert boxes.nth(index).get_attribute("data-drawn") == scheme


@pytest.mark.parametrize("name", ["bezier", "all"])
def test_on_a_phone_only_boxes_scroll(name: str, opened: Any) -> None:
    page = opened(name, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for details in page.locator("details").all():
        details.evaluate("element => element.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate(BEYOND) == []
    widest = page.evaluate(WIDEST)
    assert widest <= PHONE["width"]


def test_charts_turn_with_the_colours_and_the_width(opened: Any) -> None:
    page = opened("bezier")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "document.querySelectorAll('[data-drawn=dark]').length == document.querySelectorAll('[data-chart]').length"
    )
    fills = page.evaluate("[...document.querySelectorAll('.chart svg text')].map(e => e.getAttribute('fill'))")
    assert "#d9dee5" in fills
    assert "#24292f" not in fills
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 22)"
    page.set_viewport_size(PHONE)
    page.wait_for_function(
        "Math.max(...[...document.querySelectorAll('.chart svg')].map(e => e.getBoundingClientRect().width)) < 375"
    )


def test_the_keyboard_reaches_everything(opened: Any) -> None:
    page = opened("bezier")
    reached: list[str] = []
    for _ in range(200):
        page.keyboard.press("Tab")
        what = page.evaluate(FOCUSED)
        if not what:
            break
        reached.append(what)
        assert page.evaluate(OUTLINED), what
    assert reached[0] == "skip"
    charts = {box.get_attribute("data-chart") for box in page.locator("[data-chart]").all()}
    assert charts <= set(reached)
    assert {"scroll", "SUMMARY", "#run1-test", "shell", "python"} <= set(reached)


def test_a_table_opens_by_keyboard_and_the_skip_link_skips(opened: Any) -> None:
    page = opened("bezier")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    summary = page.locator("figure summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("figure details[open] table").first.is_visible()


@pytest.mark.parametrize(
    ("scheme", "viewport"), [("light", DESKTOP), ("light", PHONE), ("dark", DESKTOP), ("dark", PHONE)]
)
def test_screenshots(scheme: str, viewport: dict[str, int], opened: Any, tmp_path: Path) -> None:
    """Pictures for a person to look at, in pytest's folder; that they are no empty ground is all that is checked."""
    page = opened("all", scheme, viewport)
    path = tmp_path / f"report-{scheme}-{viewport['width']}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 50_000
