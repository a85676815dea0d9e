"""Reading beyond the trained length: lengths, factors, prompts that fit, arms and what separates them."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk import ScalingFactors, load_pretrained
from ropewalk.cli import run
from ropewalk.engine.rope_schemes import longest_input
from ropewalk.errors import DataError
from ropewalk.evaluate import Evaluator
from ropewalk.extrapolate import scheme_factor, trained_length, triangle
from ropewalk.extrapolate_prompts import LongTexts, kv_task, needle_task, parse_lengths, parse_names
from ropewalk.prompts import PromptRenderer
from ropewalk.rope_override import RopeOverride
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

ARMS = ["nothing", "linear", "linear+triangle", "linear+searched", "dynamic", "yarn"]


def changed(asked: list[object], name: str, value: str) -> list[object]:
    """The same command with another value of an option."""
    place = asked.index(name) if name in asked else len(asked)
    return [*asked[:place], name, value, *asked[place + 2 :]]


def ropewalk(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two texts of a letter a token, and one that is too short for anything."""
    folder = tmp_path_factory.mktemp("texts")
    for seed, letters in ((0, 9000), (1, 9000), (2, 600)):
        drawn = random.Random(seed)
        words = ["".join(drawn.choices("abcdeilnorst", k=drawn.randint(2, 8))) for _ in range(letters // 6)]
        (folder / f"{seed}.txt").write_text(" ".join(words)[:letters])
    return folder


@pytest.fixture(scope="module")
def asked(tiny_path: Path, texts: Path) -> list[object]:
    """The tiny model is trained to 512 tokens."""
    budget = ["--limit", "2", "--budget", "24", "--rope", "linear"]
    return ["extrapolate", "--model", tiny_path, "--text", texts, "--lengths", "512,768", *budget]


@pytest.fixture(scope="module")
def out(asked: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extrapolate") / "out"
    assert ropewalk(*asked, "--out", folder) == 0
    return folder


# Lengths and prompts -----------------------------------------------------------------------------------------------


def test_lengths() -> None:
    assert parse_lengths("8k, 2K,4096") == (2048, 4096, 8192)
    for text in ("", "8kb", "4k,4096", "-1", "0k", "4k,"):
        with pytest.raises(DataError, match="--lengths"):
            parse_lengths(text)


def test_schemes() -> None:
    known = ("linear", "dynamic")
    assert parse_names("--rope", "dynamic, linear,dynamic", known) == ("dynamic", "linear")
    assert parse_names("--rope", "none", known) == ()
    for given in ("linear:2", "", "none,linear"):
        with pytest.raises(DataError, match="expected none, or of these with commas between: linear, dynamic"):
            parse_names("--rope", given, known)


@pytest.mark.parametrize(("length", "trained"), [(10_240, 8192), (10_000, 4096), (513, 512), (7, 3), (99_999, 4097)])
def test_a_scheme_of_its_factor_takes_the_length(length: int, trained: int, tiny_path: Path) -> None:
    factor = scheme_factor(length, trained)
    assert factor == pytest.approx(length / trained, abs=2e-4)
    for kind in ("linear", "dynamic", "yarn"):
        text = f"{kind}:{factor:.10g},original={trained}"
        assert RopeOverride.parse(text).factor == factor
        assert int(trained * factor) >= length
    assert scheme_factor(trained, trained) == scheme_factor(1, trained) == 1


def test_the_longest_input_of_a_loaded_scheme(tiny_path: Path) -> None:
    for kind in ("linear", "dynamic", "yarn"):
        model, _ = load_pretrained(tiny_path, rope=f"{kind}:{scheme_factor(700, 333):.10g},original=333")
        assert (longest_input(model) or 0) >= 700
        assert trained_length(model, None) == 333
    model, _ = load_pretrained(tiny_path, rope="linear:2")
    model.config.original_max_position_embeddings = None
    model.config.rope_parameters.pop("original_max_position_embeddings", None)
    with pytest.raises(DataError, match="linear already"):
        trained_length(model, None)
    assert trained_length(model, 99) == 99


@pytest.mark.parametrize("make", [kv_task, needle_task])
def test_prompts_fill_a_length_and_never_exceed_it(make: Any, tiny_path: Path) -> None:
    _, tokenizer = load_pretrained(tiny_path)
    renderer = PromptRenderer(tokenizer)
    for length in (1000, 1500, 4000):
        task = make(length, 3, 0, renderer)
        sizes = [len(renderer.render(example).ids) for example in task.examples("test")]
        assert 0.8 * length < max(sizes) <= length
    assert make(60, 3, 0, renderer) is None


def test_windows_of_a_split(texts: Path, tiny_path: Path) -> None:
    """Texts without room are left out, no token is scored twice, and splits share no letter."""
    _, tokenizer = load_pretrained(tiny_path)
    found = LongTexts.read(str(texts), tokenizer)
    renderer = PromptRenderer(tokenizer)
    read: dict[str, set[tuple[int, ...]]] = {}
    far = 511 // 4
    for split in ("search", "validation", "test"):
        task = found.windows(512, split, 3)
        assert task is not None
        examples = task.examples(split)
        assert [example.group for example in examples] == ["0.txt"] * 3 + ["1.txt"] * 3
        windows = [renderer.render_all(example)[0].ids for example in examples]
        assert {len(ids) for ids in windows} <= {511, 512}
        scored = [ids[-far:] for ids in windows]
        assert len(set(scored)) == 6
        assert scored[1] == windows[2][-2 * far : -far]  # the next far tokens follow at once
        read[split] = {ids[place : place + 24] for ids in windows for place in range(len(ids) - 23)}
    assert not read["search"] & read["test"]
    assert not read["search"] & read["validation"]
    assert not read["validation"] & read["test"]
    assert found.windows(3602, "test", 3) is None


def test_as_many_windows_as_there_can_be(tiny_path: Path) -> None:
    """Of two texts with room for 5 and 13 windows 13 of one are more than 5 of each."""
    texts = LongTexts(("a", "b"), (2000, 4000))
    for limit, each, sources in ((13, 13, 1), (9, 5, 2), (2, 2, 2)):
        task: Any = texts.windows(401, "test", limit)
        assert (task.limit, len(task.sources)) == (each, sources)


def test_the_triangle(tiny_path: Path) -> None:
    model, _ = load_pretrained(tiny_path)
    assert [round(value or 0, 4) for value in triangle(model).values] == [1.0, 1.2, 1.2, 1.0]


# The command -------------------------------------------------------------------------------------------------------


def test_every_arm_of_every_length(out: Path) -> None:
    result = read(out / "extrapolation.json")
    assert result["trained"] == 512
    assert len(result["lengths"]["768"]["tasks"]["perplexity"]["data"]) == 2  # digests of the texts
    within, beyond = result["lengths"]["512"], result["lengths"]["768"]
    assert list(within["arms"]) == ["nothing"]
    assert list(beyond["arms"]) == ARMS
    assert beyond["factor"] == 1.5
    assert beyond["arms"]["yarn"]["rope"] == "yarn:1.5,original=512"
    assert list(beyond["over_nothing"]) == ARMS[1:]
    assert list(beyond["over_scheme"]) == ["linear+triangle", "linear+searched"]
    assert list(beyond["over_triangle"]) == ["linear+searched"]
    for arm in beyond["arms"].values():
        assert arm["far"]["low"] <= arm["far"]["nll"] <= arm["far"]["high"]
        assert arm["far"]["perplexity"] == pytest.approx(math.exp(arm["far"]["nll"]))
        assert arm["far"]["nll"] == pytest.approx(arm["perplexity"]["nll"][-1])
    search = beyond["arms"]["linear+searched"]["search"]
    assert 0 < search["evaluations"] <= 24
    assert (out / "extrapolation.png").read_bytes().startswith(b"\x89PNG")
    for row in beyond["over_nothing"].values():
        assert row["far"]["p_holm"] >= row["far"]["p"]


def test_arms_are_what_the_scheme_and_the_factors_give(out: Path, texts: Path, tiny_path: Path) -> None:
    """Scored again by hand: the model loaded under the scheme, the test windows read with the factors."""
    arm = read(out / "extrapolation.json")["lengths"]["768"]["arms"]["linear+triangle"]
    model, tokenizer = load_pretrained(tiny_path, rope="linear:1.5")
    options = {"window": 767, "stride": 191}
    data = ",".join(str(texts / name) for name in ("0.txt", "1.txt"))
    task = make_task("perplexity", TaskOptions(data=data, limit=2, options=options))
    evaluator = Evaluator(model, tokenizer, task, task.examples("test"), own_loop=False)
    again = evaluator.score(ScalingFactors(arm["factors"]))
    assert np.allclose(again.nll, arm["perplexity"]["nll"], atol=1e-4)


def test_nothing_is_the_model_as_it_is(out: Path, texts: Path, tiny_path: Path) -> None:
    """Beyond its limit too: the same as under `default` with room for more."""
    arm = read(out / "extrapolation.json")["lengths"]["768"]["arms"]["nothing"]
    model, tokenizer = load_pretrained(tiny_path, rope="default,original=768")
    data = ",".join(str(texts / name) for name in ("0.txt", "1.txt"))
    task = make_task("perplexity", TaskOptions(data=data, limit=2, options={"window": 767, "stride": 191}))
    again = Evaluator(model, tokenizer, task, task.examples("test")).score(None)
    assert np.allclose(again.nll, arm["perplexity"]["nll"], atol=1e-5)


def test_the_same_command_reads_nothing_again(
    asked: list[object], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its tables fit a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    before = {path: path.stat().st_mtime_ns for path in (out / "arms").iterdir()}
    first = read(out / "extrapolation.json")
    assert ropewalk(*asked, "--out", out) == 0
    second = read(out / "extrapolation.json")
    assert {path: path.stat().st_mtime_ns for path in (out / "arms").iterdir()} == before
    assert second["lengths"] == first["lengths"]
    said = capsys.readouterr()
    assert "768 linear:" not in said.err
    assert "At 768 tokens linear reads the far tokens " in " ".join(said.out.split())
    assert all(said.out.count(arm) > 1 for arm in ARMS)
    assert max(len(line) for line in said.out.splitlines() if str(out) not in line) <= 80


def test_a_stopped_one_goes_on(asked: list[object], out: Path, tmp_path: Path) -> None:
    """Without one arm's file, and without the last records of the search, the figures come out the same."""
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "arms" / "768-linear+searched.json").unlink(missing_ok=True)
    (tmp_path / "out" / "arms" / "768-yarn.json").unlink()
    (tmp_path / "out" / "extrapolation.json").unlink()
    assert ropewalk(*asked, "--out", tmp_path / "out", "--quiet") == 0
    again = read(tmp_path / "out" / "extrapolation.json")
    assert again["lengths"] == read(out / "extrapolation.json")["lengths"]


def test_the_result_is_there_after_every_arm(asked: list[object], out: Path, tmp_path: Path) -> None:
    """Ended by an error at the fifth arm, the file has the four before it as the whole one has them."""
    kept = tmp_path / "out"
    shutil.copytree(out, kept)
    (kept / "extrapolation.json").unlink()
    (kept / "arms" / "768-dynamic.json").write_text("{}")  # not readable: an error comes where that arm begins
    assert ropewalk(*asked, "--out", kept, "--quiet") == 2
    partial, whole = (read(folder / "extrapolation.json")["lengths"]["768"] for folder in (kept, out))
    assert list(partial["arms"]) == ARMS[:4]
    assert partial["arms"] == {name: whole["arms"][name] for name in ARMS[:4]}
    assert partial["over_scheme"] == whole["over_scheme"]


def test_other_settings_are_refused(asked: list[object], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ropewalk(*changed(asked, "--limit", "3"), "--out", out) == 2
    assert "was made with other settings (tasks differ)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--lengths", "4 kb", "is no length"),
        ("--rope", "ntk", "--rope 'ntk': expected none, or of these"),
        ("--limit", "0", "--limit is 0, expected at least 1"),
        ("--budget", "-1", "--budget is -1, expected at least 0"),
        ("--text", "/no/such/folder", "/no/such/folder"),
        ("--lengths", "9000", "room for 0 windows of 9000 tokens"),
        ("--budget", "3", "--budget is 3: a search at 768 tokens reads at least 20 windows, 4 without factors"),
    ],
)
def test_mistakes(
    option: str, value: str, says: str, asked: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ropewalk(*changed(asked, option, value), "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
