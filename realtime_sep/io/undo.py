"""What routes change in the server is written down, so that anybody can put it back.

All that a route makes in the server is named `realtime_sep.PID.*`, and what it moves is written
down *before* it is moved, in a file that the process keeps locked.  The kernel lets go of the lock
however the process ends, so the next route knows what was left behind, and never touches what
somebody still uses.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from realtime_sep.io.programs import owner, playing

#: Seconds that a server may take to move streams back, and between two looks.
_SETTLING = 1.0
_AGAIN = 0.05


@dataclass
class Record:
    """What a route has changed, so that anybody can put it back.

    Attributes:
        pid: of the owner.
        server: which server (`PULSE_SERVER`), and `cookie`: which run of it.
        output: name of the sink that is played on; "" if none is.
        default: the default sink as it was, where the route has taken its place.
        moved: streams and the sinks that they come from.
        microphone: name of the virtual microphone; "" if there is none.
    """

    pid: int
    server: str
    cookie: int
    output: str = ""
    default: str | None = None
    moved: dict[int, str] = field(default_factory=dict)
    microphone: str = ""

    @property
    def system(self) -> bool:
        return self.default is not None


def _directory() -> Path:
    return user_state_path("realtime-sep") / "routes"


class RecordFile:
    """A record on disk, locked for as long as its owner, or somebody who clears up, lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    @classmethod
    def create(cls, record: Record) -> RecordFile:
        """A file that nobody ever sees unlocked or empty."""
        _directory().mkdir(parents=True, exist_ok=True)
        path = _directory() / f"{record.pid}.new"
        path.touch(0o600)
        file = cls(path)
        file.lock()
        file.write(record)
        file._path = path.rename(path.with_suffix(".json"))
        return file

    def lock(self) -> bool:
        """Whether it is ours now; False if somebody else has it."""
        return self._flock("LOCK_EX")

    def locked(self) -> bool:
        """Whether somebody has it; asking at the same time does not count."""
        return not self._flock("LOCK_SH")

    def _flock(self, how: str) -> bool:
        import fcntl  # not there on Windows, where there is nothing to route either

        try:
            fcntl.flock(self._file, getattr(fcntl, how) | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def write(self, record: Record) -> None:
        data = json.dumps(asdict(record)).encode()
        # In one go, and cut to size afterwards: readable if the process is killed in between.
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))

    def read(self) -> Record | None:
        """None if it cannot be read, as one that was never written."""
        try:
            text = os.pread(self._file, 1 << 20, 0).decode()
            fields = json.JSONDecoder().raw_decode(text)[0]
            fields["moved"] = {int(index): sink for index, sink in fields["moved"].items()}
            return Record(**fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._file)


def here() -> str:
    return os.environ.get("PULSE_SERVER", "")


@dataclass
class Found:
    """A route in this server, of a process that lives or has died.

    Attributes:
        record: what its file says; None where there is no readable file.
        modules: what it has loaded, by index.
        alive: whether the owner still runs.
    """

    pid: int
    alive: bool
    record: Record | None = None
    modules: list[int] = field(default_factory=list)


def _read(path: Path) -> Found | None:
    """What a file says, or None if it has gone or belongs to another server."""
    try:
        file = RecordFile(path)
    except OSError:
        return None
    try:
        record = file.read()
        alive = file.locked()
    finally:
        file.close()
    if record is not None and record.server != here():
        return None
    return Found(int(path.stem), alive, record)


def routes(server: Any) -> list[Found]:
    """All routes in this server, by their files and by the names of what they loaded."""
    cookie = server.server_info().cookie
    found: dict[int, Found] = {}
    for path in _directory().glob("*.json"):
        route = _read(path) if path.stem.isdecimal() else None
        if route is None:
            continue
        if route.record is None or route.record.cookie == cookie:
            found[route.pid] = route
        elif not route.alive:
            path.unlink(missing_ok=True)  # that run of the server took everything with it
    for module in server.module_list():
        pid = owner(module.argument)
        if pid is not None:
            route = found.setdefault(pid, Found(pid, alive=Path(f"/proc/{pid}").exists()))
            route.modules.append(module.index)
    return sorted(found.values(), key=lambda route: route.pid)


def sweep(server: Any, *, thorough: bool = False) -> list[int]:
    """Put back what dead processes have changed, and unload what they have loaded.

    Args:
        thorough: also where no file says whose it is (another user's, or a deleted file); then the
            process id in the names has to do.

    Returns:
        The processes that had left something behind.
    """
    swept = []
    for route in routes(server):
        if route.alive or (route.record is None and not thorough):
            continue
        with ExitStack() as closing:
            path = _directory() / f"{route.pid}.json"
            with suppress(OSError):
                file = RecordFile(path)
                closing.callback(file.close)
                if not file.lock():
                    continue  # another one is clearing up
            restore(server, route.record or Record(route.pid, here(), 0))
            path.unlink(missing_ok=True)
            swept.append(route.pid)
    return swept


def restore(server: Any, record: Record) -> None:
    """Undo all that a route has done."""
    move_back(server, record)
    _unload(server, record.pid)


def move_back(server: Any, record: Record) -> None:
    """The default sink and every moved stream go back to where they were.

    Where people have decided otherwise meanwhile, that stays.
    """
    import pulsectl

    sinks = {sink.name: sink.index for sink in server.sink_list()}
    # Asked first: with the default sink some go along, and not to where they came from.
    inside = [stream.index for stream in playing(server) if owner(stream.sink) == record.pid]
    if owner(server.server_info().default_sink_name) == record.pid and record.default in sinks:
        server.sink_default_set(record.default)
    origins = {index: record.moved[index] for index in inside if record.moved.get(index) in sinks}
    # PipeWire's session manager, which still moves streams after the default sink, may overrule a
    # move that comes meanwhile: told again until it is done.
    end = time.monotonic() + _SETTLING
    while origins:
        for index, origin in origins.items():
            with suppress(pulsectl.PulseError):  # it may end just now
                server.sink_input_move(index, sinks[origin])
        if time.monotonic() > end:
            break
        time.sleep(_AGAIN)
        now = {stream.index: stream.sink for stream in playing(server)}
        origins = {i: origin for i, origin in origins.items() if now.get(i, origin) != origin}


def _unload(server: Any, pid: int) -> None:
    """Streams that are left on a sink go to the default one when it goes."""
    import pulsectl

    for module in reversed(server.module_list()):
        if owner(module.argument) == pid:
            with suppress(pulsectl.PulseError):  # it may have gone with the one before
                server.module_unload(module.index)
