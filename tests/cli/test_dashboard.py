"""`ropewalk dashboard` with its real server: what it answers, to whom, on which runs, and that a search goes on."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock
import psutil
import pytest

from ropewalk import ScalingFactors
from ropewalk.cli import run

ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from ropewalk.cli import main; main(sys.argv[1:])",
    "dashboard",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT = 60.0


class Dashboard:
    """A served run."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        address = process.stdout.readline()
        if not address:
            raise AssertionError(process.communicate(timeout=WAIT)[1])
        self.port = urlsplit(address.strip()).port or 0

    def ask(self, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str]:
        """Status and body."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=WAIT)) as connection:
            connection.request(method, path, headers={"Host": host} if host else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def read(self, path: str) -> Any:
        status, body = self.ask(path)
        assert status == 200, body
        return json.loads(body)

    def studies(self) -> list[str]:
        return [study["study_name"] for study in self.read("/api/studies")["study_summaries"]]

    def end(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=WAIT)
        return self.process.returncode


@contextmanager
def dashboard(*arguments: object) -> Iterator[Dashboard]:
    command = [*COMMAND, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Dashboard(process)
    finally:
        process.kill()
        process.communicate()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def served(uninterrupted: tuple[Any, Path]) -> Iterator[tuple[Dashboard, Any, Path]]:
    """A finished small search: its dashboard, its result and its directory."""
    result, out = uninterrupted
    with dashboard(out) as page:
        yield page, result, out


def test_the_pages_and_their_script_come_from_here(served: tuple[Dashboard, Any, Path]) -> None:
    page = served[0]
    assert page.ask("/")[0] == 302
    status, body = page.ask("/dashboard")
    assert status == 200
    assert 'src="/static/bundle.js"' in body
    assert "//" not in body.replace("http://www.w3.org/2000/svg", "")  # nothing from elsewhere
    assert len(page.ask("/static/bundle.js")[1]) > 100_000


def test_every_candidate_is_a_trial_with_its_layers_and_figures(served: tuple[Dashboard, Any, Path]) -> None:
    page, result, out = served
    assert page.studies() == [f"{out.name}: search", f"{out.name}: search, validation"]
    study = page.read("/api/studies/0")
    assert len(study["trials"]) == len(result.records)
    best = max(result.records, key=lambda record: record.fitness)
    shown = study["trials"][result.records.index(best)]
    assert shown["values"] == [best.fitness]
    assert study["objective_names"] == ["fitness"]
    assert [param["name"] for param in shown["params"]] == ["layer 0", "layer 1", "layer 2", "layer 3"]
    attributes = {row["key"]: row["value"] for row in shown["user_attrs"]}
    assert float(attributes["generation"]) == best.generation
    assert float(attributes["score @0"]) == best.found[0].scores[:, 0].mean()
    assert float(attributes["log-likelihood @2"]) == pytest.approx(best.found[0].log_likelihoods[:, 1].mean())
    assert "record" not in attributes
    about = {row["key"]: row["value"] for row in study["user_attrs"]}
    assert about["model.model_type"] == "llama"


def test_nothing_can_be_changed(served: tuple[Dashboard, Any, Path]) -> None:
    page, _, out = served
    before = digests(out)
    for method, path in (
        ("DELETE", "/api/studies/0"),
        ("POST", "/api/studies"),
        ("POST", "/api/studies/0/rename"),
        ("PUT", "/api/studies/0/note"),
    ):
        assert page.ask(path, method)[0] == 405
    page.studies()
    assert {name: digest for name, digest in digests(out).items() if name in before} == before


def test_a_foreign_page_can_not_ask_under_another_name(served: tuple[Dashboard, Any, Path]) -> None:
    page = served[0]
    assert page.ask("/api/studies", host=f"attacker.example:{page.port}")[0] == 403
    assert page.ask("/api/studies", host=f"localhost:{page.port}")[0] == 200


def test_only_this_machine_can_open_it_and_ctrl_c_frees_the_port(
    uninterrupted: tuple[Any, Path], tmp_path: Path
) -> None:
    (tmp_path / "study.db").write_bytes((uninterrupted[1] / "study.db").read_bytes())
    with dashboard(tmp_path) as page:
        page.studies()
        listening = [
            connection.laddr
            for connection in psutil.Process(page.process.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == [("127.0.0.1", page.port)]
        assert page.end() == 0
    with closing(socket.socket()) as another:
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        another.bind(("127.0.0.1", page.port))
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]  # no write-ahead file that a copy would miss


def test_a_port_can_be_asked_for_and_a_taken_one_is_said(
    uninterrupted: tuple[Any, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert run(["dashboard", str(uninterrupted[1]), "--port", str(other.getsockname()[1])]) == 2
    assert "is taken; leave it out for a free one" in capsys.readouterr().err
    assert run(["dashboard", str(uninterrupted[1]), "--port", "70000"]) == 2
    with dashboard(uninterrupted[1], "--port", free_port()) as page:
        assert page.studies()


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


SEARCH = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from small_search import whole_search
whole_search(Path(sys.argv[2]), Path(sys.argv[3]), on_event=lambda event: time.sleep(0.05))
"""


