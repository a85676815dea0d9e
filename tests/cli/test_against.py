"""`eval --against` as a user types it: arms side by side on the same records, with and without factors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk import ScalingFactors
from ropewalk.cli import run

KV = ["--keys", "3", "--positions", "2", "--limit", "3"]
NAMES = ["uniform:1.1", "ms-poe:first-layer=0", "query-first", "attention-buckets:1+2"]


def ropewalk(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def factors(tmp_path: Path) -> Path:
    ScalingFactors([0.7, 1.3, 1.2, 0.9]).save(tmp_path / "factors.json")
    return tmp_path / "factors.json"


def test_methods_stand_beside_the_factors(
    roomy_path: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    more = ["--against", ",".join(NAMES), "--json", tmp_path / "eval.json", "--scores", tmp_path / "scores.json"]
    assert ropewalk("eval", "--model", roomy_path, *KV, "--factors", factors, *more) == 0
    said, document, scores = capsys.readouterr().out, read(tmp_path / "eval.json"), read(tmp_path / "scores.json")
    arms = ["vanilla", "factors", *NAMES]
    assert list(scores) == arms
    assert max(map(len, said.splitlines())) <= 80
    assert all(said.count(name) >= 5 for name in NAMES)
    assert "the layer loop can't run ms-poe:first-layer=0, attention-buckets:1+2" in " ".join(said.split())
    assert list(document["gain"]) == arms[1:]
    assert list(document["factors_over"]) == NAMES
    for arm in NAMES:
        difference = document[arm]["average_nll"] - document["vanilla"]["average_nll"]
        assert document["gain"][arm]["average_log_likelihood"]["difference"] == pytest.approx(-difference)
        for key, corrected in document["p_holm"].items():
            assert corrected[arm] >= document["gain"][arm][key]["p"]
    assert document["against"]["methods"]["attention-buckets:1+2"]["passes"] == 2
    cost = document["against"]["cost"]
    assert list(cost["arms"]) == arms
    assert cost["arms"]["vanilla"]["read"]["ratio_range"] == [1.0, 1.0]
    assert all(row[phase]["tokens_per_second"] > 0 for row in cost["arms"].values() for phase in ("read", "write"))
    assert cost["arms"]["attention-buckets:1+2"]["cache_bytes"] == 2 * cost["arms"]["vanilla"]["cache_bytes"]
    assert cost["arms"]["query-first"]["cache_bytes"] > cost["arms"]["vanilla"]["cache_bytes"]
    assert document["evaluations"] == len(arms) * 6 + 4 * 3


def test_methods_that_the_loop_can_run_go_by_it(roomy_path: Path, tmp_path: Path) -> None:
    """And need no factors: uniform is what factors of one number are, to the digit."""
    ScalingFactors.uniform(1.1, 4).save(tmp_path / "factors.json")
    more = ["--against", "uniform:1.1,uniform:1", "--scores", tmp_path / "a.json", "--json", tmp_path / "eval.json"]
    assert ropewalk("eval", "--model", roomy_path, *KV, *more) == 0
    given = ["--factors", tmp_path / "factors.json", "--scores", tmp_path / "b.json"]
    assert ropewalk("eval", "--model", roomy_path, *KV, *given) == 0
    one, two = read(tmp_path / "a.json"), read(tmp_path / "b.json")
    assert one["uniform:1.1"] == two["factors"]
    assert one["uniform:1"] == one["vanilla"] == two["vanilla"]
    document = read(tmp_path / "eval.json")
    assert document["engine"] == "own layer loop"
    assert document["factors_over"] == {}
    assert document["rope"] is None
    assert document["base"]["rope_type"] == "default"


def test_the_base_scheme_is_named(tiny_path: Path, tmp_path: Path) -> None:
    for verb, more in (("eval", ["--against", "uniform:1.1"]), ("profile", [])):
        small = ["--rope", "linear:2", "--keys", "2", "--positions", "2", "--limit", "2"]
        assert ropewalk(verb, "--model", tiny_path, *small, *more, "--json", tmp_path / "f.json") == 0
        assert read(tmp_path / "f.json")["rope"] == "linear:2"
        assert read(tmp_path / "f.json")["base"]["factor"] == 2


def test_a_longer_prompt_may_leave_records_out_in_every_arm(tiny_path: Path, tmp_path: Path) -> None:
    from ropewalk import load_pretrained
    from ropewalk.comparators import make_comparator
    from ropewalk.prompts import PromptRenderer
    from ropewalk.tasks import make_task
    from ropewalk.tasks.base import TaskOptions

    _, tokenizer = load_pretrained(tiny_path)
    task = make_task("needle", TaskOptions(positions=1, limit=6, options={"lengths": "50,90"}))
    method, renderer = make_comparator("query-first"), PromptRenderer(tokenizer, None)
    sizes = sorted(len(renderer.render(method.example(example)).ids) for example in task.examples("test"))
    assert sizes[2] < sizes[3]
    config = read(tiny_path / "config.json") | {"max_position_embeddings": sizes[3] - 1}
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    asked = ["--task", "needle", "--option", "lengths=50,90", "--positions", "1", "--limit", "6", "--no-generate"]
    more = ["--against", "query-first", "--overflow", "skip", "--json", tmp_path / "eval.json"]
    assert ropewalk("eval", "--model", folder, *asked, *more) == 0
    document = read(tmp_path / "eval.json")
    assert document["vanilla"]["records"] == document["query-first"]["records"] == 3
    assert document["vanilla"]["skipped"] == document["query-first"]["skipped"] == 3


@pytest.mark.parametrize(
    ("against", "says"),
    [
        ("ms-po", "no comparator 'ms-po', expected one of: attention-buckets, ms-poe"),
        ("uniform:1.1,", "expected methods with commas between"),
        ("ntk:2,ntk:2", "ntk:2 is given twice"),
        ("uniform:x", "option 'factor' is 'x', expected a number"),
    ],
)
def test_mistakes_are_said_before_a_model_is_loaded(
    against: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ropewalk("eval", "--model", "/no/such/model", *KV, "--against", against) == 2
    assert says in capsys.readouterr().err


def test_a_method_that_cannot_serve_the_model_is_said_before_anything_is_scored(
    tiny_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--keys", "2", "--positions", "2", "--rope", "dynamic:2", "--against", "uniform:1.1,ms-poe"]
    assert ropewalk("eval", "--model", tiny_path, *arguments) == 2
    error = capsys.readouterr().err
    assert "ms-poe can't serve model type 'llama': its rope type is 'dynamic'" in error
    assert "prompts" not in error


def test_no_factors_and_no_methods(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ropewalk("eval", "--model", tiny_path, *KV) == 2
    assert "give --factors FILE" in capsys.readouterr().err
