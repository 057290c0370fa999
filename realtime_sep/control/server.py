"""The desk's page and its WebSocket; the protocol is in docs/desk.md.

All of this runs in a process beside the engine's, so nothing that a client does costs the audio a
cycle of its core's priority: commands end in shared memory, and what clients are sent comes from
there.  A client that reads slowly is sent less, one that talks too much is not listened to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from realtime_sep.control import catalogue, presets
from realtime_sep.control.desk import Desk
from realtime_sep.control.guard import Guard
from realtime_sep.control.spectrum import BANDS, RATE
from realtime_sep.errors import RealtimeSepError, UsageError
from realtime_sep.plugins import available_effects

PROTOCOL = 1
#: Longest message in bytes; the longest sensible one has a few hundred.
MAX_MESSAGE = 4096
#: Messages per second of one client that are listened to, and how many of them at once.
MESSAGE_RATE, MESSAGE_BURST = 100.0, 200.0
MAX_CLIENTS = 32
#: Updates per second.
UPDATES = 30
#: Seconds between looks for a change that all pages are to see at once.
_LOOK = 0.01

_PAGE = {
    "/": ("desk.html", "text/html"),
    "/desk.css": ("desk.css", "text/css"),
    "/desk.js": ("desk.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def app(desk: Desk, token: str | None = None) -> Starlette:
    """The web application; `token` as for `Guard`."""
    room = asyncio.Semaphore(MAX_CLIENTS)

    async def connect(socket: WebSocket) -> None:
        if room.locked():
            await socket.close(1013, "too many clients")
            return
        async with room:
            await socket.accept()
            await _Client(desk, socket).run()

    async def command(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_MESSAGE:
                return JSONResponse(_error(UsageError("the message is too long")), 413)
        answer = await _answer(desk, body)
        return JSONResponse(answer, 200 if answer["type"] == "ok" else 400)

    async def state(request: Request) -> Response:
        return JSONResponse({**desk.state(), **desk.meters()})

    return Starlette(
        routes=[
            *(Route(path, _static(*page)) for path, page in _PAGE.items()),
            Route("/api/state", state),
            Route("/api/command", command, methods=["POST"]),
            WebSocketRoute("/ws", connect),
        ],
        middleware=[Middleware(Guard, token=token)],
    )


def _static(name: str, kind: str) -> Any:
    content = files("realtime_sep.control").joinpath("page", name).read_bytes()

    async def serve(request: Request) -> Response:
        return Response(content, media_type=kind)

    return serve


async def _answer(desk: Desk, text: str | bytes) -> dict[str, Any]:
    """Do what a message says; "ok" or "error", with the message's own `id` if it has one."""
    identity: dict[str, Any] = {}
    try:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError("a message is one JSON object") from error
        if isinstance(message, dict) and isinstance(message.get("id"), int | str):
            identity = {"id": message["id"]}
        result = await run_in_threadpool(desk.command, message)
    except RealtimeSepError as error:
        return {**_error(error), **identity}
    return {"type": "ok", **identity, **result}


def _error(error: RealtimeSepError) -> dict[str, Any]:
    return {"type": "error", "message": str(error)}


class _Client:
    """One page."""

    def __init__(self, desk: Desk, socket: WebSocket) -> None:
        self._desk, self._socket = desk, socket
        self._credit, self._credited = MESSAGE_BURST, time.monotonic()
        self._scolded = 0.0

    async def run(self) -> None:
        tell = asyncio.create_task(self._tell())
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._listen()
        tell.cancel()
        with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await tell

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if not self._paid():
                answer = self._scolding()
            elif (text := message.get("text")) is None:
                answer = _error(UsageError("messages are text"))
            else:
                answer = await _answer(self._desk, text)
            if answer is not None:
                await self._socket.send_json(answer)

    def _paid(self) -> bool:
        """Whether this client still has credit for a message."""
        now = time.monotonic()
        earned = MESSAGE_RATE * (now - self._credited)
        self._credit, self._credited = min(self._credit + earned, MESSAGE_BURST), now
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _scolding(self) -> dict[str, Any] | None:
        """Once a second."""
        if time.monotonic() - self._scolded < 1:
            return None
        self._scolded = time.monotonic()
        return _error(
            UsageError(f"more than {MESSAGE_RATE:.0f} messages per second; some were dropped")
        )

    async def _tell(self) -> None:
        desk, send = self._desk, self._socket.send_json
        await send({"type": "hello", "protocol": PROTOCOL, **await run_in_threadpool(_hello)})
        version = column = -1
        due = time.monotonic()
        while True:
            if version != desk.version:
                version = desk.version
                await send({"type": "state", **desk.state()})
            await send({"type": "meters", **desk.meters()})
            newest, data = desk.columns(column)
            if column >= 0 and data:
                await self._socket.send_bytes(data)
            column = newest
            due = max(due + 1 / UPDATES, time.monotonic())
            while version == desk.version and (left := due - time.monotonic()) > 0:
                await asyncio.sleep(min(left, _LOOK))


def _hello() -> dict[str, Any]:
    """What does not change while the desk runs."""
    try:
        known, trouble = presets.presets(), ""
    except UsageError as error:
        known, trouble = presets.shipped(), str(error)
    return {
        "presets": [{"name": p.name, "title": p.title} for p in known.values()],
        "preset_trouble": trouble,
        "models": [{"name": name, **facts} for name, facts in catalogue.models().items()],
        "devices": catalogue.devices(),
        "effects": available_effects(),
        "spectrum": {"bands": BANDS, "rate": RATE},
        "updates": UPDATES,
    }
