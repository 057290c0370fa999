"""The WebSocket server: hello, audio in, stems out, and a clear error for who breaks the rules.

One event loop moves bytes between sockets and rings; the engine's process does the rest.  Nothing
here grows: a client's audio waits in its ring, its messages in a queue of a few, what it does not
read in the ring of its stems; and whoever leaves them full is told and let go.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np
from websockets.asyncio.server import Server as SocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from realtime_sep.dsp.meters import linear
from realtime_sep.errors import DeviceError, EngineError, RealtimeSepError, UsageError
from realtime_sep.io.pipe import decode, encode
from realtime_sep.serve import guard, protocol
from realtime_sep.serve.process import EngineProcess, ModelFacts
from realtime_sep.serve.protocol import ClientError, Hello
from realtime_sep.serve.rounds import Busy, Opened, Stream
from realtime_sep.serve.slot import MAX_OUTPUTS, Slot

#: Messages of a client that wait to be handled, before its socket is not read any more.
_QUEUE = 8
#: Bytes that wait to be sent before a client counts as slow.
_WRITE_LIMIT = 1 << 15
#: Seconds for a client to take note that it is being closed.
_CLOSE_TIMEOUT = 2.0
#: Open connections, clients or not, for each client that there may be.
_CONNECTIONS = 4
#: Seconds between pulses, how many of the last count, and how few are not enough.
_PULSE, _PULSES, _ENOUGH = 0.02, 500, 100
#: Seconds that the slowest hundredth of pulses may take before nobody else is admitted: two rounds,
#: each of which may take `rounds.BUDGET` of a hop, and what any network's clients have to expect
#: anyway.
_LATE_HOPS, _LATE_SECONDS = 1.5, 0.02
#: Samples beyond this (+60 dBFS) are no audio; the engine takes them for silence.
_ABSURD = 1e3


@dataclass(frozen=True)
class ServeConfig:
    """What to serve, and where.

    Attributes:
        models: names; the first is what clients get that name none.
        host, port: to listen at; port 0: any.
        clients: at once, at most.
        token: that clients have to know; None: nobody asks.
        origins: of web pages that may connect.
        options: for the models' separators.
    """

    models: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8765
    clients: int = 32
    token: str | None = None
    origins: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class Server:
    """A server that runs, inside `serving`.

    Attributes:
        port: that it listens at.
        models: what they are and cost.
        refused: clients that there was no room for.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.models: dict[str, ModelFacts] = {}
        self.port = config.port
        self.refused = 0
        self.served = 0
        self._clients: dict[int, _Client] = {}
        self._pulses: deque[float] = deque(maxlen=_PULSES)
        self._pulse: asyncio.Task[None] | None = None
        self.engine = EngineProcess(
            config.models, config.clients, config.options, self._wake, self._tell
        )
        self._sockets: SocketServer | None = None
        self._watch: asyncio.Task[None] | None = None
        self._connections = 0

    # ---- what the engine's process says

    def _wake(self) -> None:
        for client in self._clients.values():
            client.look()

    def _tell(self, kind: str, place: int, text: str) -> None:
        if client := self._clients.get(place):
            client.told(kind, text)

    # ---- one connection

    async def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what is no WebSocket, and who may not have one."""
        config = self.config
        headers = request.headers
        if not guard.allowed_host(_one(headers, "Host"), config.host):
            return _respond(
                connection, HTTPStatus.FORBIDDEN, "this server does not answer to that Host"
            )
        if not guard.allowed_origin(_one(headers, "Origin"), config.origins):
            return _respond(
                connection,
                HTTPStatus.FORBIDDEN,
                "web pages of this origin may not connect; allow it with --origin",
            )
        if not headers.get_all("Upgrade"):
            if request.path in ("/", "/healthz"):
                return _respond(connection, HTTPStatus.OK, json.dumps(self.status()))
            return _respond(connection, HTTPStatus.NOT_FOUND, "there is / and /healthz")
        if self._connections >= _CONNECTIONS * config.clients:
            return _respond(connection, HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        return None

    def status(self) -> dict[str, Any]:
        """How the server is, for people and monitors."""
        p99 = self.late()
        return {
            "status": "ok",
            "protocol": protocol.VERSION,
            "models": list(self.models),
            "clients": len(self._clients),
            "served": self.served,
            "refused": self.refused,
            "pulse_p99_ms": None if p99 is None else round(1e3 * p99, 2),
        }

    async def handle(self, connection: ServerConnection) -> None:
        """One connection, from hello to its end."""
        place = None
        self._connections += 1
        try:
            hello = await self._hello(connection)
            model, stems = self._model(hello)
            place, slot, opened = await self._open(hello, model, stems)
            client = _Client(self, connection, hello, stems, slot, place, opened)
            self._clients[place] = client
            self.served += 1
            await client.run(_ready(hello, model, self.models[model], stems, opened, slot))
        except ConnectionClosed:
            pass
        except ClientError as error:
            await _close(connection, error)
        except Exception as error:  # a mistake of ours ends one client, and is told
            await _close(
                connection, ClientError("failed", f"{error!r:.200}", protocol.CLOSE_FAILED)
            )
        finally:
            self._connections -= 1
            if place is not None:
                self._clients.pop(place, None)
                self.engine.close(place)

    async def _hello(self, connection: ServerConnection) -> Hello:
        try:
            async with asyncio.timeout(protocol.HELLO_SECONDS):
                message = await connection.recv()
        except TimeoutError:
            raise ClientError(
                "bad_hello", f"no hello within {protocol.HELLO_SECONDS:.0f} s"
            ) from None
        except UnicodeDecodeError:
            message = b""
        if not isinstance(message, str):
            raise ClientError(
                "bad_hello", "the first message is a hello, in text", protocol.CLOSE_UNSUPPORTED
            )
        hello = protocol.read_hello(protocol.read_json(message))
        request = connection.request
        header = request.headers.get("Authorization", "") if request is not None else ""
        given = hello.token or header.removeprefix("Bearer ").strip()
        if not guard.allowed_token(given, self.config.token):
            raise ClientError(
                "unauthorized", "this server wants its token, in the hello or as a bearer token"
            )
        return hello

    def _model(self, hello: Hello) -> tuple[str, tuple[str, ...]]:
        """The model's name and the names of its stems."""
        name = hello.model or self.config.models[0]
        if name not in self.models:
            raise ClientError(
                "bad_hello",
                f"this server has no model {name[:40]!r}; it has {', '.join(self.models)}",
            )
        return name, self.models[name].info.stems

    async def _open(
        self, hello: Hello, model: str, stems: tuple[str, ...]
    ) -> tuple[int, Slot, Opened]:
        outputs = protocol.choose_outputs(hello.outputs, stems)
        stream = Stream(model, hello.samplerate, hello.channels, outputs, hello.packet)
        gains = _gains(hello.faders, stems)
        try:
            late = self.late()
            most = _LATE_HOPS * self.models[model].period + _LATE_SECONDS
            if late is not None and late > most:
                raise Busy(
                    f"this server is full: with its {len(self._clients)} clients a hop may now "
                    f"take {1e3 * late:.0f} ms, and should not take over {1e3 * most:.0f}; try "
                    "again later"
                )
            return await self.engine.open(stream, gains)
        except Busy as error:
            self.refused += 1
            raise ClientError("refused", str(error), protocol.CLOSE_LATER) from None
        except RealtimeSepError as error:
            raise ClientError("bad_hello", str(error)) from None

    # ---- how late it is

    async def _feel_pulse(self) -> None:
        """Send something the way of the audio, again and again, and note how long it takes.

        A client's own packets would tell less: who sends too much waits for itself.
        """
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _PULSE
            await asyncio.sleep(_PULSE)
            if not self._clients:
                self._pulses.clear()
                continue
            await self.engine.pulse()
            self._pulses.append(loop.time() - due)

    def late(self) -> float | None:
        """Seconds that the slowest hundredth of the last pulses took; None: they were too few."""
        if len(self._pulses) < _ENOUGH:
            return None
        return float(np.quantile(self._pulses, 0.99))

    # ---- life

    async def start(self) -> None:
        """Load models, measure them, listen."""
        config = self.config
        self.models = await self.engine.ready()
        for name, facts in self.models.items():
            if len(facts.info.stems) >= MAX_OUTPUTS:
                raise UsageError(f"{name!r} has too many stems to be served")
        self._watch = asyncio.create_task(self.engine.watch())
        self._pulse = asyncio.create_task(self._feel_pulse())
        # Its log would be ours to keep quiet; what matters is told to the client.
        quiet = logging.getLogger("realtime_sep.serve")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        try:
            self._sockets = await serve(
                self.handle,
                config.host,
                config.port,
                process_request=self.admit,
                # Twice what is allowed: up to here an error tells, beyond it the close code.
                max_size=2 * protocol.MAX_MESSAGE,
                max_queue=_QUEUE,
                write_limit=_WRITE_LIMIT,
                open_timeout=protocol.HELLO_SECONDS,
                close_timeout=_CLOSE_TIMEOUT,
                compression=None,  # music does not get smaller, and it costs more than the model
                server_header=None,
                logger=quiet,
            )
        except OSError as error:
            raise DeviceError(
                f"cannot listen at {config.host}:{config.port}: {error.strerror or error}; "
                "choose another --port"
            ) from error
        self.port = next(iter(self._sockets.sockets)).getsockname()[1]

    async def run(self) -> None:
        """Serve until the engine's process is gone.

        Raises:
            EngineError: it is.
        """
        assert self._watch is not None, "not started"
        try:
            await asyncio.shield(self._watch)
        except EngineError as error:
            for client in self._clients.values():
                client.told("broken", str(error))
            await asyncio.sleep(0.1)  # so that they hear it
            raise

    async def stop(self) -> None:
        """Tell everybody, and end."""
        if self._sockets is not None:
            self._sockets.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * _CLOSE_TIMEOUT):
                    await self._sockets.wait_closed()
        tasks = [task for task in (self._watch, self._pulse) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self.engine.stop)


