"""The worker: wait, take a hop from the ring, run the engine, put the hop into the other ring.

It is the one busy Python thread of its process.  What it counts goes into a shared record, what
people turn comes from another one, so no other thread of this process is needed to watch or steer.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from realtime_sep import native
from realtime_sep.effects.slot import Slot
from realtime_sep.engine import Change, Engine, Strand
from realtime_sep.feeds import MicrophoneFeed, Moment, MonitorFeed
from realtime_sep.native import Bridge, Ring, Wake
from realtime_sep.parameters import Gains
from realtime_sep.shared import SharedRecord
from realtime_sep.types import Float32

#: Most stems and buses that the shared records have room for.
MAX_STEMS = 8
#: Most parameters of effects that can be turned live.  Each slot of a chain has its own cells among
#: them; those of slots that are gone are used again last, so nobody writes to them any more then.
MAX_TURNS = 1024
#: Most signals in a tap ring: the stems, the input, the mix bus, the microphone, the monitor.
MAX_TAPPED = MAX_STEMS + 4
#: Worker times are counted in buckets that grow by 2**(1/8): 9 % steps from 1 us to 4 s.
BUCKET_EDGES = 1e-6 * 2.0 ** (np.arange(1, 177) / 8)
#: Peak meters fall by 20 dB a second, as people are used to.
_METER_FALL = 20.0

COUNTERS = np.dtype(
    [
        ("hops", "u8"),
        ("skipped_hops", "u8"),
        ("epoch", "u8"),
        ("bad_hops", "u8"),
        ("failed_effects", "u8"),
        ("bad_input", "u8"),
        ("limited_hops", "u8"),
        ("tap_overflow", "u8"),
        ("cpu_ns", "u8"),
        ("max_ns", "u8"),
        ("loudness", "f4"),
        ("microphone_peak", "f4"),
        ("microphone_gaps", "u8"),
        ("microphone_ppm", "f4"),
        ("monitor_peak", "f4"),
        ("monitor_gaps", "u8"),
        ("monitor_ppm", "f4"),
        ("realtime", "?"),
        ("peaks", "f4", (2 + MAX_STEMS,)),
        ("busy", "u8", (len(BUCKET_EDGES),)),
    ]
)

CONTROLS = np.dtype(
    [
        ("gains", "f4", (MAX_STEMS,)),  # linear, one per stem
        ("wet", "f4"),  # part of the separated mix, 0..1
        ("bypass", "?"),
        ("master", "f4"),  # linear
        ("microphone", "f4"),  # linear, of the microphone in the mix,
        ("microphone_gain", "f4"),  # and before its effects
        ("monitor", "f4", (MAX_STEMS + 2,)),  # linear, of the stems, the original, the microphone
        ("turned", "u8"),  # how often any parameter of an effect was
        ("turns", "f4", (MAX_TURNS,)),  # where those stand, by cell,
        ("times", "u4", (MAX_TURNS,)),  # and how often each was turned; 0: it is as it was made
        ("dry", "f4"),  # linear gain of what late blocks fade to
        ("tap", "?"),  # whether anybody reads the stems
    ]
)


def write_tag(row: Float32, start: int, latency: int) -> None:
    """Put a frame number and a latency into the row that precedes a hop in the tap ring."""
    row[:2].view(np.int64)[0] = start
    row[2] = latency


def read_tag(row: Float32) -> tuple[int, int]:
    """The frame number and the latency that `write_tag` put there."""
    return int(row[:2].view(np.int64)[0]), int(row[2])


def cells(slot: Slot) -> slice:
    """Where the parameters of a slot's effect are among the turns."""
    return slice(slot.cell, slot.cell + len(slot.parameters)) if slot.cell >= 0 else slice(0)


def tap_width(engine: Engine) -> int:
    """Channels of a tap ring: the stems, the input, the mix bus; microphone and monitor, if any."""
    beside = (engine.sung is not None) + (engine.monitor is not None)
    return (len(engine.stem_names) + 2 + beside) * engine.channels


