"""Every block of commands in the README and the documentation is tagged, understood, and run by whom it names."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import doc_files
from doc_blocks import (
    PAGES,
    ROOT,
    TAGS,
    Block,
    blocks_of,
    command_blocks,
    run_apart,
    run_here,
    write_files,
)
from doc_files import factors_file, long_documents, mdqa_sources, task_files
from ropewalk.cli import app

# Files that a page's commands read and that the page does not show whole.
FILES: dict[str, Callable[[Path], None]] = {
    "docs/extrapolation.md": doc_files.long_texts,
    "docs/tasks.md": task_files,
    "docs/data.md": mdqa_sources,
    "docs/lm-eval.md": factors_file,
    "docs/analysis.md": factors_file,
    "docs/long-documents.md": long_documents,
}
CONTEXT = 65_536  # of the tiny model: a token a byte makes prompts long


def pages_with(tag: str) -> list[str]:
    return list(dict.fromkeys(block.page for block in command_blocks(tag)))


def commands() -> list[tuple[Block, str]]:
    blocks = [block for block in command_blocks() if not block.language.startswith("py")]
    return [(block, command) for block in blocks for command in block.commands]


def place(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.fixture(scope="module")
def long_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama of 4 layers that takes long prompts."""
    from gguf_factory import tiny_model, write_gguf
    from ropewalk.gguf_reader import convert_gguf

    folder = tmp_path_factory.mktemp("docs")
    model = tiny_model("llama")
    model.config.max_position_embeddings = CONTEXT
    return convert_gguf(write_gguf(folder / "tiny.gguf", model), folder / "model", dtype="float32")


@pytest.fixture
def page_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A folder with the files of a page; what the page puts into a package of ropewalk is found there."""

    def make(page: str) -> Path:
        write_files(page, tmp_path)
        if page in FILES:
            FILES[page](tmp_path)
        for name in ("benchmarks", "examples"):
            (tmp_path / name).symlink_to(ROOT / name)
        for name in ("tasks", "search", "comparators", "analysis"):
            package = importlib.import_module(f"ropewalk.{name}")
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "src" / "ropewalk" / name)])
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def test_every_command_block_says_who_runs_it() -> None:
    blocks = command_blocks()
    assert len(blocks) > 20
    untagged = {place(block): sorted(block.tags) for block in blocks if len(block.tags & TAGS) != 1}
    assert untagged == {}, f"a block of commands needs exactly one of {sorted(TAGS)}, as in ```sh {{.test}}"
    unknown = {place(block): sorted(block.tags - TAGS) for block in blocks if block.tags - TAGS}
    assert unknown == {}


def test_commands_stand_in_no_block_of_another_language() -> None:
    others = [block for page in PAGES for block in blocks_of(page) if block not in command_blocks()]
    hidden = [place(block) for block in others if re.search(r"^(ropewalk|make|python) ", block.text, re.M)]
    assert hidden == []


@pytest.mark.parametrize("page", pages_with("test"))
def test_the_commands_for_make_test_run(
    page: str, long_context: Path, page_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = page_folder(page)
    for block in command_blocks("test"):
        if block.page == page and not block.title:
            run_here(block, {"MODEL": str(long_context)})
    said = capsys.readouterr().out
    if page == "README.md":
        assert "The capital of France is" in said
        assert '"rope_layer_factors"' in (folder / "smollm2-with-factors" / "config.json").read_text()
    if page == "docs/demo.md":  # its table is what the command prints
        assert said.count("\n") > 10
        assert said in (ROOT / page).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("slow"))
def test_the_commands_for_make_test_slow_run(page: str, demo_path: Path, page_folder: Callable[[str], Path]) -> None:
    assert demo_path.is_dir()
    folder = page_folder(page)
    for block in command_blocks("slow"):
        if block.page == page:
            run_apart(block, folder, {"MODEL": "demo"})


@pytest.mark.parametrize(
    ("block", "command"),
    [pair for pair in commands() if "ropewalk " in pair[1]],
    ids=lambda value: place(value) if isinstance(value, Block) else None,
)
def test_every_ropewalk_command_is_understood(block: Block, command: str, page_folder: Callable[[str], Path]) -> None:
    page_folder(block.page)
    words = shlex.split(command[command.index("ropewalk ") :].rstrip("& "))
    function, bound, unused = app.parse_args(words[1:], exit_on_error=False, print_error=False)[:3]
    assert not unused
    assert callable(function)
    assert bound.arguments
    if hasattr(bound.arguments.get("task"), "tasks"):
        assert bound.arguments["task"].tasks()
    if hasattr(bound.arguments.get("options"), "check"):
        bound.arguments["options"].check()


def test_every_make_target_exists() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = {command.split()[1] for _, command in commands() if command.startswith("make ")}
    assert {"demo", "test", "docs"} <= named
    assert [target for target in named if f"make {target} " not in listed] == []


def test_every_script_exists() -> None:
    scripts = {command.split()[1] for _, command in commands() if command.startswith("python ")}
    assert scripts
    assert [script for script in scripts if script.endswith(".py") and not (ROOT / script).exists()] == []


def test_files_that_pages_show_are_whole() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            for line in block.text.splitlines() if block.title.endswith(".jsonl") else []:
                assert json.loads(line), place(block)
