"""The live engine, put together: device, bridge, rings, worker; and the process that it lives in.

The process exists so that no other Python thread shares the worker's interpreter lock: beside one
busy thread the worker would wait for the 5 ms switch interval at every hop.  Statistics, faders and
stems travel in shared memory; the pipe carries only what is rare: ready, errors, notices, stop.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from realtime_sep import native
from realtime_sep.effects import Effect
from realtime_sep.engine import Engine
from realtime_sep.errors import DeviceError, EngineError, RealtimeSepError, UsageError
from realtime_sep.io.device import DeviceSpec
from realtime_sep.latency import stream_latency
from realtime_sep.native import Bridge, BridgeConfig, Ring, Wake
from realtime_sep.plugins import load_effect, load_separator
from realtime_sep.separators import Separator, SeparatorFactory
from realtime_sep.shared import SharedRecord
from realtime_sep.types import Float32, Latency, SeparatorInfo, StreamConfig
from realtime_sep.worker import CONTROLS, COUNTERS, MAX_STEMS, Worker

#: Seconds between looks at the device and copies of the callback's counters.
TICK = 0.05
#: Seconds without a callback after which a device counts as gone.
SILENCE = 1.0
#: Seconds of audio that the rings hold: more than any stall that is worth surviving.
RING_SECONDS = 2.0
#: Seconds of stems that wait for a reader of `Stream.blocks()`.
TAP_SECONDS = 2.0
#: Real-time priority of the worker: below every audio callback, which it must not hold up (JACK
#: runs those of its clients at 5).
PRIORITY = 4

CALLBACKS = np.dtype(
    [
        ("callbacks", "u8"),
        ("frames", "u8"),
        ("xruns", "u8"),
        ("late_blocks", "u8"),
        ("fades", "u8"),
        ("dry_frames", "u8"),
        ("dropped_frames", "u8"),
        ("overflow_frames", "u8"),
        ("last_callback", "u8"),
        ("last_late", "u8"),
        ("busy_max", "u8"),
        ("started", "u8"),
        ("now", "u8"),
    ]
)

_COPIED = tuple(name for name in CALLBACKS.names or () if name not in ("xruns", "started", "now"))


@dataclass(frozen=True)
class Plan:
    """All that a host needs to know; picklable if the separator is a name or importable."""

    separator: str | SeparatorFactory
    device: DeviceSpec
    config: StreamConfig = field(default_factory=StreamConfig)
    options: Mapping[str, Any] = field(default_factory=dict)
    effects: tuple[str | Effect, ...] = ()


class Records:
    """What the two sides share."""

    def __init__(self) -> None:
        self.counters = SharedRecord(COUNTERS)
        self.callbacks = SharedRecord(CALLBACKS)
        self.controls = SharedRecord(CONTROLS)
        with self.controls.writing() as fields:
            fields["gains"] = 1
            fields["dry"] = 1


@dataclass(frozen=True)
class Opened:
    """What is settled once a host is built."""

    info: SeparatorInfo
    latency: Latency
    device: str


class Host:
    """One live stream in this process.

    Args:
        plan: what to run.
        records: where to write counters to and read controls from.
        tap: zeroed memory in which to lay out a ring for the stems; or None.

    Raises:
        RealtimeSepError: anything that keeps it from being built.
    """

    def __init__(self, plan: Plan, records: Records, tap: Any = None) -> None:
        config = plan.config
        if config.guard < 64:
            raise UsageError(f"a guard of {config.guard} frames is too short to fade; at least 64")
        if config.channels not in (1, 2):
            raise UsageError(f"the engine runs 1 or 2 channels, not {config.channels}")
        if not 1 <= config.blocksize <= 65536:
            raise UsageError(f"a block size of {config.blocksize} frames makes no sense; try 256")
        self._records = records
        self._device = plan.device.open(config)
        separator = self._make(plan)
        effects = [load_effect(e) if isinstance(e, str) else e for e in plan.effects]
        engine = Engine(separator, outputs=config.outputs, effects=effects, limiter=config.limiter)
        info = separator.info
        if len(info.stems) > MAX_STEMS:
            raise UsageError(f"{info.name!r} has {len(info.stems)} stems; at most {MAX_STEMS} fit")

        self._latency = stream_latency(
            samplerate=info.samplerate,
            hop=info.hop,
            blocks=self._device.blocks,
            guard=config.guard,
            separator=info.latency,
            effects=engine.effects_latency,
            limiter=engine.limiter_latency,
        )
        capacity = max(round(RING_SECONDS * info.samplerate), 4 * (self._latency.frames + info.hop))
        self._in = Ring(capacity, engine.channels)
        self._out = Ring(2 * capacity, engine.out_channels)
        self._wake = Wake()
        self._bridge = Bridge(
            BridgeConfig(
                in_channels=self._device.in_channels,
                channels=engine.channels,
                out_channels=engine.out_channels,
                max_block=max(self._device.blocks),
                hop=info.hop,
                guard=config.guard,
                prefill=self._latency.bridge,
                latency=self._latency.frames,
            ),
            self._in,
            self._out,
            self._wake,
        )
        self._separator = separator
        self._worker = Worker(
            engine,
            (self._in, self._out),
            self._bridge,
            self._wake,
            records.counters,
            records.controls,
            tap=None if tap is None else self._place_tap(tap, engine),
            patient=not self._device.paced,
            priority=PRIORITY if config.realtime else 0,
        )
        self._notice: str | None = None
        self._started = 0

    def _make(self, plan: Plan) -> Separator:
        options = {"samplerate": self._device.samplerate, "channels": plan.config.channels}
        if isinstance(plan.separator, str):
            separator = load_separator(plan.separator, **options, **plan.options)
        else:
            separator = plan.separator(**options, **plan.options)
        if hasattr(separator, "realtime"):
            separator.realtime = self._device.paced
        return separator

    @staticmethod
    def _place_tap(memory: Any, engine: Engine) -> Ring:
        """A ring of `TAP_SECONDS`, or as much of it as fits into `memory`."""
        width = (len(engine.stems) + 1) * engine.channels
        frames = round(TAP_SECONDS * engine.separator.info.samplerate)
        while Ring.bytes_needed(frames, width) > len(memory):
            frames //= 2
        return Ring.place(memory, frames, width)

    @property
    def opened(self) -> Opened:
        """Separator, latency and device; the device's own part is known after `start`."""
        latency = Latency(**{**self._latency.__dict__, "device": self._device.latency})
        return Opened(self._separator.info, latency, self._device.description)

    @property
    def captured(self) -> Float32 | None:
        """What the device played, where it keeps that."""
        return self._device.captured

    def start(self) -> None:
        """Warm everything up, then let audio flow."""
        self._worker.warm_up()
        gc.collect()
        gc.freeze()
        self._worker.start()
        self._started = native.now()
        self._device.start(self._bridge, self._in)
        self.refresh()

    def stop(self, fade: bool = True) -> None:
        """Fade out, stop the device, then the worker.

        Raises:
            EngineError: the worker had failed.
        """
        if fade and self._device.active:
            self._bridge.finish()
            deadline = time.monotonic() + 0.5
            while self._device.active and not self._bridge.finished:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.005)
        self._device.stop()
        self._worker.stop()
        if (close := getattr(self._separator, "close", None)) is not None:
            close()
        self.refresh()

    def refresh(self) -> None:
        """Copy the callback's counters to where the other side reads them."""
        stats = self._bridge.stats()
        with self._records.callbacks.writing() as fields:
            for name in _COPIED:
                fields[name] = getattr(stats, name)
            fields["xruns"] = stats.xruns_in + stats.xruns_out
            fields["started"] = self._started
            fields["now"] = native.now()

    def watch(self) -> bool:
        """Look after the stream; call it every `TICK`.

        Returns:
            Whether the device came to its own end.

        Raises:
            EngineError: the separator raised.
            DeviceError: the device is gone.
        """
        self.refresh()
        failure = self._worker.failure
        if failure is not None:
            raise EngineError(f"separator {self._separator.info.name!r} failed: {failure!r}")
        if self._device.finished:
            return True
        last = max(self._bridge.stats().last_callback, self._started)
        age = (native.now() - last) * 1e-9
        if not self._device.active:
            raise DeviceError(
                f"{self._device.description}: the device, or its audio server, is gone"
            )
        if self._device.paced and age > SILENCE:
            raise DeviceError(
                f"{self._device.description}: no audio for {age:.1f} s; "
                "is the device, or the audio server, still there?"
            )
        return False

    def notice(self) -> str | None:
        """What the separator wants people to know, once."""
        notice = getattr(self._separator, "notice", None)
        if notice is None or notice == self._notice:
            return None
        self._notice = notice
        return str(notice)