@asynccontextmanager
async def serving(config: ServeConfig) -> AsyncIterator[Server]:
    """A server that listens as long as the block runs.

    Raises:
        RealtimeSepError: a model cannot be loaded.
        DeviceError: the port cannot be had.
    """
    server = Server(config)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


class _Client:
    """One stream: a task that receives, and one that sends."""

    def __init__(
        self,
        server: Server,
        connection: ServerConnection,
        hello: Hello,
        stems: tuple[str, ...],
        slot: Slot,
        place: int,
        opened: Opened,
    ) -> None:
        self._server = server
        self._connection = connection
        self._hello = hello
        self._stems = stems
        self._slot = slot
        self._place = place
        self._opened = opened
        # What is owed to the client, in order: frames, or a JSON message.
        self._owed: deque[int | dict[str, Any]] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._flushed = asyncio.Event()
        self._failure: str | None = None
        self._sent = 0
        self._clipped = 0
        self._absurd = False
        self._short = False  # the last packet was no whole one: only the end may follow
        self._started = 0.0
        self._messages, self._counted = 0.0, time.monotonic()

    async def run(self, ready: dict[str, Any]) -> None:
        """Until the client is done.

        Raises:
            ClientError: it broke a rule, or its separator failed.
            ConnectionClosed: it is gone.
        """
        await self._connection.send(json.dumps(ready))
        if self._opened.notice is not None:
            self.told("notice", self._opened.notice)
        tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._send())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what others tell

    def look(self) -> None:
        """The rings may have changed."""
        if self._owed and self._payable(self._owed[0]):
            self._news.set()
        self._room.set()

    def told(self, kind: str, text: str) -> None:
        if kind == "notice":
            self._owed.append({"type": "notice", "message": text})
        else:
            self._failure = text
        self._news.set()

    # ---- in

    async def _receive(self) -> None:
        """Take messages until the client ends the stream."""
        while True:
            try:
                async with asyncio.timeout(protocol.IDLE_SECONDS):
                    message = await self._connection.recv()
            except TimeoutError:
                raise ClientError(
                    "idle", f"nothing came for {protocol.IDLE_SECONDS:.0f} s"
                ) from None
            except UnicodeDecodeError:
                raise ClientError(
                    "bad_message", "a text message that is no UTF-8", protocol.CLOSE_UNSUPPORTED
                ) from None
            self._count()
            if isinstance(message, bytes):
                await self._audio(message)
            elif await self._control(message):
                return

    def _count(self) -> None:
        """A bucket that fills with messages and leaks at the rate that is allowed."""
        now = time.monotonic()
        leaked = (now - self._counted) * protocol.MESSAGE_RATE
        self._messages, self._counted = max(0.0, self._messages - leaked) + 1, now
        if self._messages > protocol.MESSAGE_BURST:
            raise ClientError(
                "too_fast",
                f"more than {protocol.MESSAGE_RATE} messages a second: put more audio into each",
            )

    async def _audio(self, message: bytes) -> None:
        hello = self._hello
        now = time.monotonic()
        if len(message) > protocol.MAX_MESSAGE:
            raise ClientError(
                "too_big",
                f"{len(message)} bytes of audio in one message; at most {protocol.MAX_MESSAGE}",
                protocol.CLOSE_TOO_BIG,
            )
        frames, rest = divmod(len(message), hello.frame_bytes)
        if frames > self._slot.max_frames:
            raise ClientError(
                "too_big",
                f"{frames} frames in one message; at most {self._slot.max_frames}",
                protocol.CLOSE_TOO_BIG,
            )
        if rest or self._short:
            raise ClientError(
                "bad_audio",
                f"a message of {len(message)} bytes is no whole number of packets: {hello.packet} "
                f"frames of {hello.channels} samples of {hello.format}, "
                f"{hello.packet * hello.frame_bytes} bytes",
                protocol.CLOSE_UNSUPPORTED,
            )
        samples = decode(message, hello.format).reshape(-1, hello.channels)
        if hello.format == "f32le":
            self._check(samples)
        self._short = bool(frames % hello.packet)
        ring = self._slot.audio
        begin = self._started or now
        # Whoever pauses may catch up on that, but not on the whole evening.
        begin = max(begin, now - ring.written / hello.samplerate - 5 * protocol.AHEAD)
        self._started = begin
        ahead = (ring.written + frames) / hello.samplerate - (now - begin)
        if ahead > protocol.AHEAD + frames / hello.samplerate:
            raise ClientError(
                "too_fast",
                f"audio came {ahead:.1f} s ahead of real time, at most {protocol.AHEAD:.0f} s are "
                "taken: send it as it plays; for files there is `realtime-sep separate`",
            )
        left = samples
        while left.size:
            written = ring.write(left)
            left = left[written:]
            self._server.engine.ring()
            if left.size:
                await self._wait_for_room()
        self._owed.append(frames)
        self.look()

    def _check(self, samples: np.ndarray[Any, Any]) -> None:
        """Whether floats are audio at all."""
        with np.errstate(invalid="ignore"):
            absurd = int(np.count_nonzero(~(np.abs(samples) <= _ABSURD)))
        if 2 * absurd > samples.size:
            raise ClientError(
                "bad_audio",
                "this is no audio: most samples are not finite, or 60 dB over full scale; is it "
                "really f32le?",
                protocol.CLOSE_UNSUPPORTED,
            )
        if absurd and not self._absurd:
            self._absurd = True
            self.told("notice", "samples that are no sound (not finite, or +60 dB) become silence")

    async def _wait_for_room(self) -> None:
        self._room.clear()
        if self._slot.audio.write_space:
            return
        try:
            async with asyncio.timeout(protocol.SLOW_SECONDS):
                while not self._slot.audio.write_space:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            raise ClientError(
                "slow",
                f"for {protocol.SLOW_SECONDS:.0f} s this client has not read its stems, and no "
                "more of them can be kept",
            ) from None

    async def _control(self, text: str) -> bool:
        """Do what a JSON message says.  Returns whether the stream is over."""
        message = protocol.read_json(text)
        kind = message["type"]
        if kind == "faders":
            try:
                gains = _gains(protocol.read_faders(message.get("faders")), self._stems)
            except RealtimeSepError as error:
                raise ClientError("bad_message", str(error)) from None
            for stem, gain in gains.items():
                self._slot.gains[stem] = gain
        elif kind in ("flush", "end"):
            await self._flush("flushed" if kind == "flush" else "ended")
            return bool(kind == "end")
        elif kind == "hello":
            raise ClientError("bad_message", "hello is said once")
        else:
            raise ClientError("bad_message", f"type is faders, flush or end, not {kind[:20]!r}")
        return False

    async def _flush(self, answer: str) -> None:
        """Send the tail; wait until all is sent."""
        self._flushed.clear()
        self._short = False
        written = self._slot.audio.written
        left = self._opened.latency
        while left:
            piece = min(left, protocol.TAIL_PIECE)
            self._owed.append(piece)
            left -= piece
        self._owed.append({"type": answer, "frames": written, "clipped": self._clipped})
        self._server.engine.end(self._place, written)
        self.look()
        try:
            async with asyncio.timeout(2 * protocol.SLOW_SECONDS):
                await self._flushed.wait()
        except TimeoutError:
            raise ClientError("slow", "this client does not read its stems") from None

    # ---- out

    def _payable(self, owed: int | dict[str, Any]) -> bool:
        return isinstance(owed, dict) or self._slot.stems.read_space >= owed

    async def _send(self) -> None:
        """Send what is owed, as it comes, for ever."""
        ring = self._slot.stems
        while True:
            await self._news.wait()
            self._news.clear()
            if self._failure is not None:
                raise ClientError("failed", self._failure, protocol.CLOSE_FAILED)
            while self._owed and self._payable(self._owed[0]):
                owed = self._owed.popleft()
                if isinstance(owed, dict):
                    await self._connection.send(json.dumps(owed))
                    if owed["type"] in ("flushed", "ended"):
                        self._flushed.set()
                    continue
                pcm, clipped = encode(ring.read(owed), self._hello.format)
                self._clipped += clipped
                self._server.engine.ring()  # there is room again
                await self._connection.send(pcm)


