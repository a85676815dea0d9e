"""What mkdocs asks while it builds: pages and figures that come from the code, so that none can go stale.

`options.md` is written from the command line itself, the figures by `site_figures.py`, and the pages on contributing,
changes and security are the files in the repository's root.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
ROOT_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")  # a link to a file that is no page: works in the repository alone
INTO_DOCS = re.compile(r"\]\(docs/([^)]*)\)")  # the way from the root's files to the pages

OPTIONS_HEAD = """# Every option

Written from the command line itself when this site is built; `ropewalk VERB --help` prints the same. What the words
mean for tasks stands in [Tasks](tasks.md), for a search in [Search on your own model](search.md).

Options of `search` and `mend` may also stand in a TOML file (`--config`). `--json -` prints the figures in place of
the tables, `--quiet` leaves progress and remarks out; errors are always said.

"""


def options_page() -> str:
    """Every verb of the command line with all of its options, as Markdown."""
    from ropewalk.cli import CONDUCT, app

    text = app.generate_docs(output_format="markdown", recursive=True)
    start = text.index("\n## ", text.index("## Table of Contents") + 1)
    return f"{OPTIONS_HEAD}```text\n{CONDUCT}```\n" + text[start:].replace("```console", "```text")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and figures."""
    sys.path.insert(0, str(Path(__file__).parent))
    import site_figures

    files.append(File.generated(config, "options.md", content=options_page()))
    for name in ROOT_PAGES:
        text = INTO_DOCS.sub(r"](\1)", (ROOT / name).read_text())
        files.append(File.generated(config, name.lower(), content=text))
    for name, svg in site_figures.draw().items():
        files.append(File.generated(config, f"figures/{name}.svg", content=svg))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links that lead out of docs/ become their text."""
    return OUTSIDE.sub(r"\1", markdown)
