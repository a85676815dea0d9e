"""`ropewalk mend`: the whole road on a tiny model, what it leaves, how it continues, when it stops or refuses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from ropewalk import ScalingFactors, load_pretrained
from ropewalk.cli import run
from ropewalk.cli.mend_profile import SIZES, judge, walk
from ropewalk.cli.mend_summary import page
from ropewalk.patch import factors_of
from ropewalk.verdict import judge as judge_test

ROOT = Path(__file__).parents[2]
# A random model answers nothing: whatever its size is, the profile says that it is too hard.
RECORDS = ["--limit", "4", "--validation-limit", "4", "--test-limit", "5"]
SMALL = ["--keys", "4", *RECORDS, "--budget", "900", "--control-budget", "0", "--dtype", "float32", "--anyway"]


def ropewalk(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_same(one: Any, other: Any) -> None:
    """Equal but for rounding: another process may multiply its matrices in other pieces."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
        return
    assert one == (pytest.approx(other, rel=1e-5, abs=1e-7) if isinstance(other, float) else other)


@pytest.fixture(scope="module")
def roomy(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint for longer prompts: its tokenizer has a token a letter."""
    folder = tmp_path_factory.mktemp("roomy") / "roomy"
    shutil.copytree(tiny_path, folder)
    config = read(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return folder


@pytest.fixture(scope="module")
def mended(roomy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mend") / "out"
    assert ropewalk("mend", roomy, *SMALL, "--out", out, "--json", out / "json") == 0
    return out


# What it leaves ----------------------------------------------------------------------------------------------------


def test_the_whole_road(mended: Path, roomy: Path) -> None:
    told = read(mended / "json")
    assert told["profile"] == read(mended / "profile.json")
    assert told["result"] == read(mended / "search" / "result.json")
    assert list(told["result"]["tasks"]) == ["kv", "kv 2"]  # 4 keys and 3: the model answers nothing, so no needle
    assert told["result"]["search"]["objective"]["floor"]["epsilon"] == 0.01
    factors = ScalingFactors.load(mended / "search" / "factors.json")
    written = (mended / "SUMMARY.md").read_text()
    assert "In short texts: perplexity " in written
    assert told["checkpoint"] == (None if told["verdict"] in ("vanilla", "worse") else (mended / "model").as_posix())
    if told["checkpoint"] is None:
        assert "there is no checkpoint" in written
        return
    assert f'load_pretrained("{told["checkpoint"]}")' in written
    model, _ = load_pretrained(mended / "model", device="cpu", dtype="float32")
    assert factors_of(model).values == factors.values
    assert (mended / "model" / "model.safetensors").read_bytes() == (roomy / "model.safetensors").read_bytes()
    assert ropewalk("profile", "--model", mended / "model", "--keys", "3", "--limit", "2", "--json", mended / "p") == 0
    assert "factors" in read(mended / "p")


def test_the_page_is_one_page_and_says_all(mended: Path) -> None:
    written = (mended / "SUMMARY.md").read_text()
    assert len(written.splitlines()) < 70
    for heading in ("## kv, 4 keys", "## kv 2, 3 keys", "## Warnings and constraints", "## Use and undo", "## Cost"):
        assert heading in written
    assert read(mended / "search" / "result.json")["sentence"] in written
    for table in re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_same_again_scores_no_candidate_and_leaves_the_checkpoint(
    mended: Path, roomy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {path: path.stat().st_mtime_ns for path in mended.glob("model/*")} | {
        mended / "profile.json": (mended / "profile.json").stat().st_mtime_ns
    }
    before = read(mended / "search" / "factors.json")["values"]
    (mended / ".model.partial-0").mkdir()  # of a run that was killed while it wrote
    evaluations = read(mended / "json")["result"]["search"]["evaluations"]
    assert ropewalk("mend", roomy, *SMALL, "--out", mended, "--json", mended / "json") == 0
    assert "Profile kv, 4 keys" not in capsys.readouterr().err
    assert read(mended / "json")["result"]["search"]["evaluations"] == evaluations
    assert read(mended / "search" / "factors.json")["values"] == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert ".model.partial-0" not in names(mended) or read(mended / "json")["checkpoint"] is None


def test_the_page_of_vanilla(roomy: Path, tmp_path: Path) -> None:
    """Bounds that leave the identity alone: the real figures of a search that found nothing."""
    alone = ["--low", "1", "--high", "1", "--generations", "1", "--control-budget", "0", "--dtype", "float32"]
    assert ropewalk("search", "--model", roomy, "--keys", "3", *RECORDS, *alone, "--out", tmp_path / "search") == 0
    result = read(tmp_path / "search" / "result.json")
    assert judge_test(result, True) == "vanilla"
    written = page({"sentence": "A U."}, result, "vanilla", None, tmp_path)
    assert "nothing that was tried beats the model as it is, so there is no checkpoint" in written
    assert "| position | vanilla |\n" in written
    assert "load_pretrained" not in written


def test_tasks_of_the_users_own(roomy: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'positions = 3\nbudget = 700\nanyway = true\ncontrol-budget = 0\ndtype = "float32"\n'
        'limit = 3\nvalidation-limit = 2\ntest-limit = 3\nmax-position-loss = 0.5\n'
        '[[tasks]]\ntask = "kv"\nkeys = 3\n[[tasks]]\ntask = "needle"\nlengths = 50\n'
    )  # fmt: skip
    out = tmp_path / "out"
    arguments = ["--config", tmp_path / "run.toml", "--no-generate", "--out", out, "--json", out / "json"]
    assert ropewalk("mend", roomy, *arguments) == 0
    told = read(out / "json")
    assert told["profile"]["tasks"] is None
    assert [row["name"] for row in told["profile"]["tried"]] == ["kv, 3 keys", "needle, lengths=50"]
    assert list(told["result"]["tasks"]) == ["kv", "needle"]
    assert told["result"]["constraints"][0]["limit"] == 0.5


# When it stops -----------------------------------------------------------------------------------------------------


def test_without_a_u_it_says_so_and_stops(roomy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sizes that the context takes, from 10 keys down."""
    out = tmp_path / "out"
    assert ropewalk("mend", roomy, "--out", out, "--json", tmp_path / "json") == 0
    assert names(out) - {".mend.lock"} == {"profile.json"}
    said = " ".join(capsys.readouterr().out.split())
    assert "No U to mend: kv, 10 keys: too hard: next to nothing is right (0 0 0 0 0 %); kv, 5 keys" in said
    told = read(tmp_path / "json")
    assert told["profile"]["u"] is False
    assert told["verdict"] is told["checkpoint"] is told["result"] is None
    # Settings may change as long as nothing was searched.
    assert ropewalk("mend", roomy, "--keys", "3", "--seed", "1", "--out", out) == 0
    assert read(out / "profile.json")["settings"]["tasks"]["seed"] == 1


def test_a_dry_run_writes_nothing(roomy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ropewalk("mend", roomy, *SMALL, "--out", tmp_path / "out", "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "supported, 4 of 4 layers are rotary" in said
    assert "First a profile on 50 records" in said
    assert "A checkpoint in the end" in said
    assert "Nothing was written" in said
    assert names(tmp_path) == set()


# What it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "0"], "--budget is 0"),
        (["--time", "0"], "--time is 0"),
        (["--max-position-loss", "-1"], "epsilon -1.0"),
        (["--task", "kv:kyes=3"], "did you mean 'keys'"),
        (["--positions", "x"], "--positions 'x'"),
        (["--positions", "9"], "takes no object of 10 keys"),
        (["--data", "/no/file"], "/no/file: no such file"),
        (["--keys", "9"], "longer than the model's 512 tokens"),
        (["--keys", "3", "--anyway", "--budget", "10"], "give at least"),
        (["second"], "second"),
    ],
)
def test_a_mistake_gets_one_line(
    arguments: list[str], says: str, tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ropewalk("mend", tiny_path, *arguments, "--out", tmp_path / "out") == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ropewalk: ")
    assert says in line


def test_an_unsupported_model_is_refused_with_its_reason(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=2, vocab_size=300, n_positions=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_path / name, tmp_path / "gpt2" / name)
    assert ropewalk("mend", tmp_path / "gpt2", "--out", tmp_path / "out") == 2
    assert "learned absolute positions" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused_with_the_difference(
    mended: Path, roomy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read(mended / "profile.json")
    assert ropewalk("mend", roomy, *SMALL, "--seed", "5", "--out", mended) == 2
    error = capsys.readouterr().err
    assert "tasks.seed: 0 -> 5" in error
    assert "prompts" not in error  # it is refused before anything is scored
    assert ropewalk("mend", roomy, *SMALL, "--max-position-loss", "0.2", "--out", mended) == 2
    assert "objective.floor.epsilon: 0.01 -> 0.2" in capsys.readouterr().err
    assert read(mended / "profile.json") == before


def test_a_second_driver_is_refused(roomy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with filelock.FileLock(tmp_path / ".mend.lock"):
        assert ropewalk("mend", roomy, *SMALL, "--out", tmp_path) == 2
    error = capsys.readouterr().err
    assert "another process is mending here" in error
    assert "prompts" not in error


@pytest.mark.parametrize("kind", ["out", "model"])
def test_a_place_that_is_taken_is_said_before_anything_is_scored(
    kind: str, roomy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if kind == "out":
        out.write_text("mine")
    else:
        (out / "model").mkdir(parents=True)
        (out / "model" / "mine").write_text("mine")
    assert ropewalk("mend", roomy, *SMALL, "--out", out) == 2
    error = capsys.readouterr().err
    assert "use another --out" in error or "exists already" in error
    assert "prompts" not in error


# The size of the task ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "tried"),
    [
        ({75: "U"}, [75]),
        ({75: "no U"}, [75]),
        ({75: "too hard", 40: "too hard", 20: "U"}, [75, 40, 20]),
        ({75: "too easy", 140: "no U"}, [75, 140]),
        ({75: "too easy", 140: "too easy", 300: "too easy"}, [75, 140, 300]),
        ({75: "too hard", 40: "too easy"}, [75, 40]),  # what lies between is for the user to say
        (dict.fromkeys(SIZES, "too hard"), [75, 40, 20, 10, 5, 3]),
    ],
)
def test_it_goes_down_while_too_hard_and_up_while_too_easy(verdicts: dict[int, str], tried: list[int]) -> None:
    rows = walk(SIZES, 75, lambda keys: {"keys": keys, "verdict": verdicts[keys]})
    assert [row["keys"] for row in rows] == tried


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        ([0.8, 0.2, 0.7], "U"),
        ([0.5, 0.6, 0.5], "no U"),
        ([0.1, 0.0, 0.1], "too hard"),
        ([0.95, 0.9, 1.0], "too easy"),
        ([0.8, 0.2], "open"),
    ],
)
def test_what_a_profile_says(accuracy: list[float], verdict: str) -> None:
    assert judge({"accuracy": accuracy, "nll": [1.0] * len(accuracy), "metric": "exact_match"}) == verdict


# What the test says ------------------------------------------------------------------------------------------------

ROW = {"difference": 0.0, "p": 1.0}
UP, DOWN = {"difference": 0.1, "p": 0.01}, {"difference": -0.1, "p": 0.01}
UNKNOWN = {"difference": None, "p": None}


def gain(score: dict[str, Any], likelihood: dict[str, Any], last: float = 0.0, p: float = 1.0) -> dict[str, Any]:
    return {
        "average": score,
        "average_log_likelihood": likelihood,
        "positions": [0, 4],
        "accuracy": [0.1, last],
        "accuracy_p_holm": [1.0, p],
        "log_likelihood": [ROW, ROW],
        "log_likelihood_p_holm": [1.0, 1.0],
    }


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([gain(UP, UP)], "mended"),
        ([gain(UP, UNKNOWN)], "mended"),
        ([gain(ROW, UP)], "likelier"),
        ([gain(ROW, ROW)], "unproven"),
        ([gain(UP, UP), gain(ROW, DOWN)], "mixed"),
        ([gain(UP, UP, last=-0.2, p=0.01)], "mixed"),
        ([gain(ROW, ROW, last=-0.2, p=0.2)], "unproven"),
        ([gain(DOWN, ROW)], "worse"),
    ],
)
def test_what_the_test_says(gains: list[dict[str, Any]], verdict: str) -> None:
    result = {"tasks": {str(number): {"gain": {"factors": row}} for number, row in enumerate(gains)}}
    assert judge_test(result, False) == verdict
    assert judge_test(result, True) == "vanilla"