def serve(plan: Plan, records: Records, tap: Any, pipe: Connection) -> None:
    """Run a host as the life of this process; the target of the process that `Stream` spawns.

    Messages out: `("opened", Opened)`, `("started", Opened)`, `("notice", str)`, `("ended", None)`
    when the device came to its end, `("failed", error)`, `("closed", captured)`.
    Messages in: `"start"`, `"stop"`; a closed pipe means that nobody is there any more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that owns the terminal
    told_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told_to_end.append(number))
    host: Host | None = None
    try:
        host = Host(plan, records, tap)
        pipe.send(("opened", host.opened))
        if pipe.recv() == "start":
            if plan.config.realtime:
                native.lock_memory()
                # This thread does little, but whoever takes it off its core while it holds the
                # interpreter lock makes the worker wait: it must not be the one that can be.
                native.set_realtime(PRIORITY - 1)
            gc.disable()
            host.start()
            pipe.send(("started", host.opened))
            _attend(host, pipe, told_to_end)
        host.stop()
        pipe.send(("closed", host.captured))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        if host is not None:
            host.stop()
    except Exception as error:
        known = isinstance(error, RealtimeSepError)
        pipe.send(("failed", error if known else EngineError(f"the engine failed: {error!r}")))
        if host is not None:
            host.stop(fade=False)


def _attend(host: Host, pipe: Connection, told_to_end: list[int]) -> None:
    """Watch until told to stop, by the pipe or by a signal."""
    ended = False
    while not pipe.poll(TICK):
        if told_to_end:
            return
        if not ended and host.watch():
            ended = True
            pipe.send(("ended", None))
        if (notice := host.notice()) is not None:
            pipe.send(("notice", notice))
    pipe.recv()
