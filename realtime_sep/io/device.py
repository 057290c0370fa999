"""What the host asks of a device, whatever is behind it."""

from __future__ import annotations

from typing import Protocol

from realtime_sep.native import Bridge, Ring
from realtime_sep.types import Float32, StreamConfig


class Device(Protocol):
    """An opened device: its properties are settled, audio does not flow yet.

    Attributes:
        description: for people.
        samplerate: Hz.
        in_channels, out_channels: of the device; 0 where it has none.
        blocks: every block size that it may use.
        latency: frames in the device's own buffers as the host reports them; 0 if unknown.
        paced: whether a clock drives the callbacks, so that their absence means trouble.
    """

    description: str
    samplerate: int
    in_channels: int
    out_channels: int
    blocks: tuple[int, ...]
    latency: int
    paced: bool

    def start(self, bridge: Bridge, ring: Ring) -> None:
        """Let audio flow through the bridge; `ring` is its input ring."""
        ...

    def stop(self) -> None:
        """Stop at once; returns when no callback runs any more."""
        ...

    @property
    def active(self) -> bool:
        """Whether callbacks are to be expected."""
        ...

    @property
    def finished(self) -> bool:
        """Whether it came to its own end (a file that was played), which is no error."""
        ...

    @property
    def captured(self) -> Float32 | None:
        """What it played, where it keeps that."""
        ...


class DeviceSpec(Protocol):
    """What to open: small, picklable, made before anything is opened."""

    def open(self, config: StreamConfig) -> Device:
        """Settle the device's properties.

        Raises:
            DeviceError: there is no such device, or it cannot do what is asked.
        """
        ...