# The command line --------------------------------------------------------------------------------------------------


def test_help_loads_no_torch() -> None:
    code = "import sys; from ropewalk.cli import run; run(['mend', '--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "--anyway" in done.stdout
    assert done.stdout.strip().endswith("False")


# Killed, and the real model ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_any_instant_it_ends_as_if_it_had_not_been(mended: Path, roomy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from ropewalk.cli import main; main()", "mend", str(roomy), *SMALL]
    command += ["--out", str(out), "--json", str(tmp_path / "json")]
    for appears in ("profile.json", "search/study.db", "search/scores.json", "model", "SUMMARY.md"):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not (out / appears).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode in (0, -signal.SIGKILL)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    for name in ("search/factors.json", "model/config.json"):
        if not (mended / name).exists():
            continue
        assert {**read(out / name), "found": 0, "digest": 0} == {**read(mended / name), "found": 0, "digest": 0}
    told, whole = read(tmp_path / "json"), read(mended / "json")
    assert told["verdict"] == whole["verdict"]
    assert_same(told["result"]["tasks"], whole["result"]["tasks"])


@pytest.mark.slow
def test_the_demo_model(demo_path: Path, tmp_path: Path) -> None:
    """Really rotary, really answering: with the least budget, and whatever the verdict on so few records."""
    limits = ["--limit", "4", "--validation-limit", "4", "--test-limit", "4", "--budget", "700"]
    out, told = tmp_path / "out", tmp_path / "json"
    more = ["--anyway", "--control-budget", "0", "--keys", "3", "--out", out, "--json", told]
    assert ropewalk("mend", demo_path, *limits, *more) == 0
    content = read(told)
    first, *needle = content["profile"]["tried"]
    assert first["figures"]["records"] == 50
    assert first["figures"]["average"] > 0.1
    assert [row["name"].split(",")[0] for row in needle] == ["needle"] * (first["verdict"] == "U")
    assert (out / "SUMMARY.md").exists()
    assert (out / "model" / "config.json").exists() == (content["verdict"] not in ("vanilla", "worse"))
