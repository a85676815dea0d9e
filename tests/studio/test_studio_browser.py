"""The studio in a real headless browser, on SmolLM2: what a person does with it, and what must not work.

With STUDIO_PICTURES=DIR in the environment the pictures of docs/studio.md are written there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from studio_process import Served, no_job_left, ready, served

from ropewalk import ScalingFactors

pytestmark = pytest.mark.slow
HUMP = [[0.0, 0.95], [0.35, 1.35], [0.7, 1.1], [1.0, 1.0]]
SETTING = ("--keys", "5", "--positions", "3", "--limit", "8")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
TIMEOUT = 90_000  # of a crowded machine
BEYOND = """[...document.querySelectorAll('main *')].filter((element) =>
    !element.closest('.scroll, svg') && element.getBoundingClientRect().right > innerWidth + 1
    && getComputedStyle(element).position != 'absolute').map((element) => element.outerHTML.slice(0, 80))"""
FOCUSED = "document.activeElement.dataset.key || document.activeElement.id || document.activeElement.className"
RING = "getComputedStyle(document.activeElement.querySelector('.ring')).stroke"
CANCELLED = "e => e.dataset.state == 'cancelled'"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def studio(demo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("studio")
    with served("--model", demo_path, *SETTING, "--out", folder / "session", cwd=folder) as page:
        ready(page)
        yield page


@pytest.fixture
def opened(browser: Any, studio: Served) -> Iterator[Open]:
    """A function that opens the studio's page; at the end nothing may have gone wrong in any of them."""
    wrong: list[str] = []
    contexts: list[Any] = []

    def open_page(scheme: str = "light", viewport: dict[str, int] = DESKTOP) -> Any:
        context = browser.new_context(color_scheme=scheme, viewport=viewport)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.on("console", lambda message: heard(message.type, message.text))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("request", lambda request: asked(request.url))
        page.goto(studio.address)
        page.wait_for_selector("[data-key=point-1]")
        return page

    def heard(kind: str, text: str) -> None:
        if "status of 400" not in text:  # what the page itself says in words
            wrong.append(f"{kind}: {text}")

    def asked(url: str) -> None:
        if not url.startswith((f"http://127.0.0.1:{studio.port}/", "data:", "blob:")):
            wrong.append(f"asked for {url}")

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def soon(page: Any, expression: str) -> None:
    """Wait until it is true. Playwright's own way would have to evaluate text in the page, which its policy forbids."""
    deadline = time.monotonic() + TIMEOUT / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def handle(page: Any, key: str) -> tuple[float, float, float]:
    """Where its middle is, and its factor, asked at once: every answer of the server draws the handles anew."""
    box = f"document.querySelector('[data-key={key}] .mark').getBoundingClientRect()"
    factor = f"Number(document.querySelector('[data-key={key}]').ariaValueNow)"
    x, y, now = page.evaluate(
        f"[{box}, {factor}].flatMap((one) => one.x ? [one.x + one.width / 2, one.y + one.height / 2] : one)"
    )
    return x, y, now


def drag(page: Any, key: str, right: float, up: float) -> None:
    x, y, _ = handle(page, key)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y - up, steps=6)
    page.mouse.up()


def flat(studio: Served) -> None:
    studio.act("load", vanilla=True)
    studio.act("look", hidden=[], reference="vanilla", layer=None)
    for name in studio.read("state")["saved"]:
        studio.act("forget", name=name)


def factors(studio: Served) -> list[float]:
    return list(studio.read("state")["figures"]["factors"])


def evaluate(page: Any, studio: Served, arms: list[str]) -> None:
    """Evaluate by the button, until the page shows these arms."""
    before = max((job["number"] for job in studio.read("state")["jobs"]), default=0)
    page.click("#evaluate")
    studio.until(lambda state: no_job_left(state) and any(job["number"] > before for job in state["jobs"]))
    soon(page, "document.querySelector('#jobs li').dataset.state == 'done'")
    soon(page, f"[...document.querySelectorAll('#gains tbody th')].map(e => e.innerText) + '' == '{','.join(arms)}'")
    page.wait_for_selector("#likelihood img")


def picture(page: Any, name: str, selector: str = "") -> None:
    folder = os.environ.get("STUDIO_PICTURES")
    if folder:
        page.mouse.move(2, 2)
        page.wait_for_timeout(500)
        shown = page.locator(selector) if selector else page
        shown.screenshot(path=Path(folder) / f"studio-{name}.png")


