"""An effect in a process of its own: it may crash, hang or be slow there, and the stream lives.

The worker hands over a block and takes what was made of the one before, so a block is all the
latency that this adds, and the worker never waits for longer than a quarter of a block.  Audio
travels through rings in shared memory; see `effects.helper` for the other side.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Self

import numpy as np

from realtime_sep.effects.helper import BLOCK, CALL, layout, order_width
from realtime_sep.effects.protocol import Late
from realtime_sep.errors import RealtimeSepError, UsageError, unknown
from realtime_sep.native import Ring
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

#: Part of a block's duration for which a live worker waits for a result.  It rarely has to: only
#: when several blocks come at once, as they do where the device's blocks are longer than a hop.
PATIENCE = 0.25
#: Seconds of missing blocks after which an effect hangs, or is too slow; each second that comes in
#: time makes up for a tenth of it.
SLOW = 0.5
#: Seconds to wait for a call, and for a block where no clock is pressing.
_HANGS = 20.0
#: Seconds of audio that the rings hold: more than is lost before an effect is given up.
_RINGS = 1.5

_MAIN = "import sys; from realtime_sep.effects.helper import main; main(*map(int, sys.argv[1:]))"


class Failed(RealtimeSepError):
    """An effect in a process of its own is of no more use."""


class Helper:
    """A process for foreign code; one that has died is started again by the next call."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        pipe, their_pipe = socket.socketpair()
        self.bell, their_bell = socket.socketpair()
        self.memory = _shared_memory()
        theirs = (their_pipe.fileno(), their_bell.fileno(), self.memory)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _MAIN, *map(str, theirs)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # plugins chatter, and ours may be a pipe with audio
            stderr=subprocess.DEVNULL,
            pass_fds=theirs,
            process_group=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        their_pipe.close()
        their_bell.close()
        self._pipe = Connection(pipe.detach())
        self.bell.setblocking(False)
        self._end = weakref.finalize(self, _end, self._process, self._pipe, self.bell, self.memory)

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, function: str, *arguments: Any) -> Any:
        """What `module:name` answers, over there.

        Raises:
            UsageError: the process died of it, or does not answer.
            RealtimeSepError: whatever it raised.
        """
        return self.ask("call", function, *arguments)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of `helper.Bench`; errors as for `call`."""
        if not self._end.alive:
            self._start()
        try:
            self._pipe.send((method, *arguments))
            self.bell.send(CALL)
            if not self._pipe.poll(_HANGS):
                self.close()
                raise UsageError(f"the plugin does not answer within {_HANGS:g} s")
            kind, content = self._pipe.recv()
        except (EOFError, OSError):
            why = self.why(patience=1.0)
            self.close()
            raise UsageError(f"the plugin cannot be used: it {why}") from None
        if kind == "done":
            return content
        raise content if kind == "raised" else UsageError(f"the plugin {content}")

    def ring(self) -> None:
        """Let the process look; never waits."""
        with suppress(OSError):  # rung often enough, or dead, which is seen when something lacks
            self.bell.send(BLOCK)

    def wait(self, seconds: float) -> bool:
        """Until the process rings, or dies: then False."""
        select.select([self.bell], [], [], seconds)
        try:
            return self.bell.recv(4096) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def why(self, patience: float = 1e-3) -> str:
        """What the process has done to end, in words; its sockets close a moment before it ends."""
        with suppress(EOFError, OSError):
            if self._pipe.poll():
                kind, content = self._pipe.recv()
                if kind == "failed":
                    return str(content)
        deadline = time.monotonic() + patience
        while (code := self._process.poll()) is None and time.monotonic() < deadline:
            time.sleep(1e-4)
        if code is None or code >= 0:
            return "died"
        return f"died ({signal.Signals(-code).name})"

    def kill(self) -> None:
        """End the process at once, whatever it does; never waits."""
        self._process.kill()

    def close(self) -> None:
        """Let the process end."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(
    process: subprocess.Popen[bytes], pipe: Connection, bell: socket.socket, memory: int
) -> None:
    pipe.close()
    bell.close()
    os.close(memory)
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _shared_memory() -> int:
    """The number of a file that is only memory."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("realtime_sep effect")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Isolated:
    """An effect that runs in a helper's process.

    Args:
        helper: for this effect alone.
        function: `module:name` of what makes the effect, and its arguments.

    Attributes:
        parameters: of the effect.
        latency: of the effect, and a block.
        late: blocks that were.

    Raises:
        UsageError: the effect cannot be made.
    """

    def __init__(self, helper: Helper, function: str, *arguments: Any) -> None:
        self._helper = helper
        try:
            self.parameters: tuple[Parameter, ...] = helper.ask("make", function, *arguments)
        except BaseException:
            helper.close()
            raise
        self._places = {p.name: 2 + i for i, p in enumerate(self.parameters)}
        self._order = np.array([0.0, 0.0, *(p.default for p in self.parameters)])
        self.latency = 0
        self.late = 0
        self._realtime = False
        self._failed = ""
        self._audio: Ring | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._helper.pid

    @property
    def realtime(self) -> bool:
        """Whether a clock is pressing; to be said outside the hot path."""
        return self._realtime

    @realtime.setter
    def realtime(self, value: bool) -> None:
        if value and not self._realtime:
            self._helper.ask("hurry")
        self._realtime = value

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        """See `Effect.prepare`.

        Raises:
            UsageError: the effect cannot be used.
        """
        frames = max(round(_RINGS * samplerate), 4 * max_frames)
        if self._audio is not None:
            self._helper.ask("rest")  # it may be at work still, on the block of its latency
        # One order for a block, however short blocks come.
        places = layout(channels, order_width(len(self.parameters)), frames, 4096)
        os.ftruncate(self._helper.memory, places[-1][-1])
        whole = np.frombuffer(mmap.mmap(self._helper.memory, places[-1][-1]), np.uint8)
        self._audio, self._orders, self._results = (
            Ring.place(whole[start:end], length, wide) for length, wide, start, end in places
        )
        values = self._order[2:].tolist()
        own = self._helper.ask("prepare", samplerate, channels, max_frames, values, places)
        self._block = max_frames
        self.latency = own + max_frames
        self._samplerate, self._channels = samplerate, channels
        self._scratch: Float32 = np.zeros((max_frames, channels), np.float32)
        self._results.write(np.zeros((max_frames, channels), np.float32))
        self._due = 0
        self._missed = 0.0
        self._stuck = -1
        self._failed = ""
        self._reset = 0.0
        self._silent = 0

    def set(self, name: str, value: float) -> None:
        """See `Effect.set`."""
        for parameter in self.parameters:
            if parameter.name == name:
                self._order[self._places[name]] = parameter.checked(value)
                return
        raise unknown("parameter of this effect", name, self._places)

    def reset(self) -> None:
        """See `Effect.reset`."""
        if self._audio is not None:
            self._reset = 1.0
            self._silent = self._due + self._block

    def process(self, block: Float32) -> None:
        """See `Effect.process`.

        Raises:
            Late: there is nothing for this block.
            Failed: and there never will be.
        """
        self._submit(block)
        frames, start = len(block), self._due
        self._due += frames
        if not self._arrives():
            self.late += 1
            self._missed += frames
            if self._missed > SLOW * self._samplerate or not self._realtime:
                self._fail("hangs, or is too slow")
            raise Late("not in time")
        self._missed = max(0.0, self._missed - 0.1 * frames)
        results = self._results
        if (behind := start - results.consumed) > 0:  # came too late
            results.claim_read(behind)
            results.commit_read(behind)
        made = results.claim_read(frames)
        assert made is not None, "it has arrived"
        block[:] = made
        results.commit_read(frames)
        if start < self._silent:  # what was before the last reset
            block[: self._silent - start] = 0
        if not np.isfinite(np.abs(block, out=self._scratch[:frames]).max()):
            self._fail("sent NaN or infinity")

    def _submit(self, block: Float32) -> None:
        if self._failed or self._audio is None:
            raise Failed(self._failed or "prepare() comes first")
        frames = len(block)
        audio, order = self._audio.claim_write(frames), self._orders.claim_write(1)
        if audio is None or order is None:
            self._fail("hangs")
        audio[:] = block
        self._audio.commit_write(frames)
        self._order[0], self._order[1] = frames, self._reset
        order[0].view(np.float64)[:] = self._order
        self._orders.commit_write(1)
        self._reset = 0.0
        self._helper.ring()

    def _arrives(self) -> bool:
        """Whether all that is due is there, after some patience."""
        results = self._results
        if results.written >= self._due:
            return True
        patience = PATIENCE * self._block / self._samplerate if self._realtime else _HANGS
        if results.written == self._stuck:  # not again
            patience = 0.0
        deadline = time.monotonic() + patience
        while results.written < self._due:
            left = deadline - time.monotonic()
            if not self._helper.wait(max(left, 0.0)) and results.written < self._due:
                self._fail(self._helper.why())
            if left <= 0:
                break
        self._stuck = -1 if results.written >= self._due else results.written
        return self._stuck < 0

    def await_all(self, seconds: float) -> bool:
        """Wait until all that was handed over has been made; whether it has."""
        deadline = time.monotonic() + seconds
        while self._results.written < self._due + self._block:
            left = deadline - time.monotonic()
            if left <= 0 or not self._helper.wait(left):
                return False
        return True

    def _fail(self, why: str) -> NoReturn:
        self._failed = why
        self._helper.kill()
        raise Failed(why)

    def close(self) -> None:
        """End the process."""
        self._helper.close()
