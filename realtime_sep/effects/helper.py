"""The process that runs foreign code, so that whatever it does wrong is done there.

It imports little, so that it starts fast.  Orders come in three ways: calls and their answers,
which are rare, through a pipe; blocks, and the parameters that each is to be run with, through two
rings in shared memory; and a bell, a socket: its bytes mean "look" (`CALL`: at the pipe), its end
that nobody needs this process any more.
"""

from __future__ import annotations

import gc
import mmap
import signal
import socket
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from realtime_sep import native
from realtime_sep.errors import RealtimeSepError, UsageError
from realtime_sep.types import Float32

#: What rings the bell.
BLOCK, CALL = b"\0", b"\1"
#: Parameters that an order can carry.
MOST = 500
#: Below that of the worker, which waits for what is made here.
_PRIORITY = 3
#: Seconds of computing without a rest after which a process that is urgent ends: it hangs, and so
#: might whoever should end it.
_HANGS = 3


def order_width(parameters: int) -> int:
    """Channels of a ring of orders: rows of float64 are frames, whether to reset, parameters."""
    return 2 * (2 + parameters)


def layout(channels: int, width: int, frames: int, blocks: int) -> list[tuple[int, int, int, int]]:
    """`(frames, channels, start, end)` in shared memory of the rings: audio, orders, results."""
    places, start = [], 0
    for length, wide in ((frames, channels), (blocks, width), (2 * frames, channels)):
        end = start + native.Ring.bytes_needed(length, wide)
        places.append((length, wide, start, end))
        start = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
    return places


def named(function: str) -> Any:
    """What `module:name` names."""
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


class Bench:
    """One effect in this process, and the rings that it works between."""

    def __init__(self, bell: socket.socket, memory: int) -> None:
        self._bell, self._memory = bell, memory
        self._effect: Any = None
        self._rings: tuple[native.Ring, native.Ring, native.Ring] | None = None

    # ---- calls

    def make(self, function: str, *arguments: Any) -> Any:
        """An effect, to be run here; its parameters."""
        effect = named(function)(*arguments)
        self._parameters = tuple(effect.parameters)[:MOST]
        self._values = np.array([p.default for p in self._parameters])
        self._effect = effect
        return self._parameters

    def rest(self) -> None:
        """Touch the rings no more: they are about to be laid out anew."""
        self._rings = None

    def prepare(
        self,
        samplerate: int,
        channels: int,
        max_frames: int,
        values: list[float],
        places: list[tuple[int, ...]],
    ) -> int:
        """The latency, with these values of the parameters."""
        self._turn(np.array(values))
        self._effect.prepare(samplerate, channels, max_frames)
        self._latency = int(self._effect.latency)
        self._block: Float32 = np.zeros((max_frames, channels), np.float32)
        whole = np.frombuffer(mmap.mmap(self._memory, places[-1][-1]), np.uint8)
        audio, orders, results = (native.Ring.attach(whole[s:e]) for _, _, s, e in places)
        self._rings = audio, orders, results
        gc.collect()
        gc.freeze()
        return self._latency

    def call(self, function: str, *arguments: Any) -> Any:
        """Anything else, for its answer."""
        return named(function)(*arguments)

    def hurry(self) -> None:
        """From now on a clock is pressing."""
        native.lock_memory()
        if native.set_realtime(_PRIORITY) is None and sys.platform == "linux":
            import resource

            limit = round(_HANGS * 1e6)
            resource.setrlimit(resource.RLIMIT_RTTIME, (limit, limit))

    # ---- blocks

    def work(self) -> None:
        """Everything that has been ordered.

        Raises:
            RealtimeSepError: the effect cannot be used any more.
        """
        if self._rings is None:
            return
        audio, orders, results = self._rings
        while (row := orders.claim_read(1)) is not None:
            order = row[0].view(np.float64)
            frames, reset = int(order[0]), bool(order[1])
            if order[2:].tobytes() != self._values.tobytes():
                self._turn(order[2:].copy())
            if reset:
                self._effect.reset()
            orders.commit_read(1)
            source, block = audio.claim_read(frames), self._block[:frames]
            assert source is not None, "orders come after their audio"
            block[:] = source
            audio.commit_read(frames)
            self._effect.process(block)
            if self._effect.latency != self._latency:
                raise UsageError(
                    f"was {self._latency} frames late, and now says {self._effect.latency}"
                )
            target = results.claim_write(frames)
            if target is None:
                raise UsageError("nobody takes its results")
            target[:] = block
            results.commit_write(frames)
            self._bell.send(BLOCK)

    def _turn(self, values: Any) -> None:
        for parameter, old, new in zip(self._parameters, self._values, values, strict=True):
            if new != old:
                self._effect.set(parameter.name, float(new))
        self._values = values


def main(pipe_number: int, bell_number: int, memory: int) -> None:
    """Work until nobody is there any more, or the effect fails: then the pipe says why."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that owns the terminal
    native.flush_denormals()
    pipe, bell = Connection(pipe_number), socket.socket(fileno=bell_number)
    bench = Bench(bell, memory)
    try:
        while rung := bell.recv(256):
            for _ in range(rung.count(CALL)):
                method, *arguments = pipe.recv()
                pipe.send(_answer(getattr(bench, method), arguments))
            bench.work()
    except (OSError, EOFError):
        pass
    except Exception as error:  # of a plugin
        pipe.send(("failed", _line(error)))


def _answer(method: Any, arguments: list[Any]) -> tuple[str, Any]:
    try:
        return "done", method(*arguments)
    except RealtimeSepError as error:
        return "raised", error
    except Exception as error:  # of a plugin
        return "raised", UsageError(f"the plugin {_line(error)}")


def _line(error: Exception) -> str:
    """An error in one line; whose it is only if it is not ours."""
    text = (
        str(error)
        if isinstance(error, RealtimeSepError)
        else f"raised {type(error).__name__}: {error}"
    )
    return " ".join(text.split())