def test_a_tour(studio: Served, opened: Open, tmp_path: Path) -> None:
    """Drag the curve and a layer, evaluate, keep, reload, undo, save as a file, open it again."""
    flat(studio)
    page = opened()
    decay = page.locator("#decay .found").first.get_attribute("d")
    drag(page, "point-1", 40, 120)
    soon(page, f"document.querySelector('#decay .found').getAttribute('d') != {decay!r}")
    drag(page, "layer-24", 0, -30)
    state = studio.until(lambda state: "24" in state["current"]["layers"])
    points, off = state["current"]["control_points"], state["current"]["layers"]
    assert points[1][1] > 1.2
    assert points[1][0] > 0.34
    expected = list(ScalingFactors.from_bezier(points, 30))
    assert factors(studio) == [off.get(str(layer), value) for layer, value in enumerate(expected)]
    picture(page, "curve", "section.panel >> nth=0")
    page.fill("#name", "a hump")
    page.press("#name", "Enter")
    page.wait_for_selector("text=a hump")
    evaluate(page, studio, ["vanilla", "a hump"])
    page.locator("text=Scores by position").click()
    assert page.locator("#positions tbody tr").count() == 2
    picture(page, "results", "section.panel >> nth=3")
    with page.expect_download() as loading:
        page.click("#download")
    loading.value.save_as(tmp_path / "factors.json")
    assert list(ScalingFactors.load(tmp_path / "factors.json")) == factors(studio)
    seen = factors(studio)
    page.reload()
    page.wait_for_selector("#likelihood img")
    assert page.locator("#saved li").count() == 1
    assert float(page.locator("[data-key=layer-24]").get_attribute("aria-valuenow")) == off["24"]
    page.click("#undo")
    studio.until(lambda state: "24" not in state["current"]["layers"])
    page.click("#redo")
    studio.until(lambda state: "24" in state["current"]["layers"])
    page.click("#join")
    studio.until(lambda state: not state["current"]["layers"])
    page.set_input_files("#file", tmp_path / "factors.json")
    studio.until(lambda state: state["figures"]["factors"] == seen)
    drag(page, "point-2", 0, -60)
    evaluate(page, studio, ["vanilla", "this curve", "a hump"])
    page.select_option("#reference", "a hump")
    soon(page, "document.querySelector('#gains tbody tr:last-child td:last-child').innerText == '–'")
    picture(page, "compared", "section.panel >> nth=3")
    page.focus("[data-key=layer-9]")
    studio.until(lambda state: state["look"] == {"hidden": [], "reference": "a hump", "layer": 9})
    page.reload()
    soon(page, "document.querySelector('#reference').value == 'a hump'")
    assert page.locator("[data-key=layer-9]").get_attribute("tabindex") == "0"
    page.uncheck("#saved input")
    studio.until(lambda state: state["look"]["hidden"] == ["a hump"])
    page.reload()
    soon(page, "document.querySelectorAll('#gains tbody tr').length == 2")
    assert not page.is_checked("#saved input")


@pytest.mark.parametrize(("key", "up", "limit"), [("point-1", 1000, 2.0), ("layer-9", -1000, 0.5)])
def test_the_pointer_reaches_the_limits_beyond_the_axis(
    key: str, up: float, limit: float, studio: Served, opened: Open
) -> None:
    flat(studio)
    page = opened()
    plot, (x, y, _) = page.locator("#editor").bounding_box(), handle(page, key)
    end = plot["y"] - 50 if up > 0 else plot["y"] + plot["height"] + 20
    page.mouse.move(x, y)
    page.mouse.down()
    seen = []
    for share in (0.5, 0.9, 1.0, 0.5, 0.0):
        page.mouse.move(x, y + share * (end - y))
        _, middle, factor = handle(page, key)
        seen.append(factor)
        assert plot["y"] <= middle <= plot["y"] + plot["height"]  # the axis widens, so it can be seen
    assert abs(seen[0] - 1) < abs(seen[1] - 1) < abs(seen[2] - 1)
    assert seen[3:] == [seen[0], 1.0]  # and back the way it came
    page.mouse.move(x, y - up)
    page.mouse.up()
    assert handle(page, key)[2] == limit
    studio.until(
        lambda state: (
            limit in [y for _, y in state["current"]["control_points"]] + [*state["current"]["layers"].values()]
        )
    )


