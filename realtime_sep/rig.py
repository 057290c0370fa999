"""What runs between a device's input and its output: bridge, rings, worker and engine."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np

from realtime_sep.companion import Beside, spread
from realtime_sep.effects import Effect
from realtime_sep.effects.chain import Chain, free_name
from realtime_sep.effects.slot import Slot, SlotInfo
from realtime_sep.effects.syntax import SlotSpec
from realtime_sep.engine import MIX, Change, Engine, Strand
from realtime_sep.errors import RealtimeSepError, UsageError, unknown
from realtime_sep.feeds import MicrophoneFeed, MonitorFeed
from realtime_sep.io.device import Device, DeviceSpec
from realtime_sep.latency import stream_latency
from realtime_sep.native import PRIORITY, Bridge, BridgeConfig, BridgeStats, Ring, Wake
from realtime_sep.parameters import MICROPHONE, MONITOR, MUSIC, VOCALS
from realtime_sep.plugins import load_separator, load_slot
from realtime_sep.separators import Separator, SeparatorFactory
from realtime_sep.shared import SharedRecord
from realtime_sep.types import EVERY_STEM, Latency, SeparatorInfo, StreamConfig
from realtime_sep.worker import CONTROLS, COUNTERS, MAX_STEMS, MAX_TURNS, Worker, cells, tap_width

#: Seconds of audio that the rings hold: more than any stall that is worth surviving.
RING_SECONDS = 2.0
#: Separators that are kept for another switch: to load one holds the interpreter lock at times,
#: and so may make the worker late.
KEPT = 4
#: Longest latency of a separator that another one may be switched to; of a separator and effects.
LONGEST_SECONDS = 4.0
#: Seconds of stems that wait for a reader of `Stream.blocks()`.
TAP_SECONDS = 2.0
#: Seconds without a callback after which a device that has a clock counts as gone: longer than any
#: stall of a machine, and short enough to be noticed within a second.
SILENCE = 0.7

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
        ("microphone_reopens", "u8"),
        ("microphone_there", "?"),
        ("monitor_reopens", "u8"),
        ("monitor_there", "?"),
        ("monitor_fades", "u8"),
    ]
)

#: Of a bridge's statistics: what does not add up over the bridges of one stream.
_NEWEST = ("debt", "block")
_GREATEST = ("last_callback", "last_late", "busy_max")


@dataclass(frozen=True)
class SlotPlan:
    """A slot of a chain that is to be made.

    Attributes:
        effect: what to make it from, or the effect itself.
        name: by which it was known before; "": it is new.
        cell: of its parameters; None: it is new.
    """

    effect: SlotSpec | Effect
    bypassed: bool = False
    name: str = ""
    cell: int | None = None


@dataclass(frozen=True)
class Wish:
    """A change of a chain that somebody wants.

    Attributes:
        kind: "add" puts `slots` before place `at` (None: at the end); "remove" and "move" (to place
            `at` among the others) are for the slot called `name`, and so is "bypass", which is `on`
            or off; "set" puts `slots` in place of all there are.
        place: of the chain: "mix", the name of a stem, ...
    """

    kind: Literal["add", "remove", "move", "bypass", "set"]
    place: str
    name: str = ""
    slots: tuple[SlotPlan, ...] = ()
    at: int | None = None
    on: bool = True


@dataclass(frozen=True)
class Plan:
    """All that a host needs to know; picklable if the separator is a name or importable."""

    separator: str | SeparatorFactory
    device: DeviceSpec
    config: StreamConfig = field(default_factory=StreamConfig)
    options: Mapping[str, Any] = field(default_factory=dict)
    chains: Mapping[str, tuple[SlotPlan, ...]] = field(default_factory=dict)
    ready: tuple[str, ...] = ()  # separators to be loaded before audio flows, for `switch`
    microphone: Beside | None = None  # of its own device; else `config.microphone` says where
    monitor: Beside | None = None  # of its own device; else it may be among `config.outputs`

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
            for name in ("gains", "wet", "master", "dry", "microphone_gain"):
                fields[name] = 1


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
        self._next_cell: int = 0 if before is None else before._next_cell
        if before is None or self._fresh:
            self._engine = self._make(plan)
            self._kept: dict[object, Strand] = {}
        else:
            self._engine, self._kept = before._engine, before._kept
        self._mended = (0, 0, 0) if before is None else before._mended_so_far()
        self._totals = None if before is None else before.stats()
        self._guard = config.guard
        engine, hop, latency = self._engine, self.info.hop, self.latency
        capacity = max(round(RING_SECONDS * engine.samplerate), 4 * (latency.frames + hop))
        width = config.in_channels if engine.microphone is not None else engine.channels
        self._in = Ring(capacity, width)
        self._out = Ring(2 * capacity, engine.out_channels)
        if before is not None:
            self._in.seek(before._in.written)
        self._wake = Wake()
        self._bridge = Bridge(
            BridgeConfig(
                in_channels=device.in_channels,
                channels=width,
                out_channels=engine.out_channels,
                max_block=max(device.blocks),
                hop=hop,
                guard=config.guard,
                prefill=latency.bridge,
                latency=latency.frames,
                longest=round(LONGEST_SECONDS * engine.samplerate),
                music=engine.channels,
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
        self._make_feeds(plan, before)
        self._worker = Worker(
            engine,
            (self._in, self._out),
            self._bridge,
            self._wake,
            records.counters,
            records.controls,
            tap=self._tap,
            microphone=self.microphone,
            monitor=self.monitor,
            spread=spread(config.microphone, config.channels),
            patient=not device.paced,
            priority=PRIORITY if config.realtime else 0,
        )

    def _make_feeds(self, plan: Plan, before: Rig | None) -> None:
        """For second devices, whoever attaches them."""
        self.microphone: MicrophoneFeed | None = None
        self.monitor: MonitorFeed | None = None
        rate, hop, config = self._engine.samplerate, self.info.hop, plan.config
        if plan.microphone is not None:
            self.microphone = MicrophoneFeed(rate, hop, config.guard)
            if before is not None and before.microphone is not None:
                self.microphone.gaps = before.microphone.gaps
        if plan.monitor is not None:
            lead = self.latency.gathering + self.latency.deadline
            self.monitor = MonitorFeed(rate, hop, config.guard, lead)
            if before is not None and before.monitor is not None:
                self.monitor.gaps = before.monitor.gaps

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
        chains: dict[str, Chain] = {}
        for place, planned in plan.chains.items():
            slots: list[Slot] = []
            for one in planned:
                slots.append(self._slot(one, [*_reserved(info), *(slot.name for slot in slots)]))
            chains[place] = Chain(slots)
        used = [slot for chain in chains.values() for slot in chain.slots]
        for slot in used:
            if slot.cell < 0:
                self._allot(slot, used)
        engine = Engine(
            separator,
            outputs=buses,
            chains=chains,
            limiter=config.limiter,
            microphone=bool(plan.microphone or config.microphone),
            monitor=plan.monitor is not None,
            key=plan.key,
        )
        for chain in engine.chains.values():
            chain.paced = self._device.paced
        return engine

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
    def microphone_latency(self) -> Latency | None:
        """From the microphone to the output, without what devices and two clocks cost."""
        engine = self._engine
        if engine.microphone is None:
            return None
        effects = engine.microphone_latency - engine.limiter_latency
        return replace(self.latency, separator=0, effects=effects)

    @property
    def monitor_latency(self) -> Latency | None:
        """From the input to the monitor, likewise."""
        engine = self._engine
        if engine.monitor is None:
            return None
        late = engine.monitor_latency - engine.latency
        latency = replace(self.latency, effects=engine.effects_latency + late)
        # A second device waits for what the two clocks need, in place of the bridge.
        return (
            latency if self.monitor is None else replace(latency, gathering=0, deadline=0, guard=0)
        )

    # ---- chains

    @property
    def chains(self) -> dict[str, tuple[SlotInfo, ...]]:
        """What is in them, by place."""
        chains = self._engine.chains
        return {place: tuple(s.info for s in chain.slots) for place, chain in chains.items()}

    @property
    def planned_chains(self) -> dict[str, tuple[SlotPlan, ...]]:
        """What makes the same chains again."""
        return {
            place: tuple(
                SlotPlan(slot.spec or slot.effect, slot.bypassed, slot.name, slot.cell)
                for slot in chain.slots
            )
            for place, chain in self._engine.chains.items()
        }

    def _slot(self, plan: SlotPlan, taken: Sequence[str]) -> Slot:
        """Make a slot; its cells, if it is new, are yet to be allotted.

        Raises:
            UsageError: there is no such effect, or it does not take its options.
        """
        if isinstance(plan.effect, SlotSpec):
            slot = load_slot(plan.effect, taken)
        else:
            name = free_name(type(plan.effect).__name__.lower(), taken)
            slot = Slot(plan.effect, name)
        slot.bypassed = plan.bypassed
        slot.name = plan.name or slot.name
        if plan.cell is not None:
            slot.cell = plan.cell
        return slot

    def _allot(self, slot: Slot, used: Sequence[Slot]) -> None:
        """Find cells for the parameters of a slot, beside those of others.

        Raises:
            UsageError: there are too many.
        """
        free = np.ones(MAX_TURNS, bool)
        for other in used:
            free[cells(other)] = False
        count = len(slot.parameters)
        for start in (*range(self._next_cell, MAX_TURNS - count + 1), *range(self._next_cell)):
            if free[start : start + count].all() and start + count <= MAX_TURNS:
                slot.cell, self._next_cell = start, start + count
                return
        raise UsageError(f"the effects of a stream have at most {MAX_TURNS} parameters together")

    def changes(self, wish: Wish) -> Iterator[Change]:
        """What makes a wish come true, step by step, each after the one before (see `edit`).

        Slow, in a thread of its own.

        Raises:
            UsageError: it cannot.
        """
        chain = self._engine.chains.get(wish.place)
        if chain is None:
            raise unknown("place of a chain", wish.place, self._engine.chains)
        slots = list(chain.slots)
        at = len(slots) if wish.at is None else wish.at
        match wish.kind:
            case "add" | "set":
                new = self._new_slots(chain, wish)
                slots[at:at] = new
                yield self._change(wish.place, new if wish.kind == "set" else slots, new)
            case "remove":
                slots.remove(chain.find(wish.name))
                yield self._change(wish.place, slots)
            case "bypass":
                slot = _sound(chain, wish.name)
                slot.bypassed = wish.on
                yield self._change(wish.place, slots)
            case "move":
                slot = _sound(chain, wish.name)
                slots.remove(slot)
                at = len(slots) if wish.at is None else wish.at
                if [*slots[:at], slot, *slots[at:]] == list(chain.slots):
                    return
                yield self._engine.change(wish.place, chain.slots, resting=[slot])
                moved = slot.moved()
                try:
                    chain.fit(moved)
                except UsageError as error:
                    moved.close()
                    slot.fail(str(error))
                    raise
                yield self._engine.change(wish.place, [*slots[:at], moved, *slots[at:]])

    def _new_slots(self, chain: Chain, wish: Wish) -> list[Slot]:
        names = [*_reserved(self.info)]
        if wish.kind == "add":
            names += [slot.name for slot in chain.slots]
        used = [slot for other in self._engine.chains.values() for slot in other.slots]
        new: list[Slot] = []
        try:
            for plan in wish.slots:
                slot = self._slot(plan, [*names, *(other.name for other in new)])
                new.append(slot)
                self._allot(slot, [*used, *new])
                chain.fit(slot)
        except RealtimeSepError:
            for slot in new:
                slot.close()
            raise
        return new

    def _change(self, place: str, slots: Sequence[Slot], new: Sequence[Slot] = ()) -> Change:
        change = self._engine.change(place, slots)
        late = self.latency.engine + change.edit.latency - self._engine.chains[place].latency
        if late > LONGEST_SECONDS * self._engine.samplerate:
            for slot in new:
                slot.close()
            raise UsageError(f"that would be {late / self._engine.samplerate:.1f} s late")
        return change

    def edit(self, change: Change) -> None:
        """Let a chain change; `editing` until that is done, then call `edited`."""
        self._worker.edit(change)

    @property
    def editing(self) -> bool:
        return self._worker.editing

    def edited(self) -> None:
        """A chain has changed; what has left is let go of."""
        for chain in self._engine.chains.values():
            while chain.retired:
                chain.retired.popleft().close()
        gc.collect()  # the engine's process does that nowhere else

    def news(self) -> list[str]:
        """What has become of effects, for people, since the last call."""
        told = []
        for place, chain in self._engine.chains.items():
            while chain.news:
                slot = chain.news.popleft()
                told.append(f"{slot.name} ({place}) was taken out: it {slot.failed}")
        return told

    # ---- another separator

    def keeps(self, plan: Plan) -> bool:
        """Whether the separator of another plan need not be loaded."""
        return plan.key in self._kept

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
        """Let go of separators and effects, after `stop`."""
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


def _reserved(info: SeparatorInfo) -> tuple[str, ...]:
    """Names that no slot may have: parameters begin with them."""
    return (VOCALS, MUSIC, MIX, MICROPHONE, MONITOR, *info.stems)


def _sound(chain: Chain, name: str) -> Slot:
    """A slot whose effect has not failed."""
    slot = chain.find(name)
    if slot.failed:
        raise UsageError(f"{name} was taken out: it {slot.failed}; remove it and add it again")
    return slot


def _place_tap(memory: Any, engine: Engine) -> Ring:
    """A ring of `TAP_SECONDS`, or as much of it as fits into `memory`."""
    width = tap_width(engine)
    frames = round(TAP_SECONDS * engine.samplerate)
    while Ring.bytes_needed(frames, width) > len(memory):
        frames //= 2
    return Ring.place(memory, frames, width)
