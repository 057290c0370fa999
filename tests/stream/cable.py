"""A device that can be pulled out, and put in again: the null device behind a cable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from realtime_sep.errors import DeviceError, SampleRateError
from realtime_sep.io.null import NullDevice, NullSpec
from realtime_sep.types import Float32, StreamConfig


@dataclass
class Cable:
    """Between a stream in this process and a null device by the clock.

    Attributes:
        source: what every device that is opened plays from its first frame on.
        plugged: whether there is a device; `hung`: whether it stands still without saying so.
        samplerate, blocks: of what is opened next.
        devices: all that were opened.
    """

    source: Float32
    plugged: bool = True
    hung: bool = False
    samplerate: int = 48000
    blocks: tuple[int, ...] = (128,)
    silence_hint: str = ""
    devices: list[CableDevice] = field(default_factory=list)

    def open(self, config: StreamConfig, before: Any = None) -> CableDevice:
        if not self.plugged:
            raise DeviceError("no cable")
        if config.samplerate not in (None, self.samplerate):
            raise SampleRateError(f"the cable runs at {self.samplerate} Hz")
        device = CableDevice(self, replace(config, samplerate=self.samplerate))
        self.devices.append(device)
        return device

    def pull(self) -> None:
        self.plugged = False
        self.devices[-1].halt()

    def hang(self) -> None:
        """As a suspended server."""
        self.hung = True
        self.devices[-1].halt()

    def go_on(self) -> None:
        self.hung = False
        self.devices[-1].resume()


class CableDevice(NullDevice):
    """What it plays is kept, from `played` on."""

    def __init__(self, cable: Cable, config: StreamConfig) -> None:
        spec = NullSpec(cable.source, capture=True, frames=len(cable.source), blocks=cable.blocks)
        super().__init__(spec, config)
        self._cable = cable
        self.description = "cable"
        self.silence_hint = cable.silence_hint
        self._gone = False

    def halt(self) -> None:
        assert self._device is not None
        self._gone = not self._cable.plugged
        self._device.stop()

    def resume(self) -> None:
        assert self._device is not None
        self._device.start()

    @property
    def trouble(self) -> str:  # type: ignore[override]
        return "the cable is out" if self._gone else ""

    @property
    def finished(self) -> bool:
        return not self._cable.hung and not self._gone and super().finished

    @property
    def position(self) -> int:
        """Frames played so far."""
        assert self._device is not None
        return self._device.position

    @property
    def heard(self) -> Float32:
        """What it has played so far."""
        played = self.captured
        assert played is not None
        return np.array(played[: self.position])
