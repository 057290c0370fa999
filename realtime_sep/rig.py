"""What runs between a device's input and its output: bridge, rings, worker and engine."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np

from realtime_sep.effects import Effect
from realtime_sep.engine import Engine, Strand
from realtime_sep.errors import RealtimeSepError, UsageError
from realtime_sep.io.device import Device, DeviceSpec
from realtime_sep.latency import stream_latency
from realtime_sep.native import Bridge, BridgeConfig, BridgeStats, Ring, Wake
from realtime_sep.parameters import Parameter
from realtime_sep.plugins import load_effect, load_separator
from realtime_sep.separators import Separator, SeparatorFactory
from realtime_sep.shared import SharedRecord
from realtime_sep.types import EVERY_STEM, Latency, SeparatorInfo, StreamConfig
from realtime_sep.worker import CONTROLS, COUNTERS, MAX_STEMS, MAX_TURNS, Worker, tap_width

#: Seconds of audio that the rings hold: more than any stall that is worth surviving.
RING_SECONDS = 2.0
#: Separators that are kept for another switch: to load one holds the interpreter lock at times,
#: and so may make the worker late.
KEPT = 4
#: Longest latency of a separator that another one may be switched to.
LONGEST_SECONDS = 4.0
#: Seconds of stems that wait for a reader of `Stream.blocks()`.
TAP_SECONDS = 2.0
#: Seconds without a callback after which a device that has a clock counts as gone: longer than any
#: stall of a machine, and short enough to be noticed within a second.
SILENCE = 0.7
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
        ("reopens", "u8"),
    ]
)

#: Of a bridge's statistics: what does not add up over the bridges of one stream.
_NEWEST = ("debt", "block")
_GREATEST = ("last_callback", "last_late", "busy_max")


@dataclass(frozen=True)
class Plan:
    """All that a host needs to know; picklable if the separator is a name or importable."""

    separator: str | SeparatorFactory
    device: DeviceSpec
    config: StreamConfig = field(default_factory=StreamConfig)
    options: Mapping[str, Any] = field(default_factory=dict)
    effects: tuple[str | Effect, ...] = ()
    ready: tuple[str, ...] = ()  # separators to be loaded before audio flows, for `switch`

    @property
    def key(self) -> tuple[object, str]:
        """What the separator is made from."""
        return self.separator, repr(sorted(self.options.items()))


class Records:
    """What the two sides share."""

    def __init__(self) -> None:
        self.counters = SharedRecord(COUNTERS)
        self.callbacks = SharedRecord(CALLBACKS)
        self.controls = SharedRecord(CONTROLS)
        with self.controls.writing() as fields:
            for name in ("gains", "wet", "master", "dry"):
                fields[name] = 1
            fields["turns"] = float("nan")


class Rig:
    """Built for one opened device.

    Args:
        plan: what to run.
        device: what will call the bridge.
        records: where to write counters to and read controls from.
        tap: zeroed memory in which to lay out a ring for the stems; or None.
        before: the stopped rig of the same plan whose device has gone.  Its engine goes on here,
            unless the new device has another rate; its counters and its timeline do in any case,
            and the output fades in.

    Raises:
        RealtimeSepError: anything that keeps it from being built.
    """

    def __init__(
        self,
        plan: Plan,
        device: Device,
        records: Records,
        tap: Any = None,
        before: Rig | None = None,
    ) -> None:
        config = plan.config
        self._plan, self._device, self._records = plan, device, records
        self._fresh = before is None or before.info.samplerate != device.samplerate
        self._turns: list[tuple[Parameter, Callable[[float], None]]]
        if before is None or self._fresh:
            self._engine = self._make(plan)
            self._kept: dict[object, Strand] = {}
        else:
            self._engine, self._turns = before._engine, before._turns
            self._kept = before._kept
        self._mended = (0, 0, 0) if before is None else before._mended_so_far()
        self._totals = None if before is None else before.stats()
        self._guard = config.guard
        engine, hop, latency = self._engine, self.info.hop, self.latency
        capacity = max(round(RING_SECONDS * engine.samplerate), 4 * (latency.frames + hop))
        self._in = Ring(capacity, engine.channels)
        self._out = Ring(2 * capacity, engine.out_channels)
        if before is not None:
            self._in.seek(before._in.written)
        self._wake = Wake()
        self._bridge = Bridge(
            BridgeConfig(
                in_channels=device.in_channels,
                channels=engine.channels,
                out_channels=engine.out_channels,
                max_block=max(device.blocks),
                hop=hop,
                guard=config.guard,
                prefill=latency.bridge,
                latency=latency.frames,
                longest=round(LONGEST_SECONDS * engine.samplerate),
            ),
            self._in,
            self._out,
            self._wake,
        )
        self._bridge.enter(pause=self.silence if device.paced else 0.0, now=before is not None)
        if before is None:
            self._tap = None if tap is None else _place_tap(tap, engine)
        elif before._tap is None or before._shape() == self._shape():
            self._tap = before._tap
        else:
            raise UsageError(f"{self.info.name!r} has other hops or stems at the new sample rate")
        self._worker = Worker(
            engine,
            (self._in, self._out),
            self._bridge,
            self._wake,
            records.counters,
            records.controls,
            tap=self._tap,
            turns=[turn for _, turn in self._turns],
            patient=not device.paced,
            priority=PRIORITY if config.realtime else 0,
        )

    def _load(self, plan: Plan) -> Separator:
        options = {"samplerate": self._device.samplerate, "channels": plan.config.channels}
        if isinstance(plan.separator, str):
            separator = load_separator(plan.separator, **options, **plan.options)
        else:
            separator = plan.separator(**options, **plan.options)
        if hasattr(separator, "realtime"):
            separator.realtime = self._device.paced
        return separator

    def _make(self, plan: Plan) -> Engine:
        config = plan.config
        separator = self._load(plan)
        info = separator.info
        if len(info.stems) > MAX_STEMS:
            raise UsageError(f"{info.name!r} has {len(info.stems)} stems; at most {MAX_STEMS} fit")
        buses: list[str] = []
        for name in config.outputs:
            buses.extend(info.stems if name == EVERY_STEM else [name])
        effects = [load_effect(e) if isinstance(e, str) else e for e in plan.effects]
        self._turns = _turns(plan, effects)
        return Engine(
            separator, outputs=buses, effects=effects, limiter=config.limiter, key=plan.key
        )

    @property
    def info(self) -> SeparatorInfo:
        """The separator that is heard."""
        return self._engine.separator.info

    @property
    def latency(self) -> Latency:
        """With that separator; without the device's own."""
        return stream_latency(
            samplerate=self._engine.samplerate,
            hop=self._engine.hop,
            blocks=self._device.blocks,
            guard=self._guard,
            separator=self.info.latency,
            effects=self._engine.effects_latency,
            limiter=self._engine.limiter_latency,
        )

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Of the effects, by full names."""
        return tuple(parameter for parameter, _ in self._turns)

    def prepare(self, plan: Plan) -> Strand:
        """Get the separator of another plan, ready to take over; slow, in a thread of its own.

        Raises:
            RealtimeSepError: it cannot be had, or does not fit this stream.
        """
        if plan.key in self._kept:
            strand = self._kept.pop(plan.key)
            strand.reset()
            return strand
        separator = self._load(plan)
        try:
            return self._engine.strand(separator, plan.key)
        except RealtimeSepError:
            if (close := getattr(separator, "close", None)) is not None:
                close()
            raise

    def switch(self, strand: Strand) -> None:
        """Let it take over; `switching` until that is done, then call `switched`."""
        self._worker.switch(strand)

    @property
    def switching(self) -> bool:
        return self._worker.switching

    def switched(self) -> None:
        """Another separator has taken over; the one before it is kept for a while."""
        while self._engine.retired:
            self._keep(self._engine.retired.popleft())

    def _keep(self, strand: Strand) -> None:
        kept = self._kept
        if strand.key in kept:
            strand.close()
            return
        kept[strand.key] = strand
        while len(kept) > KEPT:
            kept.pop(next(iter(kept))).close()
            gc.collect()  # the engine's process does that nowhere else

    def _get_ready(self, plan: Plan) -> None:
        """Load what is to be ready; what cannot be is told by whoever wants it."""
        for name in plan.ready[:KEPT]:
            other = replace(plan, separator=name, options={})
            if other.key != self._engine.key:
                with suppress(RealtimeSepError):
                    self._keep(self.prepare(other))

    def _shape(self) -> tuple[int, int]:
        return self.info.hop, len(self.info.stems)

    def _mended_so_far(self) -> tuple[int, int, int]:
        engine = self._engine
        return engine.bad_hops, engine.bad_input, engine.limited_hops

    @property
    def silence(self) -> float:
        """Seconds without a callback after which something is wrong."""
        return max(SILENCE, 4 * max(self._device.blocks) / self.info.samplerate)

    def start(self) -> None:
        """Warm everything up, start the worker, then the device.

        Raises:
            DeviceError: the device does not start.
        """
        engine = self._engine
        if self._fresh:
            self._get_ready(self._plan)
            self._worker.warm_up()
            engine.bad_hops, engine.bad_input, engine.limited_hops = self._mended
        else:
            engine.reset()
        if self._totals is not None:
            with self._records.counters.writing() as fields:
                fields["epoch"] += 1
        self._worker.start()
        self._device.start(self._bridge, self._in, engine.outputs)

    def finish(self) -> None:
        """Begin to fade out; `finished` tells when that is done."""
        self._bridge.finish()

    @property
    def finished(self) -> bool:
        return self._bridge.finished

    def stop(self) -> None:
        """Stop the device, then the worker."""
        self._device.stop()
        self._worker.stop()

    def close(self) -> None:
        """Let go of the separators, after `stop`."""
        for strand in (*self._engine.retired, *self._kept.values()):
            strand.close()
        self._kept.clear()
        self._engine.close()

    def stats(self) -> BridgeStats:
        """Of this bridge and of those before it."""
        stats, totals = self._bridge.stats(), self._totals
        if totals is None:
            return stats
        joined = {}
        for name in (entry.name for entry in fields(BridgeStats)):
            new, old = getattr(stats, name), getattr(totals, name)
            joined[name] = (
                new if name in _NEWEST else max(new, old) if name in _GREATEST else new + old
            )
        return BridgeStats(**joined)

    @property
    def failure(self) -> BaseException | None:
        """What ended the worker, if it ended by itself."""
        return self._worker.failure

    @property
    def notice(self) -> str | None:
        """What the separator wants people to know."""
        notice = getattr(self._engine.separator, "notice", None)
        return None if notice is None else str(notice)


def _turns(
    plan: Plan, effects: Sequence[Effect]
) -> list[tuple[Parameter, Callable[[float], None]]]:
    """The parameters of all effects, and what turns each."""
    turns: list[tuple[Parameter, Callable[[float], None]]] = []
    used: list[str] = []
    for given, effect in zip(plan.effects, effects, strict=True):
        name = given if isinstance(given, str) else type(effect).__name__.lower()
        used.append(name)
        if used.count(name) > 1:
            name = f"{name}{used.count(name)}"
        for p in effect.parameters:
            full = replace(p, name=f"{name}.{p.name}", label=p.label or f"{name}: {p.name}")
            turns.append((full, partial(effect.set, p.name)))
    return turns[:MAX_TURNS]


def _place_tap(memory: Any, engine: Engine) -> Ring:
    """A ring of `TAP_SECONDS`, or as much of it as fits into `memory`."""
    width = tap_width(engine)
    frames = round(TAP_SECONDS * engine.samplerate)
    while Ring.bytes_needed(frames, width) > len(memory):
        frames //= 2
    return Ring.place(memory, frames, width)