# --- small things --------------------------------------------------------------------------------


def _ready(
    hello: Hello,
    model: str,
    facts: ModelFacts,
    stems: tuple[str, ...],
    opened: Opened,
    slot: Slot,
) -> dict[str, Any]:
    """The answer to a hello."""
    outputs = hello.outputs or stems
    return {
        "type": "ready",
        "version": protocol.VERSION,
        "model": model,
        "stems": list(stems),
        "outputs": list(outputs),
        "layout": protocol.layout(outputs, hello.channels),
        "samplerate": hello.samplerate,
        "channels": hello.channels,
        "format": hello.format,
        "latency": opened.latency,
        "hop": opened.hop,
        "provider": facts.info.provider,
        "max_frames": min(slot.max_frames, protocol.MAX_MESSAGE // hello.frame_bytes),
    }


def _gains(faders: Mapping[str, float], stems: tuple[str, ...]) -> dict[int, float]:
    """Linear gains by the index of their stem."""
    for name in faders:
        if name not in stems:
            raise ClientError(
                "bad_message", f"no stem {name[:40]!r} to fade; there are {', '.join(stems)}"
            )
    return {stems.index(name): linear(db) for name, db in faders.items()}


async def _close(connection: ServerConnection, error: ClientError) -> None:
    """Say what was wrong, if anybody listens, and close."""
    with suppress(ConnectionClosed, TimeoutError):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await connection.send(
                json.dumps({"type": "error", "code": error.code, "message": str(error)})
            )
    with suppress(ConnectionClosed):
        await connection.close(error.close, error.code)


def _one(headers: Any, name: str) -> str | None:
    """A header that may come once."""
    values = headers.get_all(name)
    return values[0] if len(values) == 1 else ("" if values else None)


def _respond(connection: ServerConnection, status: HTTPStatus, text: str) -> Response:
    response = connection.respond(status, text + "\n")
    if text.startswith("{"):
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
    return response
