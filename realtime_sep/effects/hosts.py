"""Hosts: where effects come from that were not written for this program.

A host knows one kind of foreign plugin (LADSPA, LV2, ...) and makes effects of them.  Hosts are
found by entry points of the group `realtime_sep.hosts`; each names an object like `Host`.  In a
chain their effects are written `SCHEME:NAME`, for example `ladspa:amp_mono:gain=2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from realtime_sep.effects.protocol import Effect
from realtime_sep.parameters import Parameter

#: Group of entry points.
HOSTS = "realtime_sep.hosts"


@dataclass(frozen=True)
class HostedInfo:
    """What a host can tell of a plugin before it is loaded.

    Attributes:
        name: as `Host.load` takes it: without the scheme.
        label: for people.
        origin: the file or bundle that it comes from, or what makes it.
        channels: that it is made for; 1 runs once for each channel of the stream.
        parameters: that may be turned.
        latency: frames, or None where only a running plugin can tell.
        presets: names that `Host.load` takes.
    """

    name: str
    label: str
    origin: str
    channels: int
    parameters: tuple[Parameter, ...] = ()
    latency: int | None = None
    presets: tuple[str, ...] = ()


@runtime_checkable
class Host(Protocol):
    """One kind of foreign plugin."""

    scheme: str

    def available(self) -> list[HostedInfo]:
        """Every plugin found, sorted by name; empty where what the host needs is not installed."""
        ...

    def load(self, name: str, *, isolate: bool = True, preset: str | None = None) -> Effect:
        """Make an effect, not yet prepared.

        Args:
            name: of the plugin, as in `HostedInfo.name`; hosts may take more (a file, an id).
            isolate: run the plugin in a process of its own: see `effects.isolated`.
            preset: parameters as somebody named them.

        Raises:
            UsageError: there is none of this name (the nearest is suggested), it needs what this
                host cannot give, or what the host needs is not installed.
        """
        ...
