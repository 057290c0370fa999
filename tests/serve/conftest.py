"""A server as users start it, and clients of every kind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from realtime_sep.types import Float32

ROOT = Path(__file__).parents[2]
CLIENTS = 6


@dataclass
class Served:
    """A running server."""

    url: str
    process: subprocess.Popen[str]
    said: list[str]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def memory(self) -> int:
        """Resident bytes of the server and its engine process."""
        pids = [self.process.pid]
        children = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split()
        pids += map(int, children)
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return pages * os.sysconf("SC_PAGE_SIZE")


def start(*arguments: str) -> Served:
    """A server at a port of its own."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "realtime_sep", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if found := re.match(r"(ws://\S+) serves", line):
            return Served(found[1].replace("0.0.0.0", "127.0.0.1"), process, said)
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


def finish(served: Served) -> None:
    """As Ctrl-C does; it ends well and has nothing to complain about."""
    served.process.send_signal(signal.SIGINT)
    _, complaints = served.process.communicate(timeout=30)
    assert served.process.returncode == 0, complaints
    assert complaints == ""


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    server = start("--model", "center", "--model", "identity", "--clients", str(CLIENTS))
    yield server
    finish(server)


# --- a client ------------------------------------------------------------------------------------


class Client:
    """A connection after its hello."""

    def __init__(self, socket: ClientConnection, ready: dict[str, Any]) -> None:
        self.socket = socket
        self.ready = ready
        self.audio: list[bytes] = []
        self.said: list[dict[str, Any]] = []

    async def send(self, audio: bytes, seconds: float = 0.0) -> None:
        await self.socket.send(audio)
        await asyncio.sleep(seconds)

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def listen(self, until: str = "") -> dict[str, Any]:
        """Take everything, until a message of this type or the end of the connection."""
        with suppress(ConnectionClosed):
            async for message in self.socket:
                if isinstance(message, bytes):
                    self.audio.append(message)
                else:
                    self.said.append(json.loads(message))
                    if self.said[-1]["type"] == until:
                        return self.said[-1]
        return self.said[-1] if self.said else {}

    def stems(self, kind: str = "<f4") -> np.ndarray[Any, Any]:
        """`(frames, samples of a frame)` of all that came."""
        return np.frombuffer(b"".join(self.audio), kind).reshape(-1, len(self.ready["layout"]))


#: Seconds to ask again for: places are freed a moment after their client has gone, and a machine
#: that stalls makes a server think that it is full.
PATIENCE = 30


@asynccontextmanager
async def client(url: str, **hello: Any) -> AsyncIterator[Client]:
    """A client whose hello was taken."""
    text = json.dumps({"type": "hello", "version": 1, "samplerate": 48000, **hello})
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        async with connect(url, compression=None, max_size=None, close_timeout=1) as socket:
            await socket.send(text)
            ready = json.loads(await socket.recv())
            if ready.get("code") != "refused" or asyncio.get_running_loop().time() > deadline:
                assert ready["type"] == "ready", ready
                yield Client(socket, ready)
                return
        await asyncio.sleep(0.2)


async def stream(
    url: str, audio: Float32, sizes: Sequence[int], pace: float = 0.0, **hello: Any
) -> tuple[Client, np.ndarray[Any, Any]]:
    """Send audio in packets of these sizes in turn; all that came back."""
    kind, scale = ("<i2", 32768) if hello.get("format") == "s16le" else ("<f4", 1)
    pcm = (audio * scale).astype(kind)
    async with client(url, **hello) as one:
        listening = asyncio.create_task(one.listen())
        start = turn = 0
        while start < len(pcm):
            size = sizes[turn % len(sizes)]
            await one.send(pcm[start : start + size].tobytes(), pace)
            start, turn = start + size, turn + 1
        await one.say(type="end")
        await listening
        return one, one.stems(kind)
