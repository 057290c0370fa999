"""Who may talk to the desk: its own page and programs of this user, and nobody else by accident.

A web page elsewhere can make a browser send requests here, but it cannot forge `Origin`; and where
it makes its own name point to this machine (DNS rebinding), it cannot forge `Host`.  Both are
checked on HTTP and WebSocket alike.  Beyond loopback everybody must know the token as well.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "realtime_sep_desk"

#: Nothing from elsewhere is loaded, and nobody puts the page into a frame.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to a server that listens on `address`."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def host_allowed(host: str, names: frozenset[str]) -> bool:
    """Whether a `Host` header names us: one of `names`, or any address (no DNS, no rebinding)."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        try:
            return (urlsplit(f"//{host}").hostname or "") in names
        except ValueError:
            return False
    return True


def origin_allowed(origin: str | None, host: str) -> bool:
    """Whether a request comes from our own page, or from no page at all."""
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


class Guard:
    """ASGI middleware.

    Args:
        token: that everybody must show, as a cookie, a bearer token or once as `?token=`; None:
            nobody needs one.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self._app, self._token = app, token
        name = socket.gethostname().lower()
        self._names = frozenset({"localhost", name, f"{name.removesuffix('.local')}.local"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not host_allowed(host, self._names):
            await _refuse(scope, receive, send, "this desk does not answer to that Host")
        elif not origin_allowed(headers.get("origin"), host):
            await _refuse(scope, receive, send, "other pages may not use this desk")
        elif self._token is None or self._known(headers):
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http" and self._knows(_query_token(scope)):
            response = RedirectResponse("/", status_code=303, headers=_HEADERS)
            response.set_cookie(
                COOKIE,
                self._token,
                httponly=True,
                samesite="lax",
                secure=scope.get("scheme") == "https",
                max_age=1 << 25,
            )
            await response(scope, receive, send)
        else:
            await _refuse(
                scope, receive, send, "open the address with its token, as the desk shows it", 401
            )

    def _known(self, headers: Headers) -> bool:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        cookie = cookies[COOKIE].value if COOKIE in cookies else ""
        bearer = headers.get("authorization", "").removeprefix("Bearer ").strip()
        return self._knows(cookie) or self._knows(bearer)

    def _knows(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), (self._token or "").encode())


def _query_token(scope: Scope) -> str:
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


async def _refuse(
    scope: Scope, receive: Receive, send: Send, reason: str, status: int = 403
) -> None:
    if scope["type"] == "websocket":  # refused before it is accepted: HTTP 403
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    await PlainTextResponse(reason + "\n", status, headers=_HEADERS)(scope, receive, send)


def _with_headers(send: Send) -> Send:
    async def sending(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            raw = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", ()), *raw]}  # type: ignore[misc]
        await send(message)

    return sending  # type: ignore[return-value]
