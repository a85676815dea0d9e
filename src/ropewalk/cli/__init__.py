"""The command `ropewalk`: one file a verb, each thin. Loads no torch before a model is needed.

Exit codes: 0 done, 2 a user's mistake (one line on standard error that says what to do), 130 stopped by Ctrl-C.
Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from inspect import BoundArguments
from typing import Any

from cyclopts import App, CycloptsError, MissingArgumentError, UnusedCliTokensError

from ropewalk.cli.config import read_config
from ropewalk.cli.examples import epilogue
from ropewalk.cli.invocation import remember
from ropewalk.errors import RopewalkError

CONDUCT = """Exit codes:
  0    done; a dashboard or studio that Ctrl-C ended, too
  2    a mistake in what was given; one line says what to do
  130  stopped by Ctrl-C; a search or mend goes on by the same command
  else a bug: please report its traceback

Results go to standard output, progress and errors to standard error. Colours
only on a terminal, and not where NO_COLOR is set. ropewalk VERB --help says all
about a verb.
"""

app = App(
    name="ropewalk",
    help="Cures 'lost in the middle' in rotary-position LLMs without training: one scaling factor per layer.",
    help_epilogue=f"{epilogue('')}\n{CONDUCT}",
    help_format="plaintext",
    version=lambda: version("ropewalk"),
    help_flags=["--help", "-h"],
    suppress_keyboard_interrupt=False,  # a verb says what it kept, and how to go on
    config=read_config,
)
VERBS = (
    ("demo", "demo", "The whole road once on a small real model: profile, search, test. About 8 minutes on two cores."),
    ("mend", "mend", "All of it for those who just want it mended: profile, search, test, a checkpoint, one page."),
    ("profile", "profile", "Show how bad the middle is for a model."),
    ("search", "search", "Find scaling factors for a model and test them on held-out records."),
    ("eval", "evaluate", "Compare a model with and without factors on the same records."),
    ("extrapolate", "extrapolate", "How far does a model read beyond its trained length, under which base scheme?"),
    ("lm-eval", "lm_eval", "Check that nothing else broke: tasks of lm-evaluation-harness, with and without factors."),
    ("analyze", "analyze", "Which layers, which frequencies, why: one question about a model and its factors."),
    ("report", "report", "One page that shows a run, or several side by side; works offline."),
    ("dashboard", "dashboard", "Watch a search in the browser: every candidate in the study's own dashboard."),
    ("studio", "studio", "Bend the curve by hand on a loaded model, in the browser; follow a search live."),
    ("export", "export", "Write a model with its factors: a checkpoint, code for plain transformers, factors."),
    ("push", "push", "Upload an export to the model hub."),
    ("zoo", "zoo", "Factors that come with the package: their tests, their cards, and how to add some."),
    ("show", "show", "Print a prompt as the model gets it, with the scored tokens marked."),
    ("doctor", "doctor", "Is this model supported, layer by layer, and what will a search cost?"),
    ("data", "data", "Files of questions: get the official ones, or build your own."),
)
for place, (verb, function, summary) in enumerate(VERBS):
    # An App that is imported, as data's, brings its own epilogue and place.
    more: dict[str, Any] = {} if verb in ("analyze", "data") else {"help_epilogue": epilogue(verb), "sort_key": place}
    app.command(f"ropewalk.cli.{verb.replace('-', '_')}:{function}", name=verb, help=summary, **more)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    from ropewalk.cli import console
    from ropewalk.cli.encoding import never_fail
    from ropewalk.cli.interrupt import never_lost

    never_fail()
    remember(arguments)
    try:
        with never_lost():
            command, bound, _ = app.parse_args(
                list(arguments), console=console.output(), exit_on_error=False, print_error=False
            )
            _perform(command, bound)
    except CycloptsError as error:
        return _fail(_words(error), f"see: {' '.join(['ropewalk', *_verb(arguments)])} --help")
    except RopewalkError as error:
        return _fail(str(error))
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "stopped", code=130)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        sys.stderr.close()
        return 0
    return 0


def _perform(command: Any, bound: BoundArguments) -> None:
    """Call a verb with its voice, and write the figures that it returns."""
    from ropewalk.cli import console
    from ropewalk.cli.options import Output

    given = bound.arguments
    output = given.get("output") or Output(quiet=bool(given.get("quiet")))
    with console.speaking(console.Voice(output.quiet, output.on_stdout)):
        figures = command(*bound.args, **bound.kwargs)
        if figures is not None:
            output.write(figures)


def _verb(arguments: Sequence[str]) -> Sequence[str]:
    """The command that was meant, as far as it is one."""
    return app.parse_commands(list(arguments))[0]


def _words(error: CycloptsError) -> str:
    """What was wrong, in a line."""
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.argument.name} is missing" if not error.tokens_so_far and not error.keyword else _line(error)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"nothing takes {' '.join(map(repr, error.unused_tokens))}"
    return _line(error)


def _line(error: CycloptsError) -> str:
    return str(error).replace("\n", " ")


def _fail(message: str, hint: str = "", code: int = 2) -> int:
    sys.stderr.write(f"ropewalk: {message}{f' ({hint})' if hint else ''}\n")
    return code
