"""`ropewalk show`: the prompt on the screen and as JSON, from a tokenizer alone, and its mistakes in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gguf_factory import tiny_model, write_gguf
from ropewalk.checkpoint import load_tokenizer
from ropewalk.cli import run
from ropewalk.prompts import PromptRenderer
from ropewalk.tasks import make_task
from ropewalk.tasks.base import TaskOptions

SMALL = ["--keys", "3", "--positions", "3"]
EXAMPLES = make_task("kv", TaskOptions(keys=3, positions=3)).examples("test")


def show(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What it prints."""
    assert run(["show", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.fixture
def tokenizer_alone(tiny_path: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint without its weights."""
    folder = tmp_path / "bare"
    shutil.copytree(tiny_path, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    return folder


def test_the_prompt_with_its_marks(tokenizer_alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example, tokenizer = EXAMPLES[4], load_tokenizer(tokenizer_alone)
    prompt = PromptRenderer(tokenizer).render(example)
    text, _, facts = show(capsys, "--model", tokenizer_alone, *SMALL, "--index", 4).partition("\n─")
    assert f"⟦{example.answers[0]}⟧" in text
    assert f"⟪{example.pieces[2].text.strip()}⟫" in text
    assert "".join(letter for letter in text if letter not in "⟪⟫⟦⟧") == tokenizer.decode(prompt.ids)
    assert f"{prompt.first} tokens" in facts
    assert "kv-0-test-1@1" in facts
    assert "1 (of 0, 1, 2)" in facts
    assert "1 instruction, 2 distractor, 1 gold, 1 query; gold: ⟪piece 3⟫ of 5" in facts
    assert f"in {prompt.num_scored} tokens: " in facts
    assert "tokens that begin with '\"'" in facts


def test_a_terminal_shows_colours_in_place_of_brackets(
    tokenizer_alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = show(capsys, "--model", tokenizer_alone, *SMALL, "--index", 4)
    assert "⟦" not in text
    assert "⟪" not in text
    assert text.count(f"\x1b[1;7m{EXAMPLES[4].answers[0]}\x1b[0m") == 2  # in the prompt and below it
    assert f"\x1b[32m{EXAMPLES[4].pieces[2].text.strip()}\x1b[0m" in text
    assert "\x1b[32mpiece 3\x1b[0m of 5" in text


def test_long_answers_are_cut_short_below_the_prompt(
    tokenizer_alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "book.txt").write_text("It was a bright cold day in April. " * 40)
    task = ["--task", "perplexity", "--data", tmp_path / "book.txt", "--option", "window=90", "--limit", 2]
    task += ["--positions", "1"]
    text = show(capsys, "--model", tokenizer_alone, *task)
    (line,) = [line for line in text.splitlines() if line.startswith("scored")]
    assert " tokens: " in line
    assert line.endswith("…")
    assert "anything may follow" in text


def test_every_alias(tokenizer_alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.jsonl").write_text(json.dumps({"prompt": "Who?", "answers": ["Ann", "Bo", "Ann"]}))
    task = ["--task", "jsonl", "--data", tmp_path / "own.jsonl", "--split", "all"]
    text = show(capsys, "--model", tokenizer_alone, *task)
    assert "2, the likeliest one counts; --verbose shows all" in text
    assert text.count("\nscored") == 1
    assert show(capsys, "--model", tokenizer_alone, *task, "--verbose").count("\nscored") == 2


def test_the_same_example_by_its_id(tokenizer_alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_index = show(capsys, "--model", tokenizer_alone, *SMALL, "--index", 4)
    assert show(capsys, "--model", tokenizer_alone, *SMALL, "--id", EXAMPLES[4].id) == by_index
    assert show(capsys, "--model", tokenizer_alone, *SMALL) != by_index


def test_as_json(tokenizer_alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(capsys, "--model", tokenizer_alone, *SMALL, "--index", 4, "--json", tmp_path / "p.json")
    document: dict[str, Any] = json.loads((tmp_path / "p.json").read_text())
    prompt = PromptRenderer(load_tokenizer(tokenizer_alone)).render(EXAMPLES[4])
    assert document["ids"] == list(prompt.ids)
    assert document["first"] == prompt.first
    assert len(document["tokens"]) == len(prompt.ids)
    assert document["text"].endswith(EXAMPLES[4].answers[0])
    assert (document["id"], document["position"]) == ("kv-0-test-1@1", 1)
    assert document["task"]["prompt"] == {"format": "chat", "chat_template_kwargs": {}}
    assert [one["ids"] for one in document["answers"]] == [document["ids"]]


def test_the_format_of_the_prompt(tokenizer_alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = show(capsys, "--model", tokenizer_alone, *SMALL)
    plain = show(capsys, "--model", tokenizer_alone, *SMALL, "--no-chat-template")
    assert chat.startswith("<bos>user: Extract")
    assert plain.startswith("Extract")
    path = tokenizer_alone / "chat_template.jinja"
    path.write_text(path.read_text() + "{% if not thinking %}<nothink>{% endif %}")
    kwargs = ["--chat-template-kwargs", '{"thinking": false}']
    assert '<nothink>"⟦' in show(capsys, "--model", tokenizer_alone, *SMALL, *kwargs)


def test_the_demo_model(demo_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = show(capsys, "--model", "demo", *SMALL)
    assert "<|im_start|>system\nYou are a helpful AI assistant named SmolLM" in text
    assert "one of 49 tokens that begin with" in text


def test_a_gguf_file_is_not_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    gguf = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"))
    assert f"⟦{EXAMPLES[0].answers[0]}⟧" in show(capsys, "--model", gguf, *SMALL)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--index", "300"], "--index 300: expected 0 to 299, the split 'test' has 300 examples"),
        (["--index", "-1"], "--index -1: expected 0 to 299"),
        (["--id", "kv-0-test-0@7"], "did you mean kv-0-test-"),
        (["--id", "nothing like it"], "the first one is kv-0-test-0@0"),
        (["--id", "kv-0-test-0@0", "--index", "0"], "give one of them"),
        (["--chat-template-kwargs", "{"], "--chat-template-kwargs: not JSON"),
        (["--no-chat-template", "--chat-template-kwargs", '{"a": 1}'], "switched off"),
        (["--option", "variant"], "--option variant: expected NAME=VALUE"),
        (["--option", "a=1", "--option", "a=2"], "--option a was given twice: '1' and '2'"),
        (["--option", "variants=plain"], "no option 'variants'"),
    ],
)
def test_mistakes(arguments: list[str], says: str, tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "--model", str(tiny_path), *SMALL, *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


def test_no_tokenizer_there(tokenizer_alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in tokenizer_alone.glob("tokenizer*"):
        path.unlink()
    assert run(["show", "--model", str(tokenizer_alone), *SMALL]) == 2
    assert "tokenizer is missing or damaged" in capsys.readouterr().err
    assert run(["show", "--model", str(tokenizer_alone / "none.gguf"), *SMALL]) == 2
    assert "none.gguf: no such file" in capsys.readouterr().err
