"""The web application: what the page asks for, and what becomes of it. `ropewalk.studio.guard` stands before it."""

from __future__ import annotations

import functools
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ropewalk.errors import DataError, RopewalkError
from ropewalk.studio.guard import Guard, TooLargeError, too_large
from ropewalk.studio.model_process import reason
from ropewalk.studio.studio import Answer, Body, Studio

STATIC = Path(__file__).parent / "static"
ACTIONS = (
    *("curve", "undo", "redo", "save", "forget", "load", "upload"),
    *("evaluate", "cancel", "search", "stop", "follow", "look"),
)
Endpoint = Callable[[Request], Awaitable[Response]]


def application(studio: Studio, port: int, token: str) -> Guard:
    """All of the studio for a server on that port of this machine."""
    reads = {"state": studio.state, "run": studio.run, "results": studio.results}
    app = Starlette(
        routes=[
            Route("/", lambda request: FileResponse(STATIC / "index.html")),
            Mount("/static", StaticFiles(directory=STATIC)),
            *(Route(f"/api/{name}", _reading(read)) for name, read in reads.items()),
            Route("/api/chart/{name}", _drawn(studio)),
            Route("/api/factors.json", _file(studio)),
            Route("/api/factors", _acting(studio.figures), methods=["POST"]),
            *(Route(f"/api/{name}", _acting(_then_state(studio, name)), methods=["POST"]) for name in ACTIONS),
        ]
    )
    return Guard(app, port, token)


def _then_state(studio: Studio, name: str) -> Callable[[Body], Answer]:
    """An action that answers with what the page shows after it."""
    action: Callable[[Body], None] = getattr(studio, name)

    def acted(body: Body) -> Answer:
        action(body)
        return studio.state({})

    return acted


def _safe(endpoint: Endpoint) -> Endpoint:
    """Whatever goes wrong becomes an answer with the reason, and the page lives."""

    @functools.wraps(endpoint)
    async def safe(request: Request) -> Response:
        try:
            return await endpoint(request)
        except TooLargeError:
            return too_large()
        except RopewalkError as error:
            return JSONResponse({"error": reason(error)}, status_code=400)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            return JSONResponse({"error": f"a bug of the studio: {reason(error)}"}, status_code=500)

    return safe


def _reading(read: Callable[[Body], Answer]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(read, dict(request.query_params)))

    return _safe(endpoint)


def _acting(act: Callable[[Body], Answer]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        raw = await request.body()
        return JSONResponse(await run_in_threadpool(act, _document(raw)))

    return _safe(endpoint)


def _drawn(studio: Studio) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        name = request.path_params["name"]
        image = await run_in_threadpool(studio.chart, name, dict(request.query_params))
        return Response(image or "", 200 if image else 204, media_type="image/svg+xml")

    return _safe(endpoint)


def _file(studio: Studio) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        factors = await run_in_threadpool(studio.current_file, dict(request.query_params))
        text = json.dumps(factors.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        headers = {"Content-Disposition": 'attachment; filename="factors.json"'}
        return Response(text, media_type="application/json", headers=headers)

    return _safe(endpoint)


def _document(raw: bytes) -> Body:
    """A JSON object. Raises `DataError` for anything else."""
    try:
        document = json.loads(raw.decode("utf-8")) if raw else {}
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})") from None
    if not isinstance(document, dict):
        raise DataError(f"expected a JSON object, got {type(document).__name__}")
    return document
