"""A second device beside the stream's own: a microphone, or a monitor for who sings.

It has a bridge and a ring of its own, which a feed brings to the stream's clock (`feeds`).  It goes
and comes by itself: while it is away the others play on, and it is looked for in a thread, since
whatever asks a dead audio server may wait for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from realtime_sep import native
from realtime_sep.errors import DeviceError, RealtimeSepError, UsageError
from realtime_sep.feeds import Feed, Link
from realtime_sep.io.device import Device, DeviceSpec
from realtime_sep.io.file import read_audio
from realtime_sep.io.jack import JackSpec
from realtime_sep.io.null import NULL_RATE, NullSpec
from realtime_sep.io.portaudio import PortAudioSpec
from realtime_sep.io.song import at_rate
from realtime_sep.native import Bridge, BridgeConfig, Ring
from realtime_sep.parameters import MICROPHONE, MONITOR
from realtime_sep.types import StreamConfig

#: Seconds of audio that the ring holds, at least.
_RING_SECONDS = 0.5
#: Seconds between attempts to open it again.
_RETRY = 0.5
#: Seconds without a callback after which it counts as gone.
_SILENCE = 0.7
#: Seconds that whoever brings it back may take to see that nobody wants it any more.
_GIVE_UP_TIMEOUT = 1.0

NAMES = {MICROPHONE: "microphone", MONITOR: "monitor"}


@dataclass(frozen=True)
class Beside:
    """What to open beside the stream's own device.

    Attributes:
        spec: an input alone, or an output alone.
        channels: of a microphone's device, counted from 1: one for both ears, or two; empty: its
            first two as one.
    """

    spec: DeviceSpec
    channels: tuple[int, ...] = ()


def named(
    name: str, side: Literal["input", "output"], latency: Any = "low", api: str | None = None
) -> DeviceSpec:
    """What people mean by a name: a device, a JACK client, "null", or a file that is heard.

    Raises:
        UsageError: there is no such way.
        AudioFileError: the file cannot be read.
    """
    if name == "null":
        return NullSpec()
    if side == "input" and Path(name).is_file():
        sound, samplerate = read_audio(name, 2)
        return NullSpec(at_rate(sound, samplerate, NULL_RATE), loop=True)
    if api is not None and api.lower() == "pyaudio":
        raise UsageError("PyAudio opens one pair of devices; a second one needs another --api")
    device = int(name) if name.isdecimal() else name
    if api is not None and api.lower() == "jack":
        return JackSpec(**{side: name}, side=side)
    return PortAudioSpec(**{side: device}, latency=latency, api=api, side=side)


def spread(channels: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Which column of a microphone's ring goes to each of the engine's channels."""
    columns = tuple(channel - 1 for channel in channels) or (0,)
    return tuple(columns[min(i, len(columns) - 1)] for i in range(count))


