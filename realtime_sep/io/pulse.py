"""PulseAudio and PipeWire sources, monitors and sinks, which PortAudio does not know by name.

PortAudio reaches both servers through ALSA's `pulse` device; which source and sink that device
uses is read from `PULSE_SOURCE` and `PULSE_SINK` when it is opened.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from realtime_sep.errors import DeviceError


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
    """All sources and sinks; empty where there is no server."""
    if not sys.platform.startswith("linux"):
        return []
    try:
        import pulsectl

        with pulsectl.Pulse("realtime-sep devices", connect=False) as pulse:
            pulse.connect(timeout=2)
            server = pulse.server_info()
            return [
                *(_endpoint(s, "input", server.default_source_name) for s in pulse.source_list()),
                *(_endpoint(s, "output", server.default_sink_name) for s in pulse.sink_list()),
            ]
    except Exception:  # no library, no server, or one that does not answer: the same to us
        return []


def _endpoint(info: Any, kind: Literal["input", "output"], default: str) -> Endpoint:
    monitor = kind == "input" and info.monitor_of_sink_name is not None
    hardware = "HARDWARE" in str(getattr(info, "flags", "")) or "device.bus" in info.proplist
    return Endpoint(
        name=info.name,
        description=info.description,
        kind=kind,
        samplerate=info.sample_spec.rate,
        channels=info.channel_count,
        monitor=monitor,
        virtual=monitor or not hardware,
        default=info.name == default,
    )


@dataclass(frozen=True)
class Route:
    """PortAudio devices to open, and the environment that routes them."""

    input: int | str | None
    output: int | str | None
    environment: dict[str, str] = field(default_factory=dict)
    _descriptions: dict[str, str] = field(default_factory=dict)

    def describe(self, kind: str) -> str | None:
        """Description of the routed endpoint, if this side is routed."""
        return self._descriptions.get(kind)


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
    environment, descriptions = {}, {}
    for wanted, kind, variable in (
        (source, "input", "PULSE_SOURCE"),
        (sink, "output", "PULSE_SINK"),
    ):
        if not isinstance(wanted, str):
            continue
        found = _match(wanted, [e for e in known if e.kind == kind])
        if found is not None:
            environment[variable] = found.name
            descriptions[kind] = found.description
    if not environment:
        return None
    return Route(
        input="pulse" if "input" in descriptions or source is None else source,
        output="pulse" if "output" in descriptions or sink is None else sink,
        environment=environment,
        _descriptions=descriptions,
    )


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
