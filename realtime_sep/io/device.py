"""What the host asks of a device, whatever is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from realtime_sep.native import Bridge, Ring
from realtime_sep.types import Float32, StreamConfig


class Device(Protocol):
    """An opened device: its properties are settled, audio does not flow yet.

    Attributes:
        description: for people.
        samplerate: Hz.
        in_channels: of the device; 0 where it has none.
        blocks: every block size that it may use.
        latency: frames in the device's own buffers as the host reports them; 0 if unknown.
        paced: whether a clock drives the callbacks, so that their absence means trouble.
        silence_hint: what it may mean that the input is nothing but zeros, for people; "": nothing.
    """

    description: str
    samplerate: int
    in_channels: int
    blocks: tuple[int, ...]
    latency: int
    paced: bool
    silence_hint: str

    def start(self, bridge: Bridge, ring: Ring | None, buses: Sequence[str]) -> None:
        """Let audio flow through the bridge.

        Args:
            ring: the bridge's input ring; None if it has none.
            buses: names of what goes out, as many channels each as `StreamConfig.channels`.
        """
        ...

    def stop(self) -> None:
        """Stop at once; returns when no callback runs any more, or can do no harm."""
        ...

    @property
    def trouble(self) -> str:
        """Why it cannot go on as it was opened, in a few words; "" as long as it can."""
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

    def open(self, config: StreamConfig, before: Any = None) -> Device:
        """Settle the device's properties.

        Args:
            before: the stopped device that was opened by this and has gone; what there is on the
                machine must then be looked at again.

        Raises:
            SampleRateError: it is there, but does not run at the rate that is asked for.
            DeviceError, UsageError: there is no such device, or it cannot do what is asked.
        """
        ...