def test_everything_can_be_done_with_the_keyboard(studio: Served, opened: Open) -> None:
    flat(studio)
    page = opened()
    page.focus("#evaluate")
    reached = []
    for _ in range(5):
        page.keyboard.press("Shift+Tab")
        reached.append(page.evaluate(FOCUSED))
        assert page.evaluate(RING) != "none"
    assert reached == ["point-3", "point-2", "point-1", "point-0", "layer-15"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert page.evaluate(FOCUSED) == "layer-21"
    for _ in range(3):
        page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("ArrowDown")
    studio.until(lambda state: state["current"]["layers"] == {"21": 1.14})
    page.keyboard.press("Delete")
    studio.until(lambda state: state["current"]["layers"] == {})
    page.focus("[data-key=point-2]")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowLeft")
    studio.until(lambda state: state["current"]["control_points"][2] == [0.567, 1.01])
    page.keyboard.press("Control+z")
    studio.until(lambda state: state["current"]["control_points"][2][1] == 1.0)


def test_an_evaluation_can_be_cancelled(studio: Served, opened: Open) -> None:
    flat(studio)
    page = opened()
    drag(page, "point-2", 0, 77)
    for _ in range(2):
        page.click("#evaluate")
    for place in (2, 1):  # the newest is on top: the one that runs, then the one that waits
        page.click(f"#jobs li:nth-child({place}) button")
    studio.until(no_job_left)
    soon(page, f"[...document.querySelectorAll('#jobs li')].slice(0, 2).every({CANCELLED})")
    assert page.locator("#error").is_hidden()


@pytest.mark.parametrize(
    ("content", "says"),
    [("no json", "not JSON"), ('{"schema": 1}', "schema"), ("[" + "1," * 200_000 + "1]", "KiB")],
)
def test_a_broken_file_is_said_and_changes_nothing(
    content: str, says: str, studio: Served, opened: Open, tmp_path: Path
) -> None:
    before = factors(studio)
    page = opened()
    (tmp_path / "broken.json").write_text(content)
    page.set_input_files("#file", tmp_path / "broken.json")
    page.wait_for_selector("#error:not([hidden])")
    assert "broken.json" in page.inner_text("#error")
    assert says in page.inner_text("#error")
    assert factors(studio) == before


def test_without_the_token_there_is_no_page(studio: Served, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    for address in (f"http://127.0.0.1:{studio.port}/", f"http://127.0.0.1:{studio.port}/?token=wrong"):
        assert page.goto(address).status == 401
        assert "Open the address" in page.inner_text("body")
    context.close()


def test_a_foreign_page_in_the_same_browser_can_do_nothing(studio: Served, opened: Open) -> None:
    """Another port of this machine is the same site, so the cookie goes along: its Origin gives it away."""
    page = opened().context.new_page()
    before = studio.read("state")["current"]
    html = b"<!doctype html><title>foreign</title>"

    class Foreign(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        own = f"http://127.0.0.1:{studio.port}/api"
        send = """async (url) => { const draft = {control_points: [[0, 1.3], [1, 1.3]], mode: "depth", skip_first: 0, layers: {}};
            await fetch(url + "/curve", {method: "POST", mode: "no-cors", credentials: "include", body: JSON.stringify({draft})}).catch(() => 0);
            return fetch(url + "/state", {credentials: "include"}).then((answer) => answer.text(), () => "nothing"); }"""  # noqa: E501
        assert page.evaluate(send, own) == "nothing"
        server.shutdown()
    assert studio.read("state")["current"] == before


@pytest.mark.parametrize(
    ("scheme", "viewport"), [("light", DESKTOP), ("light", PHONE), ("dark", DESKTOP), ("dark", PHONE)]
)
def test_screenshots(scheme: str, viewport: dict[str, int], studio: Served, opened: Open, tmp_path: Path) -> None:
    """Pictures for a person to look at, in pytest's folder; checked is that nothing stands out of the page."""
    studio.act("curve", draft={"control_points": HUMP, "mode": "depth", "skip_first": 0, "layers": {"20": 0.9}})
    studio.act("evaluate")
    studio.until(no_job_left)
    page = opened(scheme, viewport)
    page.wait_for_selector(f"#likelihood[data-drawn={scheme}] img")
    if scheme == "dark" and viewport == DESKTOP:
        picture(page, "dark")
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.evaluate(BEYOND) == []
    path = tmp_path / f"studio-{scheme}-{viewport['width']}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 50_000
