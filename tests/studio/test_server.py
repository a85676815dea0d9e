"""The studio's server: what it computes, what it keeps, whom it refuses, and that it survives what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studio_process import COMMAND, SMALL, Served, no_job_left, ready, served

from ropewalk import ScalingFactors
from ropewalk.cli import run
from ropewalk.comparison import compare
from ropewalk.evaluate import Evaluator
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

POINTS = [[0.0, 0.9], [0.3, 1.5], [0.8, 1.1], [1.0, 1.0]]
HUMP = {"control_points": POINTS, "mode": "depth", "skip_first": 0, "layers": {}}


def test_factors_of_a_drag_are_those_of_the_package_and_change_nothing(studio: Served) -> None:
    before = studio.read("state")["current"]
    found = studio.act("factors", draft=HUMP)
    assert found["factors"] == list(ScalingFactors.from_bezier(POINTS, 4))
    off = studio.act("factors", draft={**HUMP, "layers": {"2": 0.75}})
    assert off["factors"][2] == 0.75
    assert off["factors"][:2] == found["factors"][:2]
    assert studio.read("state")["current"] == before


def test_the_decay_is_that_of_the_analysis(studio: Served, roomy_path: Path) -> None:
    from ropewalk import load_pretrained
    from ropewalk.analysis.parts.attention_reader import read_attention
    from ropewalk.analysis.parts.readings import roformer_bound
    from ropewalk.patch import patched

    model, tokenizer = load_pretrained(roomy_path, device="cpu", dtype="float32")
    factors = ScalingFactors.from_bezier(POINTS, 4)
    drawn = studio.act("factors", draft=HUMP)["decay"]
    ids = tokenizer("a" * 20)["input_ids"][:16]
    with patched(model, factors):
        read = read_attention(model, ids, 8)
    for layer in range(4):
        expected = roformer_bound(read.rotations[layer])
        whole = expected[:-1]  # the last class of the short prompt is cut off
        np.testing.assert_allclose(drawn[layer][: len(whole)], whole, atol=2e-4)


def test_undo_redo_save_and_load(studio: Served) -> None:
    studio.act("load", vanilla=True)
    state = studio.act("curve", draft=HUMP)
    assert state["current"] == HUMP
    assert state["can_undo"]
    assert studio.act("undo")["current"]["control_points"][1][1] == 1.0
    assert studio.act("redo")["current"] == HUMP
    assert not studio.read("state")["can_redo"]
    studio.act("save", name="hump")
    directory = Path(studio.read("state")["directory"])
    kept = ScalingFactors.load(directory / "hump.factors.json")
    assert kept.values == ScalingFactors.from_bezier(POINTS, 4).values
    assert kept.model["num_layers"] == 4
    assert kept.found["control_points"] == POINTS
    assert "studio" in kept.found["method"]["method"]
    studio.act("load", vanilla=True)
    assert studio.act("load", saved="hump")["current"] == HUMP
    assert "hump" not in studio.act("forget", name="hump")["saved"]
    assert not (directory / "hump.factors.json").exists()
    assert "no saved curve" in studio.refused("forget", name="hump")


def test_what_is_looked_at_is_kept_and_nothing_else(studio: Served) -> None:
    version = studio.read("state")["version"]
    look = {"hidden": ["gone"], "reference": "hump", "layer": 3}
    state = studio.act("look", **look)
    assert (state["look"], state["version"]) == (look, version)
    for wrong in ({"hidden": "all"}, {"layer": True}, {"reference": None}, {"hidden": ["x" * 41]}):
        assert "what is looked at" in studio.refused("look", **{**look, **wrong})
    assert studio.act("look", hidden=[], reference="vanilla", layer=None)["look"]["hidden"] == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", "x" * 41, "vanilla", 3, None])
def test_names_are_those_of_files(studio: Served, name: Any) -> None:
    assert "can't be the name" in studio.refused("save", name=name)


@pytest.mark.parametrize(
    ("draft", "says"),
    [
        (None, "has the fields"),
        ({}, "has the fields"),
        ({**HUMP, "control_points": [[0, 1], [1, "x"]]}, "control points"),
        ({**HUMP, "control_points": [[0, 1], [1, -1]]}, "y > 0"),
        ({**HUMP, "control_points": [[x / 20, 1.0] for x in range(21)]}, "at most"),
        ({**HUMP, "mode": "spline"}, "mode"),
        ({**HUMP, "skip_first": 9}, "skip_first"),
        ({**HUMP, "skip_first": True}, "skip_first"),
        ({**HUMP, "layers": {"9": 1.0}}, "layer 9"),
        ({**HUMP, "layers": {"1": float("nan")}}, "finite"),
        ({**HUMP, "layers": {"one": 1.0}}, "no index"),
        ({**HUMP, "layers": [1]}, "layers"),
    ],
)
def test_what_is_no_curve_is_refused(studio: Served, draft: Any, says: str) -> None:
    assert says in studio.refused("curve", draft=draft)


def test_a_file_comes_back_as_it_was(studio: Served) -> None:
    studio.act("curve", draft={**HUMP, "layers": {"1": 1.234}})
    status, text, headers = studio.ask("/api/factors.json")
    assert status == 200
    assert "attachment" in headers["content-disposition"]
    studio.act("load", vanilla=True)
    state = studio.act("upload", **json.loads(text))
    assert state["current"] == {**HUMP, "layers": {"1": 1.234}}
    free = ScalingFactors([0.9, 1.3, 0.8, 1.1])
    assert studio.act("upload", **free.to_dict())["figures"]["factors"] == [0.9, 1.3, 0.8, 1.1]


def test_broken_uploads_are_refused_and_the_page_lives(studio: Served) -> None:
    good = ScalingFactors([0.9, 1.3, 0.8, 1.1]).to_dict()
    before = studio.read("state")["current"]
    assert "schema" in studio.refused("upload")
    assert "digest" in studio.refused("upload", **{**good, "values": [1.0, 1.0, 1.0, 1.1]})
    assert "layers" in studio.refused("upload", **ScalingFactors([1.0, 1.1]).to_dict())
    other = ScalingFactors([1.0] * 4, model={"name": "other", "fingerprint": "sha256:0", "num_layers": 4})
    assert "other" in studio.refused("upload", **other.to_dict())
    for body in (b"no json", b"[1]", b"\xff\xfe", b"[" * 100_000):
        assert studio.ask("/api/upload", "POST", body)[0] == 400
    assert studio.read("state")["current"] == before


def test_a_request_has_a_limit_also_without_a_length(studio: Served) -> None:
    assert studio.ask("/api/upload", "POST", b"1" * 300_000)[0] == 413
    with closing(socket.create_connection(("127.0.0.1", studio.port), timeout=60)) as raw:
        head = (
            f"POST /api/upload HTTP/1.1\r\nHost: 127.0.0.1:{studio.port}\r\nCookie: {studio.cookie}\r\n"
            f"Origin: http://127.0.0.1:{studio.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        raw.sendall(head.encode() + (b"10000\r\n" + b"1" * 65536 + b"\r\n") * 5 + b"0\r\n\r\n")
        assert b" 413 " in raw.recv(200)


def test_nobody_without_the_token_gets_an_answer(studio: Served) -> None:
    wrong = f"ropewalk-studio-{studio.port}=wrong"
    for path in ("/", "/api/state", "/static/studio.js", "/?token=wrong", "/api/state?token=" + studio.token):
        assert studio.ask(path, Cookie=None)[0] == 401
        assert studio.ask(path, Cookie=wrong)[0] == 401
    status, _, headers = studio.ask(f"/?token={studio.token}", Cookie=None)
    assert status == 303
    assert headers["location"] == "/"
    assert "httponly" in headers["set-cookie"].lower()
    assert "samesite=strict" in headers["set-cookie"].lower()


def test_hosts_and_origins_are_checked(studio: Served) -> None:
    assert studio.ask("/api/state", Host=f"attacker.example:{studio.port}")[0] == 403
    assert studio.ask("/api/state", Host="127.0.0.1:1")[0] == 403
    assert studio.ask("/api/state", Origin="http://attacker.example")[0] == 403
    for origin in (None, "null", "http://attacker.example", f"https://127.0.0.1:{studio.port}"):
        assert studio.ask("/api/undo", "POST", b"{}", Origin=origin)[0] == 403
    assert studio.ask("/api/undo")[0] == 405
    own = f"localhost:{studio.port}"
    assert studio.ask("/api/redo", "POST", b"{}", Host=own, Origin=f"http://{own}")[0] == 200


def test_every_answer_forbids_other_hosts(studio: Served) -> None:
    for path in ("/", "/api/state", "/static/studio.css", "/nothing"):
        headers = {name.lower(): value for name, value in studio.ask(path)[2].items()}
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/nothing.js"):
        assert studio.ask(path)[0] == 404


def test_an_evaluation_has_the_package_s_own_figures(studio: Served, roomy_path: Path) -> None:
    from ropewalk import load_pretrained

    studio.act("load", vanilla=True)
    studio.act("curve", draft=HUMP)
    studio.act("save", name="by hand")
    studio.act("evaluate")
    state = studio.until(no_job_left)
    assert [job["state"] for job in state["jobs"]][-1] == "done"
    results = studio.read("results")
    assert [row["name"] for row in results["arms"]] == ["vanilla", "by hand"]
    model, tokenizer = load_pretrained(roomy_path, device="cpu", dtype="float32")
    task = make_task("kv", TaskOptions(positions=(0, 2), keys=3, limit=3))
    factors = ScalingFactors.from_bezier(POINTS, 4)
    own = Evaluator(model, tokenizer, task, task.examples("validation")).score_many([None, factors])
    assert results["rows"][1]["accuracy"] == own[1].accuracy.tolist()
    expected = compare(*own)["utilisation_log_likelihood"]
    assert results["arms"][1]["gain"]["difference"] == pytest.approx(expected["difference"], abs=1e-5)
    assert results["arms"][1]["gain"]["low"] == pytest.approx(expected["low"], abs=1e-5)
    for chart in ("accuracy", "likelihood"):
        status, svg, headers = studio.ask(f"/api/chart/{chart}?width=500&theme=dark")
        assert status == 200
        assert headers["content-type"].startswith("image/svg+xml")
        assert "by hand" in svg
    studio.act("save", name="by hand")  # its file says what it scored from now on
    directory = Path(studio.read("state")["directory"])
    assert ScalingFactors.load(directory / "by hand.factors.json").found["evaluated"]["records"] == 3


def test_the_session_survives_an_end(roomy_path: Path, tmp_path: Path) -> None:
    arguments = ("--model", roomy_path, *SMALL)
    with served(*arguments, cwd=tmp_path) as page:
        ready(page)
        page.act("curve", draft=HUMP)
        page.act("save", name="kept")
        page.act("evaluate")
        page.until(no_job_left)
        before = page.read("results")
        assert page.end() == 0
    with served(*arguments, cwd=tmp_path) as page:
        state = ready(page)
        assert Path(state["directory"]) == Path("runs") / "studio-tiny-model"
        assert state["current"] == HUMP
        assert list(state["saved"]) == ["kept"]
        assert page.read("results") == before
        assert page.act("undo")["current"]["control_points"][1][1] == 1.0


def test_a_model_that_cant_be_loaded_is_said_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with served("--model", tmp_path / "none", *SMALL, "--out", tmp_path / "session", cwd=tmp_path) as page:
        state = ready(page)
        assert "none" in state["trouble"]
        assert state["trouble"] in page.refused("evaluate")
        assert page.ask("/")[0] == 200
        assert page.end() == 0


def test_mistakes_get_one_line(roomy_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", str(roomy_path), *SMALL, "--out", str(tmp_path / "session")]
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        assert run(["studio", *model, "--port", taken]) == 2
    assert "is taken; leave it out for a free one" in capsys.readouterr().err
    for typed, says in (
        (["studio"], "name a run"),
        (["studio", *model, "--port", "70000"], "expected 1 to 65535"),
        (["studio", str(tmp_path / "no such run")], "no such folder"),
        (["studio", "--model", str(roomy_path), "--task", "kw"], "kv"),
    ):
        assert run(typed) == 2
        error = capsys.readouterr().err
        assert says in error
        assert len(error.splitlines()) == 1
    (tmp_path / "session" / "session.json").write_text('{"schema": "ropewalk.studio/1", "model": "other"}')
    assert run(["studio", *model]) == 2
    assert "is a session on 'other'" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None\n" + COMMAND[2]
    command = [sys.executable, "-c", code, "studio", "--model", "demo"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == "ropewalk: the studio is not installed: pip install ropewalk[studio]\n"


def test_ctrl_c_ends_it_while_it_loads(roomy_path: Path, tmp_path: Path) -> None:
    with served("--model", roomy_path, *SMALL, "--out", tmp_path / "s", cwd=tmp_path) as page:
        assert page.read("state")["model"] == roomy_path.name
        os.killpg(page.process.pid, signal.SIGINT)  # the model's process too, which leaves it to the studio
        _, error = page.process.communicate(timeout=300)
        assert page.process.returncode == 0
        assert "Traceback" not in error


def test_a_kill_of_the_model_s_process_leaves_the_page_alive(roomy_path: Path, tmp_path: Path) -> None:
    many = ("--keys", "40", "--positions", "20", "--limit", "20", "--dtype", "float32")
    with served("--model", roomy_path, *many, "--out", tmp_path / "s", cwd=tmp_path) as page:
        assert ready(page)["trouble"] == ""
        listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True).stdout
        own = [line.split(maxsplit=2) for line in listed.splitlines() if "spawn_main" in line]
        (model,) = [int(pid) for pid, parent, _ in own if int(parent) == page.process.pid]
        page.act("evaluate")
        page.until(lambda state: state["jobs"][0]["done"] > 0)
        os.kill(model, signal.SIGKILL)
        (job,) = page.until(no_job_left)["jobs"]
        assert (job["state"], "was ended by SIGKILL" in job["reason"]) == ("failed", True)
        assert page.ask("/")[0] == 200
        page.act("evaluate")  # the model is loaded again
        page.until(lambda state: state["jobs"][-1]["done"] > 0)
        page.act("cancel", job=page.read("state")["jobs"][-1]["number"])
        page.until(lambda state: state["jobs"][-1]["state"] == "cancelled")
        assert page.end() == 0
