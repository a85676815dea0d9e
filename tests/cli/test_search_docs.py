"""docs/search.md: its commands and its TOML file are understood as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ropewalk.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
SECTION = PAGE[PAGE.index("## The command") : PAGE.index("\n## The algorithm")]
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
    for line in block.splitlines()
]
(TOML,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    _, *words = shlex.split(command)
    _, bound, unused = app.parse_args(words, exit_on_error=False, print_error=False)
    assert not unused
    if "task" in bound.arguments:
        assert bound.arguments["task"].tasks()
    if "options" in bound.arguments:
        bound.arguments["options"].check()


def test_every_option_named_is_one() -> None:
    known = {name for argument in app["search"].assemble_argument_collection() for name in argument.names}
    named = set(re.findall(r"`(--[a-z-]+)", SECTION))
    assert len(named) > 15
    assert named <= known | {"--help"}
