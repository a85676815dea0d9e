"""The zoo: names and paths, entries made of a run and of an evaluation, and every way in which one can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ropewalk
from ropewalk import FactorsError, ScalingFactors
from ropewalk.cli import run
from ropewalk.errors import DataError
from ropewalk.zoo import entry_names
from ropewalk.zoo.check import problems
from test_startup import ENTRY_POINT, loaded_by

BY = ("--by", "Ann", "--hub-id", "me/tiny")
SMALL = ("--keys", "3", "--positions", "3", "--limit", "4")


@pytest.fixture(scope="module")
def evaluated(roomy_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Factors of the tiny model and `eval.json`, a test of them."""
    folder = tmp_path_factory.mktemp("evaluated")
    from ropewalk import load_pretrained, model_identity
    from ropewalk.identity import base_scheme

    model, _ = load_pretrained(roomy_path)
    factors = ScalingFactors([0.9, 1.2, 1.1, 0.95]).with_provenance(
        model=model_identity(model), base=base_scheme(model), found={"task": "kv", "method": "by hand"}
    )
    factors.save(folder / "factors.json")
    words = ["eval", "--model", str(roomy_path), "--factors", str(folder / "factors.json"), *SMALL]
    assert run([*words, "--json", str(folder / "eval.json")]) == 0
    return folder


@pytest.fixture
def entry(evaluated: Path, tmp_path: Path) -> Path:
    """A good entry of it."""
    assert add(evaluated, tmp_path) == 0
    return tmp_path / "tiny" / "kv"


def add(evaluated: Path, out: Path, *more: str) -> int:
    source, test = str(evaluated / "factors.json"), str(evaluated / "eval.json")
    return run(["zoo", "tiny/kv", "--add", source, "--test", test, *BY, "--out", str(out), *more])


def change(file: Path, edit: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


# --- names


def test_a_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vicuna-7b-v1.5/mdqa"
    monkeypatch.chdir(tmp_path)
    own = ScalingFactors([0.9, 1.1])
    own.save(Path(name) / "factors.json")
    assert ropewalk.load_factors(name) == own
    own.save("alone.json")
    assert ropewalk.load_factors("alone.json") == own
    own.save("mended/search/factors.json")
    assert ropewalk.load_factors(Path("mended")) == own


@pytest.mark.filterwarnings("ignore:.*unverified")
def test_capital_letters_do_not_matter() -> None:
    assert ropewalk.load_factors("Vicuna-7B-v1.5/MDQA") == ropewalk.load_factors("vicuna-7b-v1.5/mdqa")


def test_an_unknown_name_lists_the_nearest_ones() -> None:
    with pytest.raises(FactorsError, match=r"no such file, and no factors of the zoo. Nearest: vicuna-7b-v1.5/mdqa"):
        ropewalk.load_factors("vicuna-7b/mdqa")
    with pytest.raises(FactorsError, match=f"It has: .*{entry_names()[0]}"):
        ropewalk.load_factors("§")


def test_a_missing_file_and_a_folder_without_factors_are_said(tmp_path: Path) -> None:
    with pytest.raises(FactorsError, match="no such file"):
        ropewalk.load_factors(tmp_path / "factors.json")
    with pytest.raises(DataError, match=r"holds no factors.json"):
        ropewalk.load_factors(tmp_path)


def test_the_zoo_needs_no_torch() -> None:
    heavy, shown = loaded_by(ENTRY_POINT, "zoo")
    assert not {"torch", "transformers"} & set(heavy)
    assert all(name in shown for name in entry_names())
    assert loaded_by("import ropewalk; ropewalk.load_factors('vicuna-7b-v1.5/kv')")[0] == []


def test_the_list_as_json_has_model_task_gain_and_interval(tmp_path: Path) -> None:
    assert run(["zoo", "--json", str(tmp_path / "zoo.json")]) == 0
    entries = json.loads((tmp_path / "zoo.json").read_text())["entries"]
    assert [one["name"] for one in entries] == entry_names()
    for one in entries:
        assert {"hub_id", "layers", "licence", "by", "date", "digest"} <= {name for name in one if one[name]}
        assert bool(one["tests"]) == (one["status"] == "tested")
        assert all({"task", "gain", "low", "high", "p", "records"} <= set(test) for test in one["tests"])


def test_a_card_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["zoo", "vicuna-7b-v1.5/kv"]) == 0
    assert "**Unverified.**" in capsys.readouterr().out


# --- everywhere in the command line


