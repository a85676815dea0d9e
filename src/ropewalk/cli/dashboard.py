"""`ropewalk dashboard`: the study's own dashboard on a run, in the browser of this machine alone."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from ropewalk.cli.options import RUN, Quiet, described, number
from ropewalk.errors import PrerequisiteError, RopewalkError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"  # no other machine can ask
OWN_NAMES = (HOST, "localhost")
READS = ("GET", "HEAD")


def dashboard(
    run: Annotated[Path, described("Run directory of a search, mend or demo, finished or at work.", group=RUN)],
    /,
    *,
    port: Annotated[int, number("Port on this machine. Default: a free one.", show_default=False, group=RUN)] = 0,
    quiet: Quiet = False,
) -> None:
    """Open the study's own dashboard (Optuna's) on a run: every candidate, as they come in. Ctrl-C ends it.

    Only this machine can open it, and nothing in it can change the run.
    """
    from ropewalk.cli import console

    app = read_only(_application(run))
    with _server(app, port) as server:
        console.say(f"http://{HOST}:{server.server_port}/dashboard")
        console.line(f"The studies of {run}, read only. Ctrl-C ends this.")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:  # the way to end it, so no failure
            console.line("Dashboard ended.")


def read_only(app: WSGIApplication) -> WSGIApplication:
    """The same application for reading alone, and for this machine's own pages.

    The dashboard has no user and no password. A foreign page that a browser here has open could send requests to it
    under another name of this machine: those are refused, like all that would change a study.
    """

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in READS:
            return _refuse(start_response, "405 Method Not Allowed", "A run is shown, not changed.")
        host = environ.get("HTTP_HOST", "")
        if host.rpartition(":")[0] not in OWN_NAMES and host not in OWN_NAMES:
            return _refuse(start_response, "403 Forbidden", f"Ask for http://{HOST}, not for {host}.")
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # the dashboard looks it up without asking
        return app(environ, start_response)

    return guarded


def _application(run: Path) -> Any:
    """The dashboard of a run. Raises `PrerequisiteError` if none is installed, `StudyError` if there is no run."""
    try:
        from optuna_dashboard import wsgi
    except ModuleNotFoundError as error:
        if error.name != "optuna_dashboard":
            raise
        raise PrerequisiteError(
            "the dashboard is not installed: pip install ropewalk[dashboard] (ropewalk report needs nothing more)"
        ) from None
    from ropewalk.cli.dashboard_store import RunStorage

    return wsgi(RunStorage(run.parent if run.name == "study.db" else run))


def _server(app: WSGIApplication, port: int) -> WSGIServer:
    """A server on a free port of the loopback, or on that one."""
    if not 0 <= port <= 65535:
        raise RopewalkError(f"--port {port}: expected 1 to 65535, or none for a free one")
    try:
        return make_server(HOST, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        why = "is taken" if error.errno == errno.EADDRINUSE else f"can't be opened ({error.strerror})"
        raise RopewalkError(f"--port {port}: {why}; leave it out for a free one") from None


def _refuse(start_response: Callable[..., Any], status: str, why: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [why.encode()]


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request; none of them keeps the command from ending."""

    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        """Without the base class's question to a name server for the address's name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    """Says nothing of the requests that it answers."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""

    def address_string(self) -> str:
        """The address as it is."""
        return str(self.client_address[0])
