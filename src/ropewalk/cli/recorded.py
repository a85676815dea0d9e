"""What the recorded command of a run said of its model and its tasks, read by the command line itself."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import CycloptsError

from ropewalk.cli.mix import TaskMix
from ropewalk.cli.options import ModelOptions
from ropewalk.errors import RopewalkError

if TYPE_CHECKING:
    from ropewalk.report.runs import Run


@dataclass(frozen=True)
class Recorded:
    """The options of the command. tasks: as `search` takes them; `demo` has none, and `mend` may choose others."""

    model: ModelOptions
    tasks: TaskMix


def recorded(run: Run, path: Path) -> Recorded:
    """What the run was told; the type of its numbers is the one that it had.

    path: of the run, as the user named it. Raises `RopewalkError` where that was not recorded or can't be read again.
    """
    from ropewalk.cli import app
    from ropewalk.cli.demo import MODEL

    if run.command is None:
        raise RopewalkError(
            f"{path}: does not say where its model ({run.model.get('name', 'unknown')}) is: name it with --model"
        )
    try:
        _, bound, _ = app.parse_args(shlex.split(run.command)[1:], exit_on_error=False, print_error=False)
    except (CycloptsError, RopewalkError, ValueError) as error:  # as a --config that is gone
        why = str(error).replace("\n", " ")
        raise RopewalkError(f"{path}: its command can't be read again ({why}): name its model with --model") from None
    given = bound.arguments.get("model") or MODEL
    model = ModelOptions(**{entry.name: getattr(given, entry.name) for entry in fields(ModelOptions)})
    had = run.history.settings if run.history else run.result["provenance"] if run.result else {}
    return Recorded(replace(model, dtype=model.dtype or had.get("dtype")), bound.arguments.get("task") or TaskMix())
