"""An effect in a process of its own: it may crash, hang or be slow there, and the stream lives.

The worker hands over a block and takes what was made of the one before, so a block is all the
latency that this adds, and the worker never waits for longer than a quarter of a block.  Audio
travels through shared memory; see `effects.helper` for the other side.
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

from realtime_sep.effects.helper import RESET, TURNED
from realtime_sep.effects.protocol import Late
from realtime_sep.errors import RealtimeSepError, UsageError, unknown
from realtime_sep.native import Hatch
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
#: Seconds of audio that the hatch holds, more than is lost before an effect is given up,
_ROOM = 1.5
#: and blocks, however short they come.
_BLOCKS = 4096
#: Seconds between looks at whether the process is there still, where no clock is pressing.
_LOOK = 0.05

_MAIN = "import sys; from realtime_sep.effects.helper import main; main(*map(int, sys.argv[1:]))"


class Failed(RealtimeSepError):
    """An effect in a process of its own is of no more use."""


class Helper:
    """A process for foreign code; one that has died is started again by the next call.

    Raises:
        UsageError: there can be none on this system.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        if sys.platform == "win32":
            raise UsageError("foreign plugins run on Linux and macOS; not yet on Windows")
        pipe, their_pipe = socket.socketpair()
        self.memory = _shared_memory()
        os.ftruncate(self.memory, mmap.PAGESIZE)
        self._page = mmap.mmap(self.memory, mmap.PAGESIZE)
        theirs = (their_pipe.fileno(), self.memory)
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
        self._pipe = Connection(pipe.detach())
        self._end = weakref.finalize(self, _end, self._process, self._pipe, self._page, self.memory)

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
            Hatch.call(self._page)
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

    @property
    def ended(self) -> bool:
        """Whether the process has, or is about to: it never speaks but when it is asked."""
        try:
            return bool(select.select([self._pipe], [], [], 0)[0])
        except (OSError, ValueError):  # closed
            return True

    def why(self, patience: float = 1e-3) -> str:
        """What the process has done to end, in words; its pipe closes a moment before it ends."""
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


def _end(process: subprocess.Popen[bytes], pipe: Connection, page: mmap.mmap, memory: int) -> None:
    pipe.close()
    Hatch.call(page)
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
        self._places = {p.name: i for i, p in enumerate(self.parameters)}
        self._values = np.array([p.default for p in self.parameters])
        self._news = 0  # what the next block is to bring along
        self.latency = 0
        self.late = 0
        self._realtime = False
        self._failed = ""
        self._hatch: Hatch | None = None

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
        shape = max(round(_ROOM * samplerate), 4 * max_frames), channels, _BLOCKS
        if self._hatch is not None:
            self._helper.ask("rest")  # it may be at work still, on the block of its latency
        size = Hatch.bytes_needed(*shape, 1 + len(self._values))
        os.ftruncate(self._helper.memory, size)
        self._hatch = Hatch.place(
            mmap.mmap(self._helper.memory, size), *shape, 1 + len(self._values)
        )
        self._hatch.give_silence(max_frames)  # what was made of the block before the first
        values = self._values.tolist()
        own = self._helper.ask("prepare", samplerate, channels, max_frames, values, size)
        self._block = max_frames
        self.latency = own + max_frames
        self._samplerate = samplerate
        self._due = 0
        self._missed = 0.0
        self._stuck = -1
        self._failed = ""
        self._news = 0
        self._silent = 0

    def set(self, name: str, value: float) -> None:
        """See `Effect.set`."""
        for parameter in self.parameters:
            if parameter.name == name:
                self._values[self._places[name]] = parameter.checked(value)
                self._news |= TURNED
                return
        raise unknown("parameter of this effect", name, self._places)

    def reset(self) -> None:
        """See `Effect.reset`."""
        if self._hatch is not None:
            self._news |= RESET
            self._silent = self._due + self._block

    def process(self, block: Float32) -> None:
        """See `Effect.process`.

        Raises:
            Late: there is nothing for this block.
            Failed: and there never will be.
        """
        hatch = self._hatch
        if self._failed or hatch is None:
            raise Failed(self._failed or "prepare() comes first")
        if self._news:
            hatch.order[1:] = self._values
        hatch.order[0] = self._news
        self._news = 0
        if not hatch.put(block):
            self._fail("hangs")
        frames, start = len(block), self._due
        self._due += frames
        taken = hatch.take(block, start, self._silent)
        if not taken and self._arrives(hatch):
            taken = hatch.take(block, start, self._silent)
        if not taken:
            self.late += 1
            self._missed += frames
            if self._missed > SLOW * self._samplerate or not self._realtime:
                self._fail("hangs, or is too slow")
            raise Late("not in time")
        self._missed = max(0.0, self._missed - 0.1 * frames)
        if taken < 0:
            self._fail("sent NaN or infinity")

    def _arrives(self, hatch: Hatch) -> bool:
        """Whether all that is due is there, after some patience."""
        patience = PATIENCE * self._block / self._samplerate if self._realtime else _HANGS
        if self._realtime and hatch.made == self._stuck:  # not again
            patience = 0.0
        self._stuck = hatch.made
        deadline = time.monotonic() + patience
        while True:
            left = max(0.0, deadline - time.monotonic())
            if hatch.wait(self._due, min(left, _LOOK)):
                self._stuck = -1
                return True
            if self._helper.ended:
                self._fail(self._helper.why())
            if not left:
                return False

    def await_all(self, seconds: float) -> int:
        """Wait until all that was handed over has been made: when it was, in ns; 0: not yet."""
        hatch = self._hatch
        assert hatch is not None, "prepare() comes first"
        return hatch.made if hatch.wait(self._due + self._block, seconds) else 0

    def _fail(self, why: str) -> NoReturn:
        self._failed = why
        self._helper.kill()
        raise Failed(why)

    def close(self) -> None:
        """End the process."""
        self._helper.close()
