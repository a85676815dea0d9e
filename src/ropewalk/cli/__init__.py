"""The command `ropewalk`: one file a verb, each thin. Loads no torch before a model is needed.

Exit codes: 0 done, 2 a user's mistake (one line on standard error that says what to do), 130 stopped by Ctrl-C.
Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError

from ropewalk.cli.config import read_config
from ropewalk.cli.invocation import remember
from ropewalk.errors import RopewalkError

app = App(
    name="ropewalk",
    help="Cures 'lost in the middle' in rotary-position LLMs without training: one scaling factor per layer.",
    version=lambda: version("ropewalk"),
    help_flags=["--help", "-h"],
    suppress_keyboard_interrupt=False,  # a verb says what it kept, and how to go on
    config=read_config,
)
for verb, function, summary in (
    ("demo", "demo", "The whole road once on a small real model: profile, search, test. About 8 minutes on two cores."),
    ("mend", "mend", "All of it for those who just want it mended: profile, search, test, a checkpoint, one page."),
    ("profile", "profile", "Show how bad the middle is for a model."),
    ("search", "search", "Find scaling factors for a model and test them on held-out records."),
    ("eval", "evaluate", "Compare a model with and without factors on the same records."),
    ("dashboard", "dashboard", "Watch a search in the browser: every candidate in the study's own dashboard."),
    ("data", "data", "Files of questions: get the official ones, or build your own."),
    ("show", "show", "Print a prompt as the model gets it, with the scored tokens marked."),
    ("doctor", "doctor", "Is this model supported, layer by layer, and what will a search cost?"),
):
    app.command(f"ropewalk.cli.{verb}:{function}", name=verb, help=summary)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    remember(arguments)
    try:
        app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(str(error).replace("\n", " "), "see: ropewalk --help")
    except RopewalkError as error:
        return _fail(str(error))
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "stopped", code=130)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        sys.stderr.close()
        return 0
    return 0


def _fail(message: str, hint: str = "", code: int = 2) -> int:
    sys.stderr.write(f"ropewalk: {message}{f' ({hint})' if hint else ''}\n")
    return code
