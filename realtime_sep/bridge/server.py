"""The process that plugins find: it listens, and forks an engine for each of them.

It has imported everything an engine needs and does nothing else, so a fork is an engine within a
fraction of a second, shares its memory with all others, and shares its interpreter lock and its
failures with none of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from realtime_sep.bridge.segment import closed, refuse
from realtime_sep.errors import EngineError

#: Plugins at once.
PLACES = 32
#: Seconds that an engine may take to notice that its plugin is gone.
_GRACE = 3.0
#: Milliseconds between looks at the clock.
_TICK = 500
_CREDENTIALS = struct.Struct("=3i")


def runtime_directory() -> Path:
    """Where the socket is: of this user alone; `native/plugin/link.c` looks in the same place.

    Raises:
        EngineError: it cannot be made, or is somebody else's.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "realtime-sep" if base else Path(f"/tmp/realtime-sep-{os.geteuid()}")
    try:
        path.mkdir(mode=0o700, parents=False, exist_ok=True)
        facts = path.lstat()
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}") from error
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o022 or path.is_symlink():
        raise EngineError(f"{path}: belongs to somebody else, or others may write to it")
    path.chmod(0o700)
    return path


@dataclass
class _Place:
    """A plugin that is served: its connection, its engine, and when that one has to have ended."""

    link: socket.socket
    process: int  # descriptor of the process
    deadline: float | None = None


class Bridge:
    """Serves plugins until told to end.

    Args:
        default: the model for plugins that name none.
        idle: seconds without any plugin after which it ends.

    Raises:
        EngineError: another one is serving already, or there is no place for its socket.
    """

    def __init__(self, default: Callable[[], str], idle: float | None = None) -> None:
        directory = runtime_directory()
        self.path = directory / "bridge"
        self._default, self._idle = default, idle
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise EngineError(f"another bridge is serving already ({self.path})") from None
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._listener.bind(str(self.path))
        except OSError as error:
            raise EngineError(f"{self.path}: {error.strerror or error}") from error
        self.path.chmod(0o600)
        self._listener.listen(PLACES)
        self._listener.setblocking(False)
        self._places: dict[int, _Place] = {}  # by the number of the process
        self._ending = False

    def run(self) -> None:
        """Serve; returns after `stop`, or when idle."""
        _prepare()
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        alone_since = time.monotonic()
        while not self._ending:
            for descriptor, _ in poller.poll(_TICK):
                if descriptor == self._listener.fileno():
                    self._accept(poller)
            for number, place in list(self._places.items()):
                self._look(number, place, poller)
            if self._places:
                alone_since = time.monotonic()
            elif self._idle is not None and time.monotonic() - alone_since >= self._idle:
                return

    def stop(self, *_: Any) -> None:
        """Let `run` return; also a handler of signals."""
        self._ending = True

    def _accept(self, poller: select.poll) -> None:
        try:
            link, _ = self._listener.accept()
        except OSError:  # it went away again
            return
        _, user, _ = _CREDENTIALS.unpack(
            link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if user != os.geteuid() or len(self._places) >= PLACES:
            refuse(link, f"the engine serves {PLACES} plugins already")
            link.close()
            return
        number = os.fork()
        if number == 0:
            self._serve(link)
        process = os.pidfd_open(number)
        self._places[number] = _Place(link, process)
        poller.register(process, select.POLLIN)
        poller.register(link, 0)  # hearing no more than that it is closed

    def _serve(self, link: socket.socket) -> None:
        """What a fork does for the rest of its life."""
        from realtime_sep.bridge.instance import serve

        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that listens
            self._listener.close()
            os.close(self._lock)
            for place in self._places.values():
                place.link.close()
                os.close(place.process)
            serve(link, self._default)
            status = 0
        finally:
            os._exit(status)

    def _look(self, number: int, place: _Place, poller: select.poll) -> None:
        """Bury an engine that has ended; end one whose plugin has gone long ago."""
        if select.select([place.process], [], [], 0)[0]:
            os.waitpid(number, 0)
            poller.unregister(place.process)
            if place.deadline is None:
                poller.unregister(place.link)
                place.link.close()  # so the plugin notices
            os.close(place.process)
            del self._places[number]
        elif place.deadline is not None:
            if time.monotonic() > place.deadline:
                os.kill(number, signal.SIGKILL)
        elif closed(place.link):
            poller.unregister(place.link)
            place.link.close()
            place.deadline = time.monotonic() + _GRACE

    def close(self) -> None:
        """End all engines and let go of the socket."""
        for number, place in self._places.items():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            os.close(place.process)
            place.link.close()
        self._places.clear()
        self.path.unlink(missing_ok=True)
        self._listener.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _prepare() -> None:
    """Import what engines need.  Nothing that starts a thread: forks would lack it."""
    import realtime_sep.bridge.instance
    import realtime_sep.separators.center
    import realtime_sep.separators.sliding

    with contextlib.suppress(ImportError):
        import realtime_sep.separators.onnx  # noqa: F401
    gc.collect()
    gc.freeze()