class Worker:
    """Runs `engine` between two rings in a thread of its own.

    Args:
        rings: input (`engine.channels` wide) and output (`engine.out_channels` wide).
        tap: `tap_width(engine)` wide: every stem, the mix aligned with them, the mix bus, and where
            they are, the microphone and the monitor bus, for whoever listens; each hop is preceded
            by a row that carries its place in the input (`read_tag`).
        microphone, monitor: the feeds of second devices.
        spread: for each channel of the engine, which column of the input ring is the microphone,
            where it has no feed; the first columns are the music.
        patient: wait for a slow listener of the tap (no clock is pressing) instead of dropping.
        priority: real-time priority to ask for; 0 asks for none.
    """

    def __init__(
        self,
        engine: Engine,
        rings: tuple[Ring, Ring],
        bridge: Bridge,
        wake: Wake,
        counters: SharedRecord,
        controls: SharedRecord,
        *,
        tap: Ring | None = None,
        microphone: MicrophoneFeed | None = None,
        monitor: MonitorFeed | None = None,
        spread: tuple[int, ...] = (),
        patient: bool = False,
        priority: int = 0,
    ) -> None:
        self._engine = engine
        self._in, self._out = rings
        self._bridge = bridge
        self._wake = wake
        self._counters = counters
        self._controls = controls
        self._tap = tap
        self._microphone, self._monitor, self._spread = microphone, monitor, spread
        self._music: Float32 = np.zeros((engine.hop, engine.channels), np.float32)
        self._turned = 0
        self._times = np.zeros(MAX_TURNS, np.uint32)
        self._patient = patient
        self._priority = priority
        self._fall = np.float32(10 ** (-_METER_FALL / 20 * engine.hop / engine.samplerate))
        self._next: Strand | None = None
        self._change: Change | None = None
        self._taken_over = (engine.switches, engine.edits)
        self._skipping = False
        self._stop = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="realtime_sep worker", daemon=True)

    def warm_up(self, hops: int = 8) -> None:
        """Compile, load and touch everything that a hop needs, then forget it."""
        engine = self._engine
        rng = np.random.default_rng(0)
        out = np.empty((engine.hop, engine.out_channels), np.float32)
        for _ in range(hops):
            noise = rng.uniform(-0.1, 0.1, (engine.hop, engine.channels)).astype(np.float32)
            engine.process(noise, out)
        engine.bad_hops = engine.bad_input = engine.limited_hops = 0
        self._apply_controls()
        engine.reset()

    def switch(self, strand: Strand) -> None:
        """Let another separator take over, from another thread; one at a time (see `switching`)."""
        self._next = strand

    @property
    def switching(self) -> bool:
        """Whether the last switch is still under way."""
        return self._next is not None or self._engine.switching

    def edit(self, change: Change) -> None:
        """Let a chain change, from another thread; one at a time (see `editing`)."""
        self._change = change

    @property
    def editing(self) -> bool:
        """Whether the last change is still under way."""
        return self._change is not None or self._engine.editing

    def start(self) -> None:
        """Begin; call `warm_up` first."""
        self._thread.start()

    def stop(self) -> None:
        """End after the hop in work; raises what ended the thread, if something did."""
        self._stop = True
        self._wake.post()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def failure(self) -> BaseException | None:
        """What ended the thread, if it ended by itself."""
        return self._failure

    def _run(self) -> None:
        native.flush_denormals()
        realtime = self._priority > 0 and native.set_realtime(self._priority) is None
        with self._counters.writing() as fields:
            fields["realtime"] = realtime
        try:
            while not self._stop:
                self._wake.wait(0.1)
                while not self._stop and self._work():
                    pass
        except BaseException as error:  # reported by whoever watches; there is nobody above
            self._failure = error

    def _work(self) -> bool:
        """One hop, if there is one."""
        engine, hop = self._engine, self._engine.hop
        source = self._in.claim_read(hop)
        if source is None:
            return False
        target = self._out.claim_write(hop)
        if target is None:  # cannot be: the output ring holds all that the input ring can owe
            time.sleep(1e-3)
            return False
        begin, cpu = native.now(), native.thread_cpu()
        self._apply_controls()
        if self._next is not None:
            engine.switch(self._next)
            self._next = None
        if self._change is not None:
            self._begin(self._change)
            self._change = None
        moment = self._moment()
        source = self._listen(source, moment)
        lag = self._bridge.debt + self._out.consumed - self._out.written
        # Output of hops that come later than this would be dropped whole, and everything that the
        # engine still remembers from before a gap with it: skipping them is the way to catch up.
        skip = lag >= engine.latency + 2 * hop
        if skip:
            target[:] = 0
            if engine.monitor is not None:
                engine.monitor[:] = 0
        else:
            engine.process(source, target)
            if self._taken_over != (engine.switches, engine.edits):
                self._taken_over = engine.switches, engine.edits
                self._bridge.set_latency(engine.latency + self._bridge.config.prefill)
        if self._monitor is not None and engine.monitor is not None and moment is not None:
            self._monitor.give(moment, engine.monitor)
        if self._tap and self._controls.fields["tap"] and not skip:
            self._write_tap()
        else:
            engine.tap_delay.reset()
        # Output first: an input ring with less than a hop then means that all output is there.
        self._out.commit_write(hop)
        self._in.commit_read(hop)
        self._count(skip, native.now() - begin, native.thread_cpu() - cpu)
        return True

    def _moment(self) -> Moment | None:
        """Where the device is now; only second devices want to know."""
        if self._microphone is None and self._monitor is None:
            return None
        mark = self._bridge.mark()
        return None if mark is None else Moment(*mark, self._in.consumed)

    def _listen(self, source: Float32, moment: Moment | None) -> Float32:
        """Fill the engine's microphone; what is the music of the source."""
        microphone, spread = self._engine.microphone, self._spread
        if microphone is None:
            return source
        if self._microphone is None:
            for channel, column in enumerate(spread):
                microphone[:, channel] = source[:, column]
            np.copyto(self._music, source[:, : self._engine.channels])
            return self._music
        if moment is None:
            microphone[:] = 0
        else:
            self._microphone.take(moment, microphone)
        return source

    def _apply_controls(self) -> None:
        controls = self._controls.fields
        stems = tuple(controls["gains"][: len(self._engine.stem_names)].tolist())
        wet, master = float(controls["wet"]), float(controls["master"])
        gains = Gains(stems, wet, bool(controls["bypass"]), master)
        if self._engine.microphone is not None or self._engine.monitor is not None:
            ears = controls["monitor"][: len(stems) + 2]
            gains = replace(
                gains,
                microphone=float(controls["microphone"]),
                microphone_gain=float(controls["microphone_gain"]),
                monitor=tuple(ears.tolist()),
            )
        self._engine.steer(gains)
        self._bridge.set_dry(float(controls["dry"]))
        if controls["turned"] != self._turned:
            self._turned = int(controls["turned"])
            self._turn(controls["turns"], controls["times"])

    def _turn(self, turns: Float32, times: npt.NDArray[np.uint32]) -> None:
        """Pass on what has been turned since the last time."""
        changed = times != self._times
        for chain in self._engine.chains.values():
            for slot in chain.slots:
                for i in np.flatnonzero(changed[cells(slot)]):
                    slot.turn(slot.parameters[i].name, float(turns[slot.cell + i]))
        np.copyto(self._times, times)

    def _begin(self, change: Change) -> None:
        """What is new in a chain stands as it was made, whoever had its cells before."""
        times = self._controls.fields["times"]
        for slot in change.edit.entering:
            if slot.fresh:
                self._times[cells(slot)] = times[cells(slot)]
        self._engine.edit(change)

    def _write_tap(self) -> None:
        assert self._tap is not None
        engine, channels = self._engine, self._engine.channels
        target = self._tap.claim_write(engine.hop + 1)
        while target is None and self._patient and self._controls.fields["tap"] and not self._stop:
            time.sleep(1e-3)
            target = self._tap.claim_write(engine.hop + 1)
        if target is None:
            with self._counters.writing() as fields:
                fields["tap_overflow"] += engine.hop
            return
        write_tag(target[0], self._in.consumed - engine.latency, engine.latency)
        end = 0
        for sound in (*engine.stems, engine.dry, engine.mix, engine.sung, engine.monitor):
            if sound is not None:
                begin, end = end, end + channels
                target[1:, begin:end] = sound
        early = target[1:, : (len(engine.stem_names) + 1) * channels]
        engine.tap_delay.process(early, early)  # as late as the mix bus
        self._tap.commit_write(engine.hop + 1)

    def _count(self, skip: bool, busy: int, cpu: int) -> None:
        engine = self._engine
        with self._counters.writing() as fields:
            fields["hops"] += 1
            if skip:
                fields["skipped_hops"] += 1
                fields["epoch"] += not self._skipping
            self._skipping = skip
            fields["bad_hops"] = engine.bad_hops
            fields["failed_effects"] = engine.failed_effects
            fields["bad_input"] = engine.bad_input
            fields["limited_hops"] = engine.limited_hops
            fields["cpu_ns"] += cpu
            fields["max_ns"] = max(int(fields["max_ns"]), busy)
            fields["loudness"] = engine.loudness.value
            self._count_beside(fields)
            peaks = fields["peaks"][: len(engine.peaks)]
            np.maximum(engine.peaks, peaks * self._fall, out=peaks)
            bucket = min(int(np.searchsorted(BUCKET_EDGES, busy * 1e-9)), len(BUCKET_EDGES) - 1)
            fields["busy"][bucket] += 1

    def _count_beside(self, fields: Any) -> None:
        engine = self._engine
        for name, sound, peak, feed in (
            ("microphone", engine.microphone, engine.microphone_peak, self._microphone),
            ("monitor", engine.monitor, engine.monitor_peak, self._monitor),
        ):
            if sound is not None:
                fell = fields[f"{name}_peak"] * self._fall
                fields[f"{name}_peak"] = max(np.float32(peak), fell)
            if feed is not None:
                fields[f"{name}_gaps"] = feed.gaps
                fields[f"{name}_ppm"] = 1e6 * feed.drift