class Companion:
    """One second device.

    Args:
        kind: "mic" or "monitor".
        config: of the stream.

    Attributes:
        device: opened, or gone.
        reopens: how often it has come back.

    Raises:
        RealtimeSepError: it cannot be opened.
    """

    def __init__(self, kind: str, beside: Beside, config: StreamConfig) -> None:
        self._kind, self._beside = kind, beside
        wanted = max((2, *beside.channels)) if kind == MICROPHONE else config.channels
        outputs = () if kind == MICROPHONE else (MONITOR,)
        self._config = replace(
            config, samplerate=None, channels=wanted, outputs=outputs, microphone=()
        )
        self._channels = config.channels
        self._feed: Feed | None = None
        self._seek: _Seek | None = None
        self.reopens = self._fades = 0
        self.device = beside.spec.open(self._config)
        self.link = self._make(self.device)
        self._since = 0

    def _make(self, device: Device) -> Link:
        """The bridge and the ring for a device."""
        block, config = max(device.blocks), self._config
        frames = max(round(_RING_SECONDS * device.samplerate), 8 * block + config.guard)
        if self._kind == MICROPHONE:
            most = max(self._beside.channels, default=1)
            if device.in_channels < most:
                raise DeviceError(
                    f"{device.description} has {device.in_channels} channels; "
                    f"the microphone is to be on {most}"
                )
            width = most if self._beside.channels else 1
            ring = Ring(frames, width)
            sizes = BridgeConfig(
                device.in_channels, width, 0, block, 1, config.guard, 0, 0, lossy=True
            )
            bridge = Bridge(sizes, ring)
        else:
            ring = Ring(frames, self._channels)
            sizes = BridgeConfig(0, 0, self._channels, block, 1, config.guard, 0, 0)
            bridge = Bridge(sizes, None, ring)
            bridge.set_dry(0.0)
        return Link(bridge, ring, device.samplerate, device.blocks)

    def attach(self, feed: Feed) -> None:
        """Serve this feed from now on."""
        self._feed = feed
        feed.link = self.link if self._since and self._seek is None else None

    def start(self) -> None:
        """Let audio flow.

        Raises:
            DeviceError: it does not start.
        """
        self._begin(self.device, self.link)
        self._since = native.now()
        if self._feed is not None:
            self._feed.link = self.link

    def _begin(self, device: Device, link: Link) -> None:
        recorded = link.ring if self._kind == MICROPHONE else None
        device.start(link.bridge, recorded, self._config.outputs)

    @property
    def there(self) -> bool:
        """Whether it plays."""
        return self._since > 0 and self._seek is None

    @property
    def fades(self) -> int:
        """Times that its output had to fade."""
        return self._fades + self.link.bridge.stats().fades

    @property
    def _trouble(self) -> str:
        if self.device.finished:
            return "it has come to its end"
        if trouble := self.device.trouble:
            return trouble
        last = max(self.link.bridge.stats().last_callback, self._since)
        age = (native.now() - last) * 1e-9
        limit = max(_SILENCE, 4 * max(self.device.blocks) / self.device.samplerate)
        return f"no audio for {age:.1f} s" if age > limit else ""

    def watch(self) -> Iterator[str]:
        """Look after it; lines for people."""
        name = NAMES[self._kind]
        if (seek := self._seek) is not None:
            if not seek.is_alive():
                self._seek = None
                self._fades += self.link.bridge.stats().fades
                self.device, self.link = seek.device, seek.link
                self._since = native.now()
                self.reopens += 1
                if self._feed is not None:
                    self._feed.link = self.link
                away = time.monotonic() - seek.since
                yield f"{name}: {self.device.description}: back after {away:.1f} s"
        elif self._since and (trouble := self._trouble):
            if self._feed is not None:
                self._feed.link = None
            self._seek = _Seek(self)
            self._seek.start()
            yield f"{name}: {self.device.description}: {trouble}; waiting for it, the rest plays on"

    def finish(self) -> None:
        """Begin to fade out."""
        self.link.bridge.finish()

    def stop(self) -> None:
        """Stop at once."""
        if self._feed is not None:
            self._feed.link = None
        if self._seek is not None:
            self._seek.give_up()
            self._seek.join(_GIVE_UP_TIMEOUT)
            self._seek.device.stop()
        self.device.stop()


class _Seek(threading.Thread):
    """Closes a device that has gone, and opens it when it is there again."""

    def __init__(self, companion: Companion) -> None:
        super().__init__(name="realtime_sep companion", daemon=True)
        self._companion = companion
        self.device, self.link = companion.device, companion.link
        self.since = time.monotonic()
        self._given_up = threading.Event()

    def give_up(self) -> None:
        self._given_up.set()

    def run(self) -> None:
        self.device.stop()
        while not self._given_up.is_set() and not self._opens():
            self._given_up.wait(_RETRY)
        if self._given_up.is_set():
            self.device.stop()

    def _opens(self) -> bool:
        companion = self._companion
        try:
            device = companion._beside.spec.open(companion._config, before=self.device)
        except (RealtimeSepError, OSError):
            return False
        try:
            link = companion._make(device)
            companion._begin(device, link)
        except (RealtimeSepError, OSError):
            device.stop()
            return False
        self.device, self.link = device, link
        return True


def check(device: Device, kinds: list[str]) -> None:
    """Whether second devices can follow this one.

    Raises:
        UsageError: it has no clock.
    """
    if kinds and not device.paced:
        names = " and ".join(NAMES[kind] for kind in kinds)
        raise UsageError(f"{device.description} has no clock that a {names} could follow")
