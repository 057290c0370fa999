"""Programs that play on PulseAudio or PipeWire: which there are, and which are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from realtime_sep.errors import DeviceError, UsageError, unknown

#: Names of our sinks and sources: the owner's process id, and the part that they play.
_NAME = re.compile(r"\brealtime_sep\.(\d+)\.\w+")
#: Property of the engine's own streams, whose value is the owner's process id.
MARK = "realtime_sep.route"
#: Seconds that a server may take to answer at first, try by try: pulsectl waits for all of the time
#: that it is given, even where the answer comes at once.
_PATIENCE = (0.05, 0.25, 1.7)
#: An index that stands for none (PA_INVALID_INDEX).
NONE = 0xFFFFFFFF


@contextmanager
def connected() -> Iterator[Any]:
    """A `pulsectl.Pulse`; what it raises becomes a `DeviceError`.

    Raises:
        DeviceError: no server answers, or it goes away meanwhile.
    """
    try:
        import pulsectl
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"libpulse cannot be loaded ({error}); on Debian/Ubuntu: apt install libpulse0"
        ) from error
    with pulsectl.Pulse("realtime-sep route", connect=False) as server:
        for patience in _PATIENCE:
            with suppress(pulsectl.PulseError):
                server.connect(timeout=patience)
                break
        else:
            raise DeviceError(
                "no PulseAudio or PipeWire server answers; start one, then look with: "
                "realtime-sep devices"
            )
        try:
            yield server
        except Exception as error:
            if not type(error).__module__.startswith("pulsectl"):
                raise
            if not server.connected:
                raise DeviceError("the audio server is gone; start it, and route again") from error
            raise DeviceError(f"the audio server refuses: {error!r}") from error


def owner(text: str | None) -> int | None:
    """The process whose route made the sink, source or module of this name or arguments."""
    found = _NAME.search(text or "")
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Playing:
    """A stream that a program plays.

    Attributes:
        index: the server's number of it.
        program, binary: what the program calls itself, and its file's name.
        pid: its process; None if it does not tell.
        title: of the stream.
        sink: name of the sink that it plays on.
        route: owner of the route whose engine plays it; None: some other program.
    """

    index: int
    program: str
    binary: str
    pid: int | None
    title: str
    sink: str
    route: int | None = None

    def __str__(self) -> str:
        return self.program if self.pid is None else f"{self.program} (process {self.pid})"


def playing(server: Any) -> list[Playing]:
    """All streams of programs; those that the server's own modules play are left out."""
    sinks = {sink.index: sink.name for sink in server.sink_list()}
    streams = (stream for stream in server.sink_input_list() if stream.client != NONE)
    return [_playing(stream, sinks.get(stream.sink, "")) for stream in streams]


def _playing(stream: Any, sink: str) -> Playing:
    properties = stream.proplist
    binary = properties.get("application.process.binary", "")
    pid = properties.get("application.process.id", "")
    mark = properties.get(MARK, "")
    return Playing(
        index=stream.index,
        program=properties.get("application.name") or binary or stream.name,
        binary=binary,
        pid=int(pid) if pid.isdecimal() else None,
        title=stream.name,
        sink=sink,
        route=int(mark) if mark.isdecimal() else None,
    )


@dataclass(frozen=True)
class Choice:
    """Which programs go through: by name, by process, or all of them.

    Attributes:
        app: name of the program or of its file; case does not matter.
        pid: process.
        system: everything, and whatever has no other wish plays on our sink from the start.
    """

    app: str | None = None
    pid: int | None = None
    system: bool = False

    def fits(self, stream: Playing) -> bool:
        if self.system:
            return True
        if self.pid is not None:
            return stream.pid == self.pid
        name = (self.app or "").lower()
        return name in (stream.program.lower(), stream.binary.lower())

    def settled(self, streams: Sequence[Playing], *, follow: bool = False) -> Choice:
        """With a shortened name completed by what plays.

        Args:
            follow: what does not play yet may come later.

        Raises:
            UsageError: nothing fits, or several programs do.
        """
        if self.system or any(map(self.fits, streams)):
            return self
        if self.pid is not None:
            if follow:
                return self
            raise UsageError(f"process {self.pid} plays nothing; {_playing_now(streams)}")
        name = (self.app or "").lower()
        near = {s.program for s in streams if name in f"{s.program}\n{s.binary}".lower()}
        if len(near) > 1:
            names = ", ".join(map(repr, sorted(near)))
            raise UsageError(f"{self.app!r} fits several programs ({names}); give more of the name")
        if near:
            return Choice(app=near.pop())
        if follow:
            return self
        known = {s.program for s in streams} | {s.binary for s in streams if s.binary}
        if not known:
            raise UsageError(f"no program plays; start {self.app!r}, or wait for it with --follow")
        raise unknown("program", self.app or "", known)


def _playing_now(streams: Iterable[Playing]) -> str:
    names = sorted({str(stream) for stream in streams})
    return f"playing now: {', '.join(names)}" if names else "no program plays now"
