"""docs/search.md names no option that there is not. Its commands are tested with those of all pages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ropewalk.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
SECTION = PAGE[PAGE.index("## The command") : PAGE.index("\n## The algorithm")]


def test_every_option_named_is_one() -> None:
    known = {name for argument in app["search"].assemble_argument_collection() for name in argument.names}
    named = set(re.findall(r"`(--[a-z-]+)", SECTION))
    assert len(named) > 15
    assert named <= known | {"--help"}


def test_the_toml_file_is_one() -> None:
    (text,) = re.findall(r"```toml [^\n]*\n(.*?)```", SECTION, re.DOTALL)
    assert len(tomllib.loads(text)["tasks"]) == 2
