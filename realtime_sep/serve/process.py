"""The process that computes, and the server's handle on it.

It is a process of its own because Python threads share one lock: an event loop that handles some
thousand messages a second would hold up the model, and the model the event loop.  Audio travels
through rings in shared memory (`slot`); a pipe carries what is rare; and one socket pair carries
nothing but bytes that mean "look again", which either side writes without ever waiting.
"""

from __future__ import annotations

import asyncio
import gc
import select
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from realtime_sep import native
from realtime_sep.errors import EngineError, RealtimeSepError
from realtime_sep.serve.rounds import Busy, Model, Opened, Rounds, Stream
from realtime_sep.serve.slot import Slot
from realtime_sep.types import SeparatorInfo

#: Seconds to wait for it: it imports, compiles on its first run, loads and measures models.
_START_TIMEOUT = 300.0
_STOP_TIMEOUT = 5.0


@dataclass(frozen=True)
class ModelFacts:
    """What the server knows of a model; see `rounds.Model`."""

    info: SeparatorInfo
    batched: bool
    costs: Mapping[int, float]
    period: float


# --- in the engine process -----------------------------------------------------------------------


def work(
    names: Sequence[str],
    options: Mapping[str, Any],
    slots: Sequence[Slot],
    pipe: Connection,
    bell: socket.socket,
) -> None:
    """Serve streams as the life of this process.

    Messages out: `("ready", facts)` or `("failed", error)`, then `("opened", place, Opened)`,
    `("refused", place, error)`, `("notice", place, text)`, `("broken", place, text)` and
    `("closed", place, None)`.  Messages in: names and arguments of the methods of `Rounds`, and
    `("pulse", -1)`, which is answered by the same after the next round.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that owns the terminal
    native.flush_denormals()
    native.set_realtime(native.PRIORITY)  # not permitted, it is as late as others make it
    bell.setblocking(False)
    try:
        models = [Model(name, len(slots), options) for name in names]
    except RealtimeSepError as error:
        pipe.send(("failed", error))
        _ring(bell)
        return
    facts = {m.name: ModelFacts(m.info, m.batched, m.costs, m.period) for m in models}
    pipe.send(("ready", facts))
    _ring(bell)
    gc.collect()
    gc.freeze()
    rounds = Rounds(models, slots)
    busy = False
    with suppress(BrokenPipeError, ConnectionResetError, EOFError):
        while _heard(bell, wait=not busy):
            answers: list[tuple[str, int, Any]] = []
            while pipe.poll():
                answers += _obey(rounds, *pipe.recv())
            busy = rounds.run()
            answers += [("notice", place, text) for place, text in rounds.news()]
            answers += [("broken", place, text) for place, text in rounds.failures.items()]
            rounds.failures.clear()
            for answer in answers:
                pipe.send(answer)
            if busy or answers:
                _ring(bell)


def _obey(rounds: Rounds, order: str, place: int, *details: Any) -> Iterator[tuple[str, int, Any]]:
    """Do what the server wants; what to answer."""
    if order == "open":
        try:
            yield "opened", place, rounds.open(place, *details)
        except Exception as error:  # a plugin may raise anything
            known = isinstance(error, RealtimeSepError)
            yield "refused", place, error if known else EngineError(f"{error!r:.200}")
    elif order == "end":
        rounds.end(place, *details)
    elif order == "pulse":
        yield "pulse", place, None
    elif order == "close":
        rounds.close(place)
        yield "closed", place, None


def _ring(bell: socket.socket) -> None:
    with suppress(BlockingIOError):  # then it has been rung often enough
        bell.send(b"\0")


def _heard(bell: socket.socket, wait: bool) -> bool:
    """Take what the other side has rung.  False: it is gone."""
    if wait:
        select.select([bell], [], [])
    try:
        return bool(bell.recv(4096))
    except BlockingIOError:
        return True


# --- in the server -------------------------------------------------------------------------------


class EngineProcess:
    """The server's side: opens streams and moves their audio.  Used in one event loop.

    Args:
        names: of the models that clients may ask for.
        clients: at once, at most.
        options: for the models' separators.
        wake: called in the event loop whenever stems may have come.
        tell: likewise with `("notice" or "broken", place, text)`.
    """

    def __init__(
        self,
        names: Sequence[str],
        clients: int,
        options: Mapping[str, Any],
        wake: Callable[[], None],
        tell: Callable[[str, int, str], None],
    ) -> None:
        self._slots = [Slot() for _ in range(clients)]
        self._free = list(range(clients))
        self._answers: dict[int, asyncio.Future[Opened]] = {}
        self._wake, self._tell = wake, tell
        self._beat = asyncio.Event()
        self._bell, theirs = socket.socketpair()
        self._bell.setblocking(False)
        context = get_context("spawn")
        self._pipe, pipe = context.Pipe()
        self._process = context.Process(
            target=work,
            args=(tuple(names), dict(options), self._slots, pipe, theirs),
            name="realtime_sep serve engine",
            daemon=True,
        )
        self._process.start()
        pipe.close()
        theirs.close()

    async def ready(self) -> dict[str, ModelFacts]:
        """Wait until all models are loaded and measured.

        Raises:
            RealtimeSepError: one cannot be loaded.
            EngineError: the process did not come up.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                alive = await loop.sock_recv(self._bell, 1)
        except TimeoutError:
            alive = b""
        if not alive:
            raise EngineError("the engine's process did not come up")
        kind, content = self._pipe.recv()
        if kind == "failed":
            raise content
        facts: dict[str, ModelFacts] = content
        return facts

    async def watch(self) -> None:
        """Hand on what comes, for ever.

        Raises:
            EngineError: the process is gone.
        """
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError, EOFError):
            while await loop.sock_recv(self._bell, 4096):
                while self._pipe.poll():
                    self._take(*self._pipe.recv())
                self._wake()
        raise EngineError("the engine's process is gone; a model or plugin may have crashed it")

    def _take(self, kind: str, place: int, content: Any) -> None:
        if kind == "pulse":
            self._beat.set()
        elif kind == "closed":
            self._free.append(place)
        elif kind in ("opened", "refused"):
            answer = self._answers.pop(place)
            if answer.done():  # its client went away meanwhile
                return
            if kind == "opened":
                answer.set_result(content)
            else:
                answer.set_exception(content)
        else:
            self._tell(kind, place, content)

    async def open(self, stream: Stream, gains: Mapping[int, float]) -> tuple[int, Slot, Opened]:
        """Begin a stream; it has to be closed by its place, whatever happens from then on.

        Args:
            gains: linear, by the index of the stem.

        Raises:
            Busy: there is no room for it.
            RealtimeSepError: it cannot be.
        """
        if not self._free:
            raise Busy(f"this server is full: it takes {len(self._slots)} clients; try again later")
        place = self._free.pop()
        slot = self._slots[place]
        slot.lay_out(stream.channels, len(stream.outputs))
        for stem, gain in gains.items():
            slot.gains[stem] = np.float32(gain)
        answer = asyncio.get_running_loop().create_future()
        self._answers[place] = answer
        self._order("open", place, stream)
        try:
            return place, slot, await answer
        except BaseException:
            self.close(place)
            raise

    def end(self, place: int, at: int) -> None:
        """Bring the tail out after so many frames, then begin anew."""
        self._order("end", place, at)

    async def pulse(self) -> None:
        """Wait until the process has answered this, after a round if there is one to be run."""
        self._beat.clear()
        self._order("pulse", -1)
        await self._beat.wait()

    def close(self, place: int) -> None:
        """End a stream; its place is free once the process has let go of it."""
        self._order("close", place)

    def _order(self, *message: Any) -> None:
        with suppress(OSError):  # `watch` tells that it is gone
            self._pipe.send(message)
            self.ring()

    def ring(self) -> None:
        """Let the process look at the rings."""
        with suppress(OSError):
            _ring(self._bell)

    def stop(self) -> None:
        """End the process."""
        self._bell.close()
        self._pipe.close()
        self._process.join(_STOP_TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
