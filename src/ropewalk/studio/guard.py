"""Who may ask the studio: this machine's own page with the token, nobody else. Pure ASGI, before everything else.

The address that the command prints carries a random token, which is exchanged for a cookie that no script can read and
no foreign page can send. Host and Origin are checked too, so neither another name of this machine nor a page from
elsewhere gets an answer, and no request is larger than a file of factors.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_NAMES = ("127.0.0.1", "localhost")
READS = ("GET", "HEAD")
MOST_BYTES = 256 * 1024  # of a request's body: factors of 1000 layers with all that led to them have 60 KiB
ON_EVERY_ANSWER = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class TooLargeError(Exception):
    """A body of more than `MOST_BYTES` that did not say so before."""


class Guard:
    """The application behind its checks. port: where it is served. token: what the address has to carry once."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app, self._token = app, token
        self._hosts = tuple(f"{name}:{port}" for name in OWN_NAMES)
        self._cookie = f"ropewalk-studio-{port}"  # cookies know no ports: two studios must not take each other's

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in ON_EVERY_ANSWER.items()]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        answer = self._refusal(scope)
        if answer is not None:
            await answer(scope, receive, sent)
            return
        await self._app(scope, _limited(receive), sent)

    def _refusal(self, scope: Scope) -> Response | None:
        """Why there is no answer from within, or the exchange of the token for the cookie; None: all is well."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return _refuse(403, f"Ask for http://{self._hosts[0]}, not for {host[:80]}.")
        reads = scope["method"] in READS
        if origin is None and not reads:
            return _refuse(403, "A request that changes something has to say its Origin.")
        if origin is not None and origin != f"http://{host}":
            return _refuse(403, f"Pages from {origin[:80]} may not use the studio.")
        if not headers.get("content-length", "0").isdigit() or int(headers.get("content-length", "0")) > MOST_BYTES:
            return too_large()
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and reads and self._is_token(given):
            welcome = RedirectResponse("/", status_code=303)
            welcome.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return welcome
        if not self._is_token(_cookie(headers.get("cookie", ""), self._cookie)):
            return _refuse(401, "Open the address that `ropewalk studio` printed, with its token.")
        return None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), self._token.encode())


def too_large() -> Response:
    """The answer to a body that is larger than any file of factors."""
    return _refuse(413, f"Larger than {MOST_BYTES // 1024} KiB, which no file of factors needs.")


def _limited(receive: Receive) -> Receive:
    """The same, which raises `TooLargeError` once more than `MOST_BYTES` came: a stream need not say its length."""
    got = 0

    async def limited() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > MOST_BYTES:
            raise TooLargeError
        return message

    return limited


def _cookie(header: str, name: str) -> str:
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value


def _refuse(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status_code=status)
