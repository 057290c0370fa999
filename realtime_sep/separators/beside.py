"""Work that takes longer than a hop, done beside the stream on a fixed timetable.

A job is filled while the stream runs, submitted, computed in a helper thread, and used exactly D
hops later, whether it was done long before or only just.  So the time to compute is part of the
latency, and what comes out does not depend on how fast the machine is.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from realtime_sep.errors import ModelError

#: Part of a hop that a live worker waits for a result whose time has come before going on without.
PATIENCE = 0.25
#: Seconds for one job above which something hangs.
_HANGS = 60.0


@dataclass
class Job:
    """On its way to the helper and back; its arrays belong to whoever subclasses it.

    Attributes:
        epoch: which life of the stream it belongs to; changes at every reset.
        number: counts the jobs of an epoch.
    """

    epoch: int = 0
    number: int = 0
    failure: BaseException | None = None


J = TypeVar("J", bound=Job)


class Beside(Generic[J]):
    """Jobs in order, on a timetable.

    Live, the worker never waits long: a result that is not there in its hop is missed and counted
    in `late`.  Offline (`realtime` false) it is waited for.

    Args:
        name: of who works, for messages.
        jobs: all that there will ever be; for D hops of work at least as many as are under way at
            once, one being filled, and one to spare after a reset.
        compute: called in the helper thread; must not hold on to the separator.
        patience: seconds to wait for a result whose time has come, live.
        keep_late: whether a result that comes too late is still of use.
    """

    def __init__(
        self,
        name: str,
        jobs: Sequence[J],
        compute: Callable[[J], None],
        patience: float,
        *,
        keep_late: bool,
    ) -> None:
        self.patience = patience
        self.late = 0
        self._name = name
        self._keep_late = keep_late
        self._helper = _Helper(compute)
        self._free = deque(jobs)
        self._ready: deque[J] = deque()  # done, their time has not come
        self._due: deque[tuple[int, int, bool]] = deque()  # hop, number, whether it was submitted
        self._epoch = 0
        self._number = 0
        self._arrived = self._applied = -1
        self._helper.start()
        # The helper must not outlive its stream, and must not keep it alive.
        self._end = weakref.finalize(self, self._helper.end)

    @property
    def realtime(self) -> bool:
        """Whether late results are done without."""
        return self._helper.urgent

    @realtime.setter
    def realtime(self, value: bool) -> None:
        self._helper.urgent = value

    def close(self) -> None:
        """End the helper thread."""
        self._end()

    def reset(self) -> None:
        """Begin anew; work in hand is dropped when it is done."""
        self._epoch += 1
        self._number = 0
        self._arrived = self._applied = -1
        self._due.clear()
        self._free.extend(self._ready)
        self._ready.clear()
        self.late = 0

    def take(self) -> J | None:
        """A free job to fill.

        There always is one, except after a reset, or when the helper is far behind: then None."""
        while not self._free and self._receive(0 if self.realtime else _HANGS):
            pass
        return self._free.popleft() if self._free else None

    def submit(self, job: J | None, due: int) -> None:
        """Hand over a job that is to be used in hop `due`; None for one that there was none for."""
        if job is not None:
            job.epoch, job.number = self._epoch, self._number
            self._helper.todo.put(job)
        self._due.append((due, self._number, job is not None))
        self._number += 1

    def advance(self, hop: int, use: Callable[[J], None], missed: Callable[[int], None]) -> None:
        """Once per hop: `use` the job whose time has come, or say the number of a `missed` one.

        Raises:
            ModelError: the work failed, or hangs.
        """
        if self._due and self._due[0][0] == hop:
            _, number, submitted = self._due.popleft()
            self._applied = number
            wait = self.patience if self.realtime else _HANGS
            if not (submitted and self._collect(number, wait, use)):
                self.late += 1
                missed(number)
        elif self._arrived < self._applied:
            self._collect(self._applied, 0, use if self._keep_late else None)

    def _collect(self, number: int, timeout: float, use: Callable[[J], None] | None) -> bool:
        """Use job `number` once it is there; older ones are of no use."""
        while self._arrived < number:
            if not self._ready and not self._receive(timeout):
                return False
            if self._ready:
                job = self._ready.popleft()
                self._arrived = job.number
                if job.number == number and use is not None:
                    use(job)
                self._free.append(job)
        return True

    def _receive(self, timeout: float) -> bool:
        """Take the next job that the helper has done."""
        try:
            job: J = self._helper.done.get(timeout > 0, timeout or None)
        except queue.Empty:
            if timeout >= _HANGS:
                raise ModelError(f"model {self._name!r} hangs") from None
            return False
        if job.failure is not None:
            failure, job.failure = job.failure, None
            self._free.append(job)
            raise ModelError(f"model {self._name!r} failed: {failure}") from failure
        (self._ready if job.epoch == self._epoch else self._free).append(job)
        return True


class _Helper(Generic[J]):
    """The thread that computes."""

    def __init__(self, compute: Callable[[J], None]) -> None:
        # C queues: putting neither waits nor allocates more than a node.
        self.todo: queue.SimpleQueue[J | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[J] = queue.SimpleQueue()
        self.urgent = False
        self._compute = compute
        self._thread = threading.Thread(target=self._work, name="realtime_sep helper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """End after the job in hand: no interpreter may end while a network still computes."""
        self.todo.put(None)
        if self._thread.ident is not None:
            self._thread.join(_HANGS)

    def _work(self) -> None:
        _be_humble()
        urgent = False
        while (job := self.todo.get()) is not None:
            if self.urgent and not urgent:
                _be_urgent()
                urgent = True
            try:
                self._compute(job)
            except BaseException as error:  # raised where the result is waited for
                job.failure = error
            self.done.put(job)


def _be_humble() -> None:
    """Make the calling thread less urgent than the worker, and rid it of denormals."""
    if sys.platform == "linux":  # elsewhere the number would mean a process, and not this one
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 1)
    with contextlib.suppress(ImportError):
        from realtime_sep import native

        native.flush_denormals()


def _be_urgent() -> None:
    """The lowest real-time priority, where it is allowed: below the worker, above all the rest.

    Now and then the helper holds Python's lock for some microseconds.  An ordinary thread can be
    pushed aside by any program just then, and the worker would wait for its return.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


class RunsBeside:
    """What separators share whose network runs beside: the live mode, what is said, the end."""

    _beside: Beside[Any]
    _slow: str | None
    notice: str | None

    @property
    def realtime(self) -> bool:
        """Whether runs that come late are done without."""
        return self._beside.realtime

    @realtime.setter
    def realtime(self, value: bool) -> None:
        self._beside.realtime = value
        self.notice = self._slow if value else None

    def close(self) -> None:
        """End the helper thread; the separator is of no more use."""
        self._beside.close()
