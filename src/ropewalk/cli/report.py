"""`ropewalk report`: one page that shows a run, or several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from ropewalk import files
from ropewalk.cli.options import RUN, Output, described
from ropewalk.errors import RopewalkError


def report(
    *runs: Annotated[Path, described("Run directories: the --out of search, demo or mend.", group=RUN)],
    out: Annotated[
        Path | None,
        described("The page. Default: report.html in the run, or here for several.", group=RUN, metavar="FILE"),
    ] = None,
    figures: Annotated[
        Path | None, described("Write each figure as SVG and PNG to this folder.", group=RUN, metavar="DIR")
    ] = None,
    output: Output | None = None,
) -> dict[str, Any]:
    """Write one HTML page of a run: verdict, the U before and after, factors, search, examples, commands.

    The page holds all that it shows, so it works offline. The run may still be at work, or be unfinished.
    """
    from ropewalk.cli import console
    from ropewalk.report.page import Report
    from ropewalk.report.runs import read_runs

    if not runs:
        raise RopewalkError("no run given: name the run directory of a search, as in: ropewalk report runs/search")
    page = Report(read_runs(list(runs)))
    target = out or (runs[0] / "report.html" if len(page.runs) == 1 else Path("report.html"))
    files.write_text(target, page.html())
    for view in page.views:
        console.say(f"{view['run'].name}: {view['headline'].badge}. {view['headline'].meaning}")
    if figures:
        count = sum(len(panel.save(figures, page.title(panel))) for panel in page.panels)
        console.say(f"{count} files of figures: {figures}")
    console.say(f"Report: {target}")
    return page.document
