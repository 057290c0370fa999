"""The process that runs foreign code, so that whatever it does wrong is done there.

It imports little, so that it starts fast.  Orders come in two ways: calls and their answers,
which are rare, through a pipe; blocks, and the parameters that each is to be run with, through a
hatch in shared memory (`native.Hatch`), which also says that somebody calls.  The end of the pipe
means that nobody needs this process any more.
"""

from __future__ import annotations

import gc
import mmap
import signal
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from realtime_sep import native
from realtime_sep.errors import RealtimeSepError, UsageError
from realtime_sep.types import Float32

#: Parameters that an order can carry.
MOST = 500
#: Below that of the worker, which waits for what is made here.
_PRIORITY = 3
#: Seconds of computing without a rest after which a process that is urgent ends: it hangs, and so
#: might whoever should end it.
_HANGS = 3
#: Seconds between looks at whether anybody is there still.
_LOOK = 0.25
#: First of the numbers that go with a block, the values of the parameters follow: what has happened
#: since the one before.
RESET, TURNED = 1, 2


def named(function: str) -> Any:
    """What `module:name` names."""
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


class Bench:
    """One effect in this process, and the hatch that blocks come through.

    Args:
        page: the first one of the shared memory.
        memory: its file's number.
    """

    def __init__(self, page: mmap.mmap, memory: int) -> None:
        self._page, self._memory = page, memory
        self._effect: Any = None
        self._hatch: native.Hatch | None = None

    # ---- calls

    def make(self, function: str, *arguments: Any) -> Any:
        """An effect, to be run here; its parameters."""
        effect = named(function)(*arguments)
        self._parameters = tuple(effect.parameters)[:MOST]
        self._values = np.array([p.default for p in self._parameters])
        self._effect = effect
        return self._parameters

    def rest(self) -> None:
        """Touch the hatch no more: it is about to be laid out anew."""
        self._hatch = None

    def prepare(
        self,
        samplerate: int,
        channels: int,
        max_frames: int,
        values: list[float],
        size: int,
    ) -> int:
        """The latency, with these values of the parameters."""
        self._turn(np.array(values))
        self._effect.prepare(samplerate, channels, max_frames)
        self._latency = int(self._effect.latency)
        self._block: Float32 = np.zeros((max_frames, channels), np.float32)
        whole = mmap.mmap(self._memory, size)
        self._hatch = native.Hatch.attach(whole, channels, 1 + len(values))
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
        """Blocks, until somebody calls, or for a while.

        Raises:
            RealtimeSepError: the effect cannot be used any more.
        """
        if (hatch := self._hatch) is None:
            native.Hatch.called(self._page, _LOOK)
            return
        effect, order, whole = self._effect, hatch.order, self._block
        while frames := hatch.next(whole, _LOOK):
            if news := int(order[0]):
                if news & TURNED:
                    self._turn(order[1:].copy())
                if news & RESET:
                    effect.reset()
            block = whole[:frames]
            effect.process(block)
            if effect.latency != self._latency:
                raise UsageError(f"was {self._latency} frames late, and now says {effect.latency}")
            if not hatch.give(block):
                raise UsageError("nobody takes its results")

    def _turn(self, values: Any) -> None:
        for parameter, old, new in zip(self._parameters, self._values, values, strict=True):
            if new != old:
                self._effect.set(parameter.name, float(new))
        self._values = values


def main(pipe_number: int, memory: int) -> None:
    """Work until nobody is there any more, or the effect fails: then the pipe says why."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that owns the terminal
    native.flush_denormals()
    pipe = Connection(pipe_number)
    bench = Bench(mmap.mmap(memory, mmap.PAGESIZE), memory)
    try:
        while True:
            while pipe.poll():
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