@pytest.mark.parametrize(
    "words",
    [
        ["eval", *SMALL],
        ["export", "--to", "factors", "--out", "out"],
        ["analyze", "transfer", *SMALL],
        ["search", *SMALL, "--start", "NAME", "--dry-run"],
    ],
)
def test_every_verb_takes_a_name(
    words: list[str],
    roomy_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is found, said to be unverified, and refused for a model of 4 layers; an unknown one gets the nearest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ropewalk.cli.given_factors._SAID", set())
    given = [] if "NAME" in words else ["--factors", "NAME"]
    for name, expected in (("vicuna-7b-v1.5/kv", "32 factors for a model of 4 layers"), ("vicuna/kv", "Nearest: ")):
        own = [name if word == "NAME" else word for word in [*words, *given]]
        assert run([*own, "--model", str(roomy_path)]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("unverified, as published") == (name == "vicuna-7b-v1.5/kv")


# --- entries


def test_an_entry_of_an_evaluation(entry: Path, evaluated: Path) -> None:
    assert sorted(path.name for path in entry.iterdir()) == ["README.md", "factors.json", "test.json"]
    factors = ropewalk.load_factors(entry)
    assert list(factors) == [0.9, 1.2, 1.1, 0.95]
    about = factors.found["entry"]
    assert (about["name"], about["by"], about["hub_id"], about["status"]) == ("tiny/kv", "Ann", "me/tiny", "tested")
    row = json.loads((evaluated / "eval.json").read_text())["gain"]["factors"]["average"]
    card = (entry / "README.md").read_text()
    assert f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}] points" in card
    assert str(evaluated) not in (entry / "test.json").read_text()  # folders of this machine are cut off
    from ropewalk.export.parts.evidence import known_test

    assert known_test(factors, None)[0]["records"] == 4  # an export's card has the test, too


def test_an_entry_of_a_run(roomy_path: Path, tmp_path: Path) -> None:
    search = ["--method", "bezier-ga", "--population", "4", "--generations", "1", "--radius", "0.3", "--finalists", "0"]
    small = [*SMALL, "--test-limit", "3", "--control-budget", "0", "--out", str(tmp_path / "run")]
    assert run(["search", "--model", str(roomy_path), *search, *small]) == 0
    assert run(["zoo", "tiny/run", "--add", str(tmp_path / "run"), *BY, "--out", str(tmp_path)]) == 0
    assert problems(tmp_path / "tiny" / "run", "tiny/run") == []


def test_what_is_missing_or_there_already_is_said(
    evaluated: Path, entry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(evaluated, tmp_path) == 2
    assert "exists already" in capsys.readouterr().err
    assert run(["zoo", "tiny/kv", "--add", str(evaluated)]) == 2
    assert "--by and --hub-id" in capsys.readouterr().err
    assert run(["zoo", "tiny/other", "--add", str(evaluated), *BY, "--out", str(tmp_path)]) == 2
    assert "give a run, or --test" in capsys.readouterr().err
    assert run(["zoo", "Tiny", "--add", str(evaluated), "--test", str(evaluated / "eval.json"), *BY]) == 2
    assert "expected MODEL/NAME in small letters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda test: test.update(split="search"), "split 'search'"),
        (lambda test: test.update(split="all"), "split 'all'"),
        (lambda test: test["factor_values"].reverse(), "not one of these factors"),
        (lambda test: test["model"].update(fingerprint="sha256:0"), "the test is of the model"),
        (lambda test: test["gain"]["factors"]["average"].update(low=None), "the gain has no 95 % interval"),
        (lambda test: test["vanilla"].update(average_interval=[None, None]), "without a 95 % interval"),
        (lambda test: test.pop("gain"), "expected the figures of a test"),
    ],
)
def test_a_test_that_proves_nothing_is_refused(
    edit: Callable[[Any], None], why: str, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(evaluated, changed)
    change(changed / "eval.json", edit)
    assert add(changed, tmp_path / "out") == 2
    assert why in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.json"))


def test_factors_of_no_model_are_no_entry(evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ScalingFactors([0.9, 1.2, 1.1, 0.95]).save(tmp_path / "factors.json")
    shutil.copy(evaluated / "eval.json", tmp_path)
    assert add(tmp_path, tmp_path / "out") == 2
    assert "names no model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "edit", "why"),
    [
        ("factors.json", lambda one: one["values"].reverse(), "digest does not match"),
        ("factors.json", lambda one: one["values"].pop(), "digest does not match"),
        (
            "test.json",
            lambda one: one["factors"].update(average_interval=[0.0, 1.0]),
            "found.test of factors.json is not",
        ),
        ("test.json", lambda one: one.update(command="another"), "README.md is not the card"),
    ],
)
def test_what_was_edited_afterwards_is_found(entry: Path, file: str, edit: Callable[[Any], None], why: str) -> None:
    assert problems(entry, "tiny/kv") == []
    change(entry / file, edit)
    assert any(why in problem for problem in problems(entry, "tiny/kv"))


def test_an_entry_in_another_place_with_more_files_or_no_test_is_found(entry: Path) -> None:
    assert any("found.entry.name" in problem for problem in problems(entry, "other/kv"))
    (entry / "weights.bin").write_text("x")
    assert any("the folder holds" in problem for problem in problems(entry, "tiny/kv"))
    (entry / "weights.bin").unlink()
    (entry / "README.md").write_text((entry / "README.md").read_text() + "The best factors of all.\n")
    assert any("never edited" in problem for problem in problems(entry, "tiny/kv"))
    (entry / "test.json").unlink()
    assert any("the folder holds" in problem for problem in problems(entry, "tiny/kv"))
