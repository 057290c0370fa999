"""PulseAudio and PipeWire sources, monitors and sinks, which PortAudio does not know by name.

PortAudio reaches both servers through ALSA's `pulse` device; which source and sink that device
uses is read from `PULSE_SOURCE` and `PULSE_SINK` when it is opened.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from realtime_sep.errors import DeviceError

#: Seconds that a server may take to answer.
_PATIENCE = 2.0
#: Seconds that the watch sleeps at most when the server has nothing to say.
_NAP = 0.5
#: Flag of sources and sinks that are hardware (PA_SOURCE_HARDWARE, PA_SINK_HARDWARE).
_HARDWARE = 0x0004
#: ALSA's own names, which are not to be looked for among the server's.
_ALSA = ("default", "pulse")


@dataclass(frozen=True)
class Endpoint:
    """A source or sink of the server.

    Attributes:
        name: the server's; `description`: for people.
        kind: "input" for sources (monitors too), "output" for sinks.
        monitor: whether it is what a sink plays.
        virtual: whether no hardware is behind it.
    """

    name: str
    description: str
    kind: Literal["input", "output"]
    samplerate: int
    channels: int
    monitor: bool
    virtual: bool
    default: bool


def endpoints() -> list[Endpoint]:
    """All sources and sinks; empty where there is no server, or none that answers."""
    if not sys.platform.startswith("linux"):
        return []
    found: list[Endpoint] = []
    # pulsectl waits for ever, or always as long as the time that it is given: hence a thread.
    asking = threading.Thread(target=lambda: found.extend(_ask()), daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return list(found)


def _ask() -> list[Endpoint]:
    try:
        import pulsectl

        with pulsectl.Pulse("realtime-sep devices", connect=False) as pulse:
            pulse.connect()
            server = pulse.server_info()
            return [
                *(_endpoint(s, "input", server.default_source_name) for s in pulse.source_list()),
                *(_endpoint(s, "output", server.default_sink_name) for s in pulse.sink_list()),
            ]
    except Exception:  # no library, no server, one that hangs up: all the same to us
        return []


def _endpoint(info: Any, kind: Literal["input", "output"], default: str) -> Endpoint:
    monitor = kind == "input" and info.monitor_of_sink_name is not None
    return Endpoint(
        name=info.name,
        description=info.description,
        kind=kind,
        samplerate=info.sample_spec.rate,
        channels=info.channel_count,
        monitor=monitor,
        virtual=monitor or not info.flags & _HARDWARE,
        default=info.name == default,
    )


@dataclass(frozen=True)
class Route:
    """PortAudio devices to open, and how they lead to sources and sinks of the server.

    Attributes:
        input, output: for PortAudio.
        endpoints: what they stand for, by kind ("input", "output"); a kind that was not named, or
            is no endpoint of the server, is missing.
    """

    input: int | str | None
    output: int | str | None
    endpoints: dict[str, Endpoint] = field(default_factory=dict)

    @property
    def samplerate(self) -> int:
        """At which the server does not resample: the sink's, or the source's if that is named."""
        return (self.endpoints.get("output") or self.endpoints["input"]).samplerate

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """For as long as devices are opened: libpulse looks into the environment then."""
        variables = {"input": "PULSE_SOURCE", "output": "PULSE_SINK"}
        before = {variables[kind]: os.environ.get(variables[kind]) for kind in self.endpoints}
        os.environ.update({variables[kind]: e.name for kind, e in self.endpoints.items()})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def resolve(source: int | str | None, sink: int | str | None) -> Route | None:
    """How to reach what `source` and `sink` name, or None if neither names an endpoint here.

    Both sides go through the `pulse` device then, because PortAudio opens a duplex stream within
    one host API.

    Raises:
        DeviceError: a name fits several endpoints.
    """
    if not isinstance(source, str) and not isinstance(sink, str):
        return None
    known = endpoints()
    found = {}
    for kind, wanted in (("input", source), ("output", sink)):
        if isinstance(wanted, str) and wanted.lower() not in _ALSA:
            endpoint = _match(wanted, [e for e in known if e.kind == kind])
            if endpoint is not None:
                found[kind] = endpoint
    if not found:
        return None
    return Route(
        input="pulse" if "input" in found or source is None else source,
        output="pulse" if "output" in found or sink is None else sink,
        endpoints=found,
    )


class Watch:
    """Notices when sources or sinks go away.

    A server moves the streams that are on them elsewhere, where they play on: nothing else tells.
    The thread sleeps nearly always, until the server has something to say about its devices.

    Args:
        endpoints: to be watched; none, and it does nothing.

    Attributes:
        lost: what has gone, for people; "" as long as all are there.
    """

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.lost = ""
        self._names = {e.name: e.description for e in endpoints}
        self._closed = False
        self._thread = threading.Thread(target=self._listen, name="realtime_sep pulse", daemon=True)

    def start(self) -> None:
        if self._names and not self._thread.is_alive():
            self._thread.start()

    def close(self) -> None:
        """The thread ends soon; libpulse cannot be woken safely from outside."""
        self._closed = True

    def _listen(self) -> None:
        try:
            import pulsectl

            with pulsectl.Pulse("realtime-sep watch") as server:
                there = [("source", s) for s in server.source_list()]
                there += [("sink", s) for s in server.sink_list()]
                watched = [
                    (kind, device.index, self._names[device.name])
                    for kind, device in there
                    if device.name in self._names
                ]

                def note(event: Any) -> None:
                    for kind, index, name in watched:
                        if event.t == "remove" and event.facility == kind and event.index == index:
                            self.lost = f"{name} has gone"

                server.event_mask_set("source", "sink")
                server.event_callback_set(note)
                if len(watched) < len(self._names):
                    self.lost = "a device has gone"
                while not self._closed:
                    server.event_listen(timeout=_NAP)
        except Exception:  # a server that dies takes the stream with it, which is noticed anyway
            return


def _match(wanted: str, known: list[Endpoint]) -> Endpoint | None:
    """The endpoint with this name or description, or the only one that contains it."""
    lower = wanted.lower()
    for endpoint in known:
        if lower in (endpoint.name.lower(), endpoint.description.lower()):
            return endpoint
    part = [e for e in known if lower in e.name.lower() or lower in e.description.lower()]
    if len(part) > 1:
        names = ", ".join(repr(e.description) for e in part)
        raise DeviceError(f"{wanted!r} fits several devices ({names}); give more of the name")
    return part[0] if part else None
