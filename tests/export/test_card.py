"""The model card says what the hub wants to know, what was tested, and where all of it comes from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from exports import export, load, read
from huggingface_hub import ModelCard

from ropewalk import ScalingFactors
from ropewalk.cli import run
from ropewalk.export.parts.evidence import known_test
from ropewalk.identity import base_scheme, model_identity
from ropewalk.verdict import short_text_sentences

RECORDS = ["--limit", "4", "--validation-limit", "3", "--test-limit", "5", "--keys", "3", "--positions", "3"]
SHORT = ["--generations", "2", "--population", "4", "--control-budget", "0", "--dtype", "float32"]
ORIGINAL = """---
license: apache-2.0
language:
- en
datasets:
- theirs/data
---

# The original
"""
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def source(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a card, and room for longer prompts."""
    folder = tmp_path_factory.mktemp("card") / "source"
    shutil.copytree(tiny_path, folder)
    (folder / "README.md").write_text(ORIGINAL)
    config = read(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return folder


@pytest.fixture(scope="module")
def searched(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. A random model answers nothing, so the factors are made other than 1 by their bounds."""
    out = tmp_path_factory.mktemp("run") / "run"
    bounds = ["--method", "bezier-ga", "--low", "0.7", "--high", "1.4"]
    assert run(["search", "--model", str(source), *RECORDS, *SHORT, *bounds, "--out", str(out)]) == 0
    return out


def card(folder: Path) -> Any:
    return ModelCard.load(folder / "README.md")


def command(source: Path, factors: Path, out: Path, *more: str) -> list[str]:
    return ["export", "--model", str(source), "--factors", str(factors), "--out", str(out), *more]


def test_a_run_brings_its_test_along(source: Path, searched: Path, tmp_path: Path) -> None:
    assert run(command(source, searched, tmp_path / "out", "--base-model", "org/original")) == 0
    found, result = card(tmp_path / "out"), read(searched / "result.json")
    assert found.data.to_dict() == {
        "base_model": "org/original",
        "language": ["en"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["ropewalk", "rope", "long-context", "lost-in-the-middle"],
    }
    text, block = found.text, result["tasks"]["kv"]
    assert "**kv, 3 keys: accuracy in % [95 % interval], 5 test records at each position**" in text
    for row, position in enumerate(block["positions"]):
        low, high = block["factors"]["interval"][row]
        expected = f"{100 * block['factors']['accuracy'][row]:.0f} [{100 * low:.0f}–{100 * high:.0f}]"
        assert re.search(rf"^\| @{position} \| .* \| {re.escape(expected)} \|", text, re.MULTILINE)
    assert block["sentence"] in text
    short_texts = list(short_text_sentences(result["short_texts"]))
    assert len(short_texts) == 2
    assert all(sentence in text for sentence in short_texts)
    factors = ScalingFactors.load(tmp_path / "out" / "factors.json")
    for word in (factors.digest, factors.model["fingerprint"], "bezier-ga", "Seed: 0", "kv, keys 3", "[org/original]("):
        assert word in text
    assert (tmp_path / "out" / "BASE_MODEL_README.md").read_text() == ORIGINAL
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert (tmp_path / "out" / picture).read_bytes().startswith(PNG)
    assert "/" not in picture


def test_an_export_of_an_export_keeps_what_is_known(source: Path, searched: Path, tmp_path: Path) -> None:
    """The test, the original's name and card, and nothing twice."""
    assert run(command(source, searched / "factors.json", tmp_path / "one", "--base-model", "org/original")) == 0
    again = ["export", "--model", str(tmp_path / "one"), "--to", "remote-code", "--out", str(tmp_path / "two")]
    assert run(again) == 0
    one, two = card(tmp_path / "one"), card(tmp_path / "two")
    assert two.data.to_dict() == one.data.to_dict()
    table = re.compile(r"^\| .* \|$", re.MULTILINE)
    assert table.findall(two.text) == table.findall(one.text)
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {path.name for path in (tmp_path / "one").iterdir()} | {"modeling_ropewalk.py"}
    assert (tmp_path / "two" / "BASE_MODEL_README.md").read_text() == ORIGINAL
    assert (tmp_path / "two" / "factors.json").read_bytes() == (tmp_path / "one" / "factors.json").read_bytes()
    back = ["export", "--model", str(tmp_path / "two"), "--out", str(tmp_path / "three")]
    assert run(back) == 0
    config = read(tmp_path / "three" / "config.json")
    assert "auto_map" not in config
    assert config == read(tmp_path / "one" / "config.json")
    assert not (tmp_path / "three" / "modeling_ropewalk.py").exists()


def test_another_base_scheme_is_said(source: Path, tmp_path: Path) -> None:
    """Also by the export of such an export, which is loaded without --rope."""
    ScalingFactors([1.1] * 4).save(tmp_path / "factors.json")
    assert run(command(source, tmp_path / "factors.json", tmp_path / "one", "--rope", "linear:2")) == 0
    assert run(["export", "--model", str(tmp_path / "one"), "--out", str(tmp_path / "two")]) == 0
    for folder in ("one", "two"):
        text = card(tmp_path / folder).text
        assert "base rope scheme is not the original's: linear:2 in place of default; trained to 2048 tokens" in text
        assert "this folder has another base rope scheme" in text
        assert "gives the original outputs back" not in text
    assert run(command(source, tmp_path / "factors.json", tmp_path / "plain")) == 0
    assert "base rope scheme" not in card(tmp_path / "plain").text


def test_a_result_of_other_factors_is_not_taken(source: Path, searched: Path, tmp_path: Path) -> None:
    factors = ScalingFactors.load(searched / "factors.json")
    assert len(known_test(factors, searched / "factors.json")) == 1
    others = ScalingFactors([1.1] * 4, model=factors.model, base=factors.base)
    others.save(tmp_path / "factors.json")
    shutil.copy(searched / "result.json", tmp_path / "result.json")
    assert known_test(others, tmp_path / "factors.json") == []
    for content in ('{"tasks": {}}', "[]", "{}"):
        (tmp_path / "result.json").write_text(content)
        assert known_test(factors, tmp_path / "factors.json") == []
    assert run(command(source, tmp_path, tmp_path / "out")) == 0
    text = card(tmp_path / "out").text
    assert "## Test" not in text
    assert (tmp_path / "out" / "factors.png").read_bytes().startswith(PNG)


def test_several_tasks_have_a_picture_each(source: Path, searched: Path, tmp_path: Path) -> None:
    model = load(source)[0]
    factors = ScalingFactors.load(searched / "factors.json")
    (block,) = known_test(factors, searched / "factors.json")
    export("checkpoint", model, factors, tmp_path / "out", test=(block, block | {"task": "kv 2"}))
    text = card(tmp_path / "out").text
    assert re.findall(r"!\[.*?\]\((.*?)\)", text) == ["factors-kv.png", "factors-kv-2.png"]
    assert text.count("| position | vanilla |") == 2


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        (None, False),
        ("# No metadata\n", False),
        ("---\nlicense: [\n---\n", False),
        ("---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n", True),
        ("---\n- a list\n---\n", False),
    ],
)
def test_cards_of_the_original(readme: str | None, licence: bool, tiny_path: Path, tmp_path: Path) -> None:
    """Whatever somebody wrote there: it is kept, and read as far as it can be."""
    folder = tmp_path / "source"
    shutil.copytree(tiny_path, folder)
    if readme is not None:
        (folder / "README.md").write_text(readme)
    model = load(folder)[0]
    factors = ScalingFactors([None if i < 0 else 1.1 for i in range(4)], found={"seed": 3, "task": "my own | task"})
    export("checkpoint", model, factors, tmp_path / "out")
    found = card(tmp_path / "out")
    assert ("license" in found.data.to_dict()) == licence
    assert ("The licence is that of source." in found.text) != licence
    assert "base_model" not in found.data.to_dict()
    assert (tmp_path / "out" / "BASE_MODEL_README.md").exists() == (readme is not None)
    if readme is not None:
        assert (tmp_path / "out" / "BASE_MODEL_README.md").read_text() == readme


def test_factors_made_for_another_model_say_so(tiny_path: Path, tmp_path: Path) -> None:
    model = load(tiny_path)[0]
    other = model_identity(model) | {"name": "other", "fingerprint": "sha256:0"}
    factors = ScalingFactors([1.1] * 4, model=other, base=base_scheme(model))
    export("checkpoint", model, factors, tmp_path / "out", any_model=True)
    assert "- Made for: other" in card(tmp_path / "out").text
