"""A device without hardware: plays from memory and captures to memory, by the clock or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realtime_sep import native
from realtime_sep.errors import DeviceError
from realtime_sep.native import Bridge, Ring
from realtime_sep.types import Float32, StreamConfig

#: Hz, where nobody asks for another rate.
NULL_RATE = 48000


@dataclass(frozen=True, eq=False)
class NullSpec:
    """What the null device should do.

    Attributes:
        source: `(frames, channels)` float32 that "comes in"; None: silence on two channels.
        loop: repeat the source, else silence follows it.
        capture: keep what "goes out" (`Stream.captured`); needs an end, so not with endless play.
        frames: end after as many; None: after the source and the latency (so that its end comes
            out), or never without a source or with `loop`.
        clocked: at the pace of the clock; else as fast as the worker delivers.
        blocks: block sizes used in turn; None: the stream's block size.
        drift: by how much its clock is fast, relative.
        priority: real-time priority of the device's thread to try for, 0 for none; None: as a sound
            card's, where the stream asks for real time.
    """

    source: Float32 | None = None
    loop: bool = False
    capture: bool = False
    frames: int | None = None
    clocked: bool = True
    blocks: tuple[int, ...] | None = None
    drift: float = 0.0
    priority: int | None = None

    def open(self, config: StreamConfig, before: object = None) -> NullDevice:
        return NullDevice(self, config)


class NullDevice:
    """See `realtime_sep.io.device.Device`."""

    latency = 0
    trouble = silence_hint = ""

    def __init__(self, spec: NullSpec, config: StreamConfig) -> None:
        source = spec.source
        if source is not None and (source.ndim != 2 or source.dtype != np.float32):
            raise DeviceError("the null device plays float32 arrays of shape (frames, channels)")
        self._spec = spec
        self._source = None if source is None else np.ascontiguousarray(source)
        self.samplerate = config.samplerate or NULL_RATE
        self.in_channels = max(2, config.in_channels) if source is None else source.shape[1]
        if config.microphone and config.in_channels > self.in_channels:
            raise DeviceError(
                f"the null device has {self.in_channels} channels, "
                f"the microphone is to be on {max(config.microphone)}"
            )
        self.blocks: tuple[int, ...] = spec.blocks or (config.blocksize,)
        self.paced = spec.clocked
        pace = "clocked" if spec.clocked else "free-running"
        self.description = f"null device, {pace}, {self.samplerate} Hz"
        self._frames = spec.frames
        sound_card = 10 if config.realtime and spec.clocked else 0
        self._priority = sound_card if spec.priority is None else spec.priority
        if spec.capture and spec.frames is None and (source is None or spec.loop):
            raise DeviceError("capturing needs an end: give the null device `frames`, or a source")
        self._device: native.NullDevice | None = None
        self._captured: Float32 | None = None

    def start(self, bridge: Bridge, ring: Ring | None, buses: Sequence[str] = ()) -> None:
        out_channels = bridge.config.out_channels
        frames = self._frames
        if frames is None and self._source is not None and not self._spec.loop:
            frames = len(self._source) + bridge.config.latency
        if self._spec.capture:
            assert frames is not None
            self._captured = np.zeros((frames, out_channels), np.float32)
        config = native.NullConfig(
            samplerate=self.samplerate * (1 + self._spec.drift),
            in_channels=bridge.config.in_channels,
            out_channels=out_channels,
            blocks=self.blocks,
            source=self._source if bridge.config.in_channels else None,
            loop=self._spec.loop,
            capture=self._captured,
            frames=frames or 0,
            clocked=self._spec.clocked,
            priority=self._priority,
        )
        self._device = native.NullDevice(config, bridge, ring)
        self._device.start()

    def stop(self) -> None:
        if self._device is not None:
            self._device.stop()

    @property
    def finished(self) -> bool:
        return self._device is not None and not self._device.running

    @property
    def captured(self) -> Float32 | None:
        return self._captured