def test_a_search_goes_on_beside_it_and_its_candidates_appear(
    uninterrupted: tuple[Any, Path], tiny_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "kv"
    out.mkdir()
    (out / "run.lock").touch()  # as `ropewalk search` leaves it while it profiles: there is no study yet
    with dashboard(out) as page:
        assert page.studies() == []
        command = [sys.executable, "-c", SEARCH, str(ROOT / "tests"), str(tiny_path), str(out)]
        search = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        counts = set()
        while search.poll() is None:
            if page.studies():
                counts.add(len(page.read("/api/studies/0")["trials"]))
            time.sleep(0.2)
        assert search.returncode == 0, search.communicate()[1]
        deadline = time.monotonic() + WAIT
        records = uninterrupted[0].records
        while len(page.read("/api/studies/0")["trials"]) < len(records) and time.monotonic() < deadline:
            time.sleep(0.5)  # the dashboard looks for new trials every two seconds
        assert len(page.read("/api/studies/0")["trials"]) == len(records)
        assert page.end() == 0
    assert counts, "the dashboard never saw the search at work"
    assert ScalingFactors.load(out / "factors.json").values == uninterrupted[0].factors.values


def test_a_run_that_another_process_drives_can_be_watched(uninterrupted: tuple[Any, Path]) -> None:
    with filelock.FileLock(uninterrupted[1] / "study.lock"), dashboard(uninterrupted[1]) as page:
        assert len(page.studies()) == 2


def test_the_run_is_found_inside_a_mended_directory(uninterrupted: tuple[Any, Path], tmp_path: Path) -> None:
    control = tmp_path / "mended" / "search" / "controls" / "uniform"
    control.mkdir(parents=True)
    for folder in (control, control.parents[1]):
        (folder / "study.db").write_bytes((uninterrupted[1] / "study.db").read_bytes())
    with dashboard(tmp_path / "mended") as page:
        assert page.studies()[0] == "mended: search"
        assert "mended: control uniform" in page.studies()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: None, "no such directory"),
        (lambda run: run.mkdir(), "no run of ropewalk (no study.db in it)"),
        (lambda run: (run.mkdir(), (run / "study.db").write_bytes(b"no database")), "can't be read as a study"),
        (lambda run: (run.mkdir(), sqlite3.connect(run / "study.db").close()), "can't be read as a study"),
    ],
)
def test_a_directory_that_is_no_run_gets_one_line(
    spoil: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(tmp_path / "run")
    assert run(["dashboard", str(tmp_path / "run")]) == 2
    assert says in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(uninterrupted: tuple[Any, Path]) -> None:
    code = "import sys; sys.modules['optuna_dashboard'] = None\n" + COMMAND[2]
    command = [sys.executable, "-c", code, "dashboard", str(uninterrupted[1])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert ended.returncode == 2
    assert "pip install ropewalk[dashboard]" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (Debian: apt-get install chromium)")
def test_in_a_browser_it_draws_the_search_and_asks_nobody_else(served: tuple[Dashboard, Any, Path]) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    base = f"http://127.0.0.1:{served[0].port}"
    asked, complaints = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        for path in ("/dashboard", "/dashboard/studies/0", "/dashboard/studies/0/trials?numbers=0"):
            page.goto(base + path)
            page.wait_for_function("!document.body.innerText.includes('NOW LOADING')")
            page.wait_for_load_state("networkidle")
        page.wait_for_selector("text=layer 3")
        assert "log-likelihood @2" in page.inner_text("body")
        browser.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith((base, "data:", "blob:"))] == []
