"""A second device beside the stream's own: a microphone, or a monitor for who sings.

It has a bridge and a ring of its own, which a feed brings to the stream's clock (`feeds`).  It goes
and comes by itself: while it is away the others play on, and it is looked for in a thread, since
whatever asks a dead audio server may wait for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from realtime_sep import native
from realtime_sep.errors import DeviceError, RealtimeSepError, UsageError
from realtime_sep.feeds import Feed, Link
from realtime_sep.io.device import Device, DeviceSpec
from realtime_sep.io.file import read_audio
from realtime_sep.io.jack import JackSpec
from realtime_sep.io.null import NULL_RATE, NullSpec
from realtime_sep.io.portaudio import START_TIMEOUT, PortAudioSpec
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
#: Seconds in which a sound server may take what it takes at first; then it may sleep for a while.
_FIRST = 0.3
#: Seconds that whoever brings it back may take to see that nobody wants it any more.
_GIVE_UP_TIMEOUT = 1.0

NAMES = {MICROPHONE: "microphone", MONITOR: "monitor"}
#: In place of a second device: channels of the first one itself.
MAIN = "main"


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


@dataclass(frozen=True)
class SecondDevices:
    """For `open_stream` and its `StreamConfig`."""

    options: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def second_devices(
    microphone: str | None,
    channels: tuple[int, ...],
    monitor: str | None,
    *,
    latency: Any = "low",
    api: str | None = None,
    outputs: tuple[str, ...] = ("mix",),
) -> SecondDevices:
    """What to open beside the first device, or of it (`MAIN`), by name.

    Raises:
        UsageError, AudioFileError: as `named`.
    """
    options: dict[str, Any] = {}
    config: dict[str, Any] = {"outputs": outputs}
    if microphone == MAIN:
        config["microphone"] = channels or (3,)
    elif microphone is not None:
        options["microphone"] = Beside(named(microphone, "input", latency, api), channels)
    if monitor == MAIN:
        config["outputs"] = (outputs[0], MONITOR, *outputs[1:])
    elif monitor is not None:
        options["monitor"] = Beside(named(monitor, "output", latency, api))
    return SecondDevices(options, config)


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
        self._kind, self._beside, self._config = kind, beside, config
        self._feed: Feed | None = None
        self._seek: _Seek | None = None
        self._wanted: Beside | None = None
        self.reopens = self._fades = self._faded = 0
        self.device = self._open(beside)
        self.link = self._make(self.device, beside)
        self._since = 0

    def _open(self, beside: Beside, before: Device | None = None) -> Device:
        sings = self._kind == MICROPHONE
        config = replace(
            self._config,
            samplerate=None,
            channels=max((2, *beside.channels)) if sings else self._config.channels,
            outputs=() if sings else (MONITOR,),
            microphone=(),
        )
        return beside.spec.open(config, before=before)

    def _make(self, device: Device, beside: Beside) -> Link:
        """The bridge and the ring for a device."""
        block, guard, channels = max(device.blocks), self._config.guard, self._config.channels
        frames = max(round(_RING_SECONDS * device.samplerate), 8 * block + guard)
        if self._kind == MICROPHONE:
            most = max(beside.channels, default=1)
            if device.in_channels < most:
                raise DeviceError(
                    f"{device.description} has {device.in_channels} channels; "
                    f"the microphone is to be on {most}"
                )
            width = most if beside.channels else 1
            ring = Ring(frames, width)
            sizes = BridgeConfig(device.in_channels, width, 0, block, 1, guard, 0, 0, lossy=True)
            bridge = Bridge(sizes, ring)
        else:
            ring = Ring(frames, channels)
            sizes = BridgeConfig(0, 0, channels, block, 1, guard, 0, 0)
            bridge = Bridge(sizes, None, ring)
            bridge.set_dry(0.0)
        columns = spread(beside.channels, channels)
        return Link(bridge, ring, device.samplerate, device.blocks, columns)

    def attach(self, feed: Feed) -> None:
        """Serve this feed from now on."""
        self._feed = feed
        feed.prepare(self.link)
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
        if self._kind == MICROPHONE:
            device.start(link.bridge, link.ring, ())
        else:
            device.start(link.bridge, None, (MONITOR,))

    @property
    def there(self) -> bool:
        """Whether it plays."""
        return self._since > 0 and self._seek is None

    @property
    def latency(self) -> int:
        """Frames of the engine that its own clock costs now."""
        return 0 if self._feed is None else self._feed.latency(self.link)

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
        if last - self._since < _FIRST * 1e9:
            limit = max(limit, START_TIMEOUT)
        return f"no audio for {age:.1f} s" if age > limit else ""

    def use(self, beside: Beside) -> None:
        """Let another device take its place: this one fades out, the other one is waited for."""
        self._wanted = beside

    def watch(self) -> Iterator[str]:
        """Look after it; lines for people."""
        name, seek = NAMES[self._kind], self._seek
        if (wanted := self._wanted) is not None:
            self._wanted = None
            if seek is not None:
                seek.give_up()  # it lets go of whatever it may still open
            self._leave(_Seek(self, wanted, chosen=True))
        elif seek is not None and seek.is_alive():
            if line := seek.news():
                yield f"{name}: {line}; waiting for it, the rest plays on"
        elif seek is not None:
            self._seek = None
            self._fades += self.link.bridge.stats().fades
            self.device, self.link, self._beside = seek.device, seek.link, seek.beside
            self._since = native.now()
            self.reopens += not seek.chosen
            if self._feed is not None:
                self._feed.link = self.link
            away = time.monotonic() - seek.since
            how = "chosen" if seek.chosen else f"back after {away:.1f} s"
            yield f"{name}: {self.device.description}: {how}"
        elif self._since and (trouble := self._trouble):
            self._leave(_Seek(self, self._beside))
            yield f"{name}: {self.device.description}: {trouble}; waiting for it, the rest plays on"
        elif self._feed is not None and self.fades > self._faded:
            self._feed.widen()  # hops came too late for it
        self._faded = self.fades

    def _leave(self, seek: _Seek) -> None:
        if self._feed is not None:
            self._feed.link = None
        self._seek = seek
        seek.start()

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
    """Closes a device that has gone, or is no longer wanted, and opens one when it is there.

    Args:
        beside: what to open.
        chosen: whether it is another one than before.
    """

    def __init__(self, companion: Companion, beside: Beside, *, chosen: bool = False) -> None:
        super().__init__(name="realtime_sep companion", daemon=True)
        self._companion, self.beside, self.chosen = companion, beside, chosen
        self.device, self.link = companion.device, companion.link
        self.since = time.monotonic()
        self._given_up = threading.Event()
        self._news = ""

    def give_up(self) -> None:
        self._given_up.set()

    def news(self) -> str:
        """Why a device that was chosen cannot be had, once; "": nothing new."""
        news, self._news = self._news, ""
        return news

    def run(self) -> None:
        self.device.stop()
        patient = not self.chosen
        while not self._given_up.is_set() and (failure := self._opens()):
            if not patient:
                patient, self._news = True, failure
            self._given_up.wait(_RETRY)
        if self._given_up.is_set():
            self.device.stop()

    def _opens(self) -> str:
        """One attempt; why it failed."""
        companion, beside = self._companion, self.beside
        try:
            device = companion._open(beside, None if self.chosen else self.device)
        except (RealtimeSepError, OSError) as error:
            return str(error)
        try:
            link = companion._make(device, beside)
            companion._begin(device, link)
        except (RealtimeSepError, OSError) as error:
            device.stop()
            return str(error)
        self.device, self.link = device, link
        return ""


def check(device: Device, kinds: list[str]) -> None:
    """Whether second devices can follow this one.

    Raises:
        UsageError: it has no clock.
    """
    if kinds and not device.paced:
        names = " and ".join(NAMES[kind] for kind in kinds)
        raise UsageError(f"{device.description} has no clock that a {names} could follow")
