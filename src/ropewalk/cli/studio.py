"""`ropewalk studio`: a page on this machine that shows what factors do, and lets a person steer them."""

from __future__ import annotations

import errno
import secrets
import socket
from pathlib import Path
from typing import Annotated, Any

from ropewalk.cli.dashboard import HOST
from ropewalk.cli.options import RUN, ModelOptions, Quiet, SplitName, TaskChoice, described, number
from ropewalk.errors import PrerequisiteError, RopewalkError

LIMIT = 24  # records, as a search's validation has: an evaluation should not take long


def studio(
    run: Annotated[
        Path | None, described("Run directory of a search, mend or demo, finished or at work.", group=RUN)
    ] = None,
    /,
    *,
    model: ModelOptions | None = None,
    task: TaskChoice | None = None,
    split: SplitName = "validation",
    out: Annotated[
        Path | None,
        described("Where the session is kept. Default: runs/studio-NAME, by run or model.", group=RUN, metavar="DIR"),
    ] = None,
    port: Annotated[int, number("Port on this machine. Default: a free one.", show_default=False, group=RUN)] = 0,
    quiet: Quiet = False,
) -> None:
    """Bend the curve on a loaded model, in the browser: drag it, evaluate it, compare it, save it. Ctrl-C ends it.

    With a run its model, its task and its candidates are there; else name a model, and a task as for `profile`. Only
    this machine can open the page, by the address that is printed.
    """
    from ropewalk.cli import console
    from ropewalk.locks import held

    _check_installed()
    from ropewalk.cli.studio_setting import setting_of
    from ropewalk.studio.app import application
    from ropewalk.studio.searches import SECONDS, Searches
    from ropewalk.studio.session import Session
    from ropewalk.studio.studio import Studio
    from ropewalk.studio.worker import Worker

    setting = setting_of(run, model, task, split, LIMIT)
    directory = out or Path("runs") / f"studio-{setting.name}"
    with held(directory, "studio.lock", "using this session"), _socket(port) as listening:
        session = Session(directory, setting.model.model)
        worker = Worker(setting.loading(quiet=quiet), session)
        own_port, token = listening.getsockname()[1], secrets.token_urlsafe(24)
        searches = Searches(directory, setting.search_command())
        studio = Studio(session, worker, setting.model.model, searches, setting.candidates, setting.remarks)
        app = application(studio, own_port, token)
        console.say(f"http://{HOST}:{own_port}/?token={token}")
        for remark in setting.remarks:
            console.line(remark)
        console.line(f"The session is kept in {directory}. Ctrl-C ends this.")
        worker.start()
        try:
            _serve(app, listening)
        except KeyboardInterrupt:  # the way to end it, so no failure
            console.line("Studio ended.")
        finally:
            searches.stop(SECONDS)
            worker.end()


def _serve(app: Any, listening: socket.socket) -> None:
    """Answer until Ctrl-C, which uvicorn hands on once all answers are given."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _check_installed() -> None:
    """Raise `PrerequisiteError` unless all that the page needs is there."""
    try:
        import starlette.applications  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "anyio", "h11", "click"):
            raise
        raise PrerequisiteError("the studio is not installed: pip install ropewalk[studio]") from None


def _socket(port: int) -> socket.socket:
    """A listening socket on a free port of the loopback, or on that one."""
    if not 0 <= port <= 65535:
        raise RopewalkError(f"--port {port}: expected 1 to 65535, or none for a free one")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        why = "is taken" if error.errno == errno.EADDRINUSE else f"can't be opened ({error.strerror})"
        raise RopewalkError(f"--port {port}: {why}; leave it out for a free one") from None
    return listening
