"""The fenced blocks of the README and the documentation, and the one way in which their commands are run.

A block of commands says in its info string who runs it: `sh {.test}` (make test), `sh {.slow}` (make test-slow),
`sh {.gpu}` (nobody here, it wants a GPU or hours) or `sh {.elsewhere}` (nobody here: it wants a network or a fresh
machine). A block with `title="FILE"` is that file. All blocks of a page run in one folder, in their order.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ropewalk.cli import run

ROOT = Path(__file__).parents[1]
ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = sorted([*ROOT_PAGES, *(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))])
TAGS = {"test", "slow", "gpu", "elsewhere"}
COMMAND_LANGUAGES = {"sh", "bash", "shell", "console", "zsh", "python", "py"}
FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block. tags: the classes in its info string. title: the file it is, or empty."""

    page: str
    line: int
    language: str
    tags: frozenset[str]
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block: comments stripped, continued lines joined."""
        joined = self.text.replace("\\\n", " ")
        stripped = (_without_comment(line) for line in joined.splitlines())
        return [line for line in stripped if line]


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line).strip()


def blocks_of(page: str) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    text = (ROOT / page).read_text()
    found = []
    for match in FENCE.finditer(text):
        info = match["info"]
        (language,) = re.findall(r"^[\w+-]*", info)
        title = TITLE.search(info)
        tags = frozenset(re.findall(r"[{\s]\.([\w-]+)", info))
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, tags, title[1] if title else "", match["text"]))
    return found


def command_blocks(*tags: str) -> list[Block]:
    """The blocks of commands on all pages that carry one of the tags; without tags: all of them."""
    every = (block for page in PAGES for block in blocks_of(page))
    commands = (block for block in every if block.language in COMMAND_LANGUAGES)
    return [block for block in commands if not tags or block.tags & set(tags)]


def write_files(page: str, folder: Path) -> None:
    """The files that the page shows."""
    for block in blocks_of(page):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)


def run_here(block: Block, names: Mapping[str, str]) -> None:
    """Run a block in this process, which has loaded torch already, and in the current folder.

    names: what stands for a word of the block, such as MODEL. `ropewalk` is called as its script calls it.
    """
    if block.language.startswith("py"):
        exec(compile(replaced(block.text, names), f"{block.page}:{block.line}", "exec"), {"__name__": "__main__"})
        return
    for command in block.commands:
        command = replaced(command, names)
        if command.startswith("ropewalk "):
            assert run(shlex.split(command)[1:]) == 0, f"{block.page}, line {block.line}: {command}"
        else:
            print(run_shell(command, Path.cwd()), end="")


def run_apart(block: Block, folder: Path, names: Mapping[str, str]) -> str:
    """Run a whole block in processes of its own; returns what it printed."""
    text = replaced(block.text, names)
    return run_shell(text if block.language == "sh" else f"python - <<'END'\n{text}END\n", folder)


def run_shell(script: str, folder: Path) -> str:
    """Run a script with this environment's commands first on the path."""
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": own, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def replaced(text: str, names: Mapping[str, str]) -> str:
    """The text with each name's word replaced."""
    for name, value in names.items():
        text = re.sub(rf"\b{name}\b", value, text)
    return text
