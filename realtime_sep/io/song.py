"""A device that plays a recording as if it came in: the output is real, the input a song."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from realtime_sep.dsp.resample import StreamResampler
from realtime_sep.io.device import Device, DeviceSpec
from realtime_sep.native import Bridge, Ring
from realtime_sep.types import Float32, StreamConfig


@dataclass(frozen=True, eq=False)
class SongSpec:
    """What to play, and through which device.

    Attributes:
        song: `(frames, channels)` float32, again and again.
        samplerate: of the song; it is resampled where the device runs at another rate.
        device: whose input is ignored.
    """

    song: Float32
    samplerate: int
    device: DeviceSpec

    def open(self, config: StreamConfig, before: Any = None) -> SongDevice:
        inner = None if before is None else before.inner
        return SongDevice(self, self.device.open(config, before=inner))


class SongDevice:
    """See `realtime_sep.io.device.Device`; everything but the input is the inner device's."""

    silence_hint = ""

    def __init__(self, spec: SongSpec, inner: Device) -> None:
        self.inner = inner
        self.samplerate, self.blocks, self.paced = inner.samplerate, inner.blocks, inner.paced
        self.in_channels, self.latency = inner.in_channels, inner.latency
        _, arrow, sink = inner.description.partition("▶")
        self.description = f"a recording ▶{sink}" if arrow else inner.description
        self._song = at_rate(spec.song, spec.samplerate, inner.samplerate)

    def start(self, bridge: Bridge, ring: Ring | None, buses: Sequence[str]) -> None:
        bridge.play(self._song)
        self.inner.start(bridge, ring, buses)
        self.latency = self.inner.latency

    def stop(self) -> None:
        self.inner.stop()

    @property
    def trouble(self) -> str:
        return self.inner.trouble

    @property
    def finished(self) -> bool:
        return self.inner.finished

    @property
    def captured(self) -> Float32 | None:
        return self.inner.captured


def at_rate(song: Float32, source: int, target: int) -> Float32:
    """A recording, resampled if need be."""
    if source == target:
        return song
    resampler = StreamResampler(source, target, song.shape[1])
    return np.concatenate([resampler.process(song), resampler.flush()])
