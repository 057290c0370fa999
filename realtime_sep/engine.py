"""The engine: a hop of the mix enters, a hop of every output bus leaves.

It knows no device, no thread and no clock, and is deterministic: equal hops give equal samples,
live or offline.  Signal flow of one hop:

    input ▶ sanitise ▶ strand ▶ chain and delay of each stem ▶ faders ▶ mix chain ▶ ends ▶ limiter
                                    │                  └── dry ──┘ └──▶ delay ──────┘        │
                                    └────▶ delay ──▶ stem buses                         "mix" bus

A microphone joins behind all that (`microphone` ▶ gain ▶ its chain ▶ fader), just before the
limiter: it waits for no separator, and a key change does not move who sings along.  A monitor bus
has faders of its own for the stems, the original and the microphone, a chain and a limiter, and is
as late as the mix, so that the ear and the hall hear the same beat.

A strand is a separator, its guard, and the dry signal aligned with it.  A switch runs the next
strand beside the current one until it knows the music, and crossfades; nothing else notices.

Chains of effects are at the stems, after the separator and before the faders, and on the mix, after
them.  Every signal is delayed so that all that meet are in time, whatever the latency of a chain;
the delays change with the chains, by the same fade.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from realtime_sep.dsp.delay import Delay, ShiftingDelay
from realtime_sep.dsp.faders import Faders, crossfade
from realtime_sep.dsp.guard import StemGuard, sanitise
from realtime_sep.dsp.limiter import Limiter
from realtime_sep.dsp.meters import Loudness, peak
from realtime_sep.effects import Effect
from realtime_sep.effects.chain import Chain, Edit, Slot
from realtime_sep.effects.slot import FADE
from realtime_sep.errors import UsageError, unknown
from realtime_sep.parameters import MICROPHONE, MONITOR, Gains
from realtime_sep.separators import Separator
from realtime_sep.separators.adapted import adapted
from realtime_sep.types import Float32

MIX = "mix"
#: Seconds in which one separator takes over from another.
CROSSFADE = 0.03
#: Seconds that the next separator listens, beyond its latency, before it is heard: networks and
#: statistics begin with nothing.
LISTENING = 0.5


class Strand:
    """A separator, its guard, and the dry signal beside it.

    Attributes:
        sound: `(stems + 1, hop, channels)`, of the last hop: the stems, then the mix aligned with
            them.
        key: whatever its owner knows it by.
    """

    def __init__(self, separator: Separator, key: object = None) -> None:
        info = separator.info
        self.key = key
        self.separator = separator
        self.sound: Float32 = np.zeros((len(info.stems) + 1, info.hop, info.channels), np.float32)
        self._delay = Delay(info.latency, info.channels)
        self._guard = StemGuard(len(info.stems), info.channels, info.samplerate, info.latency)

    def reset(self) -> None:
        """Forget the past."""
        self.separator.reset()
        self._delay.reset()
        self._guard.reset()

    def process(self, hop: Float32, input_peak: float) -> bool:
        """Separate a sanitised hop; whether the separator failed at it."""
        stems, dry = self.sound[:-1], self.sound[-1]
        self._delay.process(hop, dry)
        self.separator.process(hop, stems)
        bad = self._guard.process(stems, dry, input_peak)
        if bad:
            self.separator.reset()  # a state that made NaN will make more of it
        return bad

    def warm_up(self, hops: int = 8) -> None:
        """Compile, load and touch everything that a hop needs, then forget it."""
        info = self.separator.info
        rng = np.random.default_rng(0)
        for _ in range(hops):
            noise = rng.uniform(-0.1, 0.1, (info.hop, info.channels)).astype(np.float32)
            self.process(noise, 0.1)
        self.reset()

    def close(self) -> None:
        """Let go of what the separator holds."""
        if (close := getattr(self.separator, "close", None)) is not None:
            close()


@dataclass(frozen=True)
class _Latencies:
    """Frames by which chains delay: each stem's, the mix's, and the monitor's."""

    each: tuple[int, ...]
    mix: int
    monitor: int

    @property
    def stems(self) -> int:
        """By which all stems are late, so that they are in time with each other."""
        return max(self.each)


@dataclass(frozen=True, eq=False)
class Change:
    """A change of one chain, and of every delay that is to keep in time with it."""

    edit: Edit
    delays: tuple[tuple[ShiftingDelay, Delay], ...]

    @property
    def listening(self) -> int:
        """Frames until everything has heard enough to be faded to."""
        return max((self.edit.listening, *(other.frames for _, other in self.delays)))


class Engine:
    """Runs one separator and what comes after it.

    Args:
        separator: fresh, for this engine alone.
        outputs: buses in the order in which their channels leave: "mix", "monitor" or stem names.
        chains: of effects, by place: a stem's name or "mix"; not yet prepared.
        effects: short for a chain on the mix.
        limiter: hold -1 dBFS on the mix bus, and on the monitor's.
        microphone: whether there is one.
        monitor: whether there is that bus, beyond its being among the outputs.
        key: of the first strand.

    Attributes:
        microphone: `(hop, channels)`, to be filled before `process`; None: there is none.
        monitor: `(hop, channels)`, that bus of the last hop, as late as `mix`; None: there is none.
        sung: `(hop, channels)`, the microphone of the last hop after its chain, before its fader,
            as late as it is in the mix; None: there is none.
        microphone_peak, monitor_peak: linear, of the last hop: the one before its fader, the other
            as it leaves.
        hop: frames per call of `process`.
        channels: of the input and of every bus.
        mix: `(hop, channels)`, the mix bus of the last hop, `latency` late.
        faders: their `targets`, one per stem and one for the dry signal, may be written at any
            time; `steer` does it.
        chains: of every place; empty where there is nothing.
        bad_hops, bad_input, limited_hops: counters of what was mended.
        switches: how often another separator has taken over.
        edits: how often a chain has changed.
        retired: strands that are no longer heard, for somebody to close outside the hot path.
        tap_delay: makes stems and dry signal, side by side, as late as the mix bus.
        peaks: linear, of the last hop: input, then each stem, then the mix bus.
    """

    def __init__(
        self,
        separator: Separator,
        *,
        outputs: Sequence[str] = (MIX,),
        effects: Sequence[Effect] = (),
        chains: Mapping[str, Chain] | None = None,
        limiter: bool = True,
        microphone: bool = False,
        monitor: bool = False,
        key: object = None,
    ) -> None:
        info = separator.info
        known = (MIX, MONITOR, *info.stems)
        for name in outputs:
            if name not in known:
                raise unknown("output", name, known)
        if not outputs:
            raise UsageError("an engine needs at least one output")
        if not info.stems or info.hop < 1 or info.channels < 1 or info.latency < 0:
            raise UsageError(f"{info.name!r} says of itself what cannot be: {info}")
        self.outputs = tuple(outputs)
        self.hop, self.channels, self.samplerate = info.hop, info.channels, info.samplerate
        self.stem_names = info.stems
        self.bad_hops = self.bad_input = self.limited_hops = 0
        self.microphone_peak = self.monitor_peak = 0.0
        self.peaks: Float32 = np.zeros(2 + len(info.stems), np.float32)

        self._strand = Strand(separator, key)
        self._sound = self._strand.sound
        self._next: Strand | None = None
        self._crossed = 0
        self._crossfade = max(1, round(CROSSFADE * info.samplerate))
        self.switches = 0
        self.retired: deque[Strand] = deque()

        self.faders = Faders(len(info.stems) + 1, info.samplerate)
        self.faders.targets[-1] = 0
        # Of the effects' output, of the dry signal, and of the microphone.
        self._last = Faders(2 + microphone, info.samplerate)
        self._last.targets[:2] = 1, 0
        self._gain = Faders(1, info.samplerate)  # of the microphone, before its chain
        self._ear = Faders(len(info.stems) + 1, info.samplerate)  # the same as `faders`
        self._ears = Faders(2, info.samplerate)  # of that, and of the microphone

        self._input: Float32 = np.zeros((self.hop, self.channels), np.float32)
        self._ends: Float32 = np.zeros((2 + microphone, self.hop, self.channels), np.float32)
        self.mix: Float32 = np.zeros((self.hop, self.channels), np.float32)
        self._limiter = Limiter(info.samplerate, self.channels) if limiter else None
        self.limiter_latency = self._limiter.latency if self._limiter else 0
        self.microphone: Float32 | None = np.zeros_like(self.mix) if microphone else None
        self._heard: Float32 = np.zeros((1, self.hop, self.channels), np.float32)
        self.sung: Float32 | None = np.zeros_like(self.mix) if microphone else None
        self._sung_delay = Delay(self.limiter_latency, self.channels)
        monitor = monitor or MONITOR in outputs
        self.monitor: Float32 | None = np.zeros_like(self.mix) if monitor else None
        self._monitor_limiter = Limiter(info.samplerate, self.channels) if limiter else None
        self._ear_ends: Float32 = np.zeros((2, self.hop, self.channels), np.float32)
        self._settle()

        self.chains = self._make_chains(chains or {}, effects)
        self.edits = 0
        self._change: Change | None = None
        self._faded = 0  # frames of the fade that are done; negative: yet to be listened to
        self._fade = round(FADE * info.samplerate)
        latencies = self._latencies()
        self._stem_delays = [self._delay(latencies.stems - n) for n in latencies.each]
        self._dry_delay = self._delay(latencies.stems)
        self._bypass_delay = self._delay(latencies.mix)
        self._ear_delay = self._delay(max(0, latencies.mix - latencies.monitor))
        self._late_delays: list[ShiftingDelay] = []
        self._buses = [
            (
                slice(i * self.channels, (i + 1) * self.channels),
                info.stems.index(name),
                self._late_delay(self.channels),
            )
            for i, name in enumerate(self.outputs)
            if name in info.stems
        ]
        self._finished = [
            (slice(i * self.channels, (i + 1) * self.channels), bus)
            for i, name in enumerate(self.outputs)
            if (bus := {MIX: self.mix, MONITOR: self.monitor}.get(name)) is not None
        ]
        self.tap_delay = self._late_delay((len(info.stems) + 1) * self.channels)
        self._out_shape = (self.hop, self.channels * len(self.outputs))
        self.loudness = Loudness(info.samplerate, self.channels, self.hop)

    @property
    def separator(self) -> Separator:
        """The one that is heard."""
        return self._strand.separator

    @property
    def effects_latency(self) -> int:
        """Frames by which the chains make every bus later."""
        latencies = self._latencies()
        return latencies.stems + latencies.mix

    @property
    def latency(self) -> int:
        """Frames by which every bus lags the input."""
        return self.separator.info.latency + self.effects_latency + self.limiter_latency

    @property
    def microphone_latency(self) -> int:
        """Frames from `microphone` to the buses."""
        chain = self.chains.get(MICROPHONE)
        return (chain.latency if chain else 0) + self.limiter_latency

    @property
    def monitor_latency(self) -> int:
        """Frames by which the monitor's bus lags the input: as `latency`, unless its chain is
        later than the mix's."""
        latencies = self._latencies()
        return self.latency + max(0, latencies.monitor - latencies.mix)

    @property
    def stems(self) -> Float32:
        """`(stems, hop, channels)`, of the last hop, after their chains; all equally late."""
        return self._sound[:-1]

    @property
    def dry(self) -> Float32:
        """`(hop, channels)`: the mix of the last hop, aligned with the stems."""
        dry: Float32 = self._sound[-1]
        return dry

    @property
    def out_channels(self) -> int:
        """Channels of all buses side by side."""
        return self._out_shape[1]

    def steer(self, gains: Gains) -> None:
        """Move everything that can be moved, smoothly, to where it is to be."""
        count = len(self.stem_names)
        targets, last = self.faders.targets, self._last.targets
        for s in range(count):
            targets[s] = gains.wet * gains.stems[s]
        targets[count] = 1 - gains.wet
        last[0] = 0 if gains.bypass else gains.master
        last[1] = gains.master if gains.bypass else 0
        if self.microphone is not None:
            last[2] = gains.microphone
            self._gain.targets[0] = gains.microphone_gain
        if self.monitor is not None and gains.monitor:
            self._ear.targets[:] = gains.monitor[:-1]
            self._ears.targets[1] = gains.monitor[-1]

    def _settle(self) -> None:
        for faders in (self.faders, self._last, self._gain, self._ear, self._ears):
            faders.settle()

    def reset(self) -> None:
        """Forget the past; faders and effect parameters stay where they are."""
        self._strand.reset()
        for chain in self.chains.values():
            chain.reset()
        for limiter in (self._limiter, self._monitor_limiter):
            if limiter:
                limiter.reset()
        for delay, _ in self._alignment(self._latencies()):
            delay.reset()
        self._sung_delay.reset()
        self._settle()
        self.loudness.reset()

    def close(self) -> None:
        """Let go of what separators and effects hold."""
        for strand in (self._strand, self._next):
            if strand is not None:
                strand.close()
        for chain in self.chains.values():
            chain.close()

    # ---- another separator

    @property
    def key(self) -> object:
        """Of the strand that is heard."""
        return self._strand.key

    def strand(self, separator: Separator, key: object = None) -> Strand:
        """Make what `switch` wants, in any thread: this takes its time, and memory.

        Raises:
            UsageError: it runs at another rate or with other channels.
        """
        info = separator.info
        if (info.samplerate, info.channels) != (self.samplerate, self.channels):
            raise UsageError(
                f"{info.name!r} runs at {info.samplerate} Hz with {info.channels} channels, this "
                f"stream at {self.samplerate} Hz with {self.channels}"
            )
        strand = Strand(adapted(separator, self.hop, self.stem_names), key)
        strand.warm_up()
        return strand

    @property
    def switching(self) -> bool:
        """Whether another separator is on its way in."""
        return self._next is not None

    def switch(self, strand: Strand) -> None:
        """From the next hop on let `strand` listen, and then take over; between two hops only."""
        if self._next is not None:
            raise UsageError("one switch at a time")
        info = strand.separator.info
        listening = ceil((info.latency + LISTENING * info.samplerate) / self.hop)
        self._crossed = -listening * self.hop
        self._next = strand

    def _run_next(self, strand: Strand, input_peak: float) -> None:
        self.bad_hops += strand.process(self._input, input_peak)
        if self._crossed >= 0:
            crossfade(self._sound, strand.sound, self._crossed, self._crossfade)
        self._crossed += self.hop
        if self._crossed >= self._crossfade:
            self.retired.append(self._strand)
            self._strand, self._next = strand, None
            self.switches += 1

    # ---- chains

    def _make_chains(
        self, given: Mapping[str, Chain], effects: Sequence[Effect]
    ) -> dict[str, Chain]:
        """A prepared chain for every place.

        To put chains at another place: name it in `places`, let its signal pass through
        `self.chains[name].process` somewhere in `process`, and, if what meets it there is to be in
        time with it, give that a delay (`_delay`) and an entry in `_alignment`.  All the rest,
        changes while it plays, parameters, presets, follows from the name.
        """
        chains = {place: given.get(place) or Chain() for place in self.places}
        for place in given:
            if place not in chains:
                raise unknown("place of a chain", place, chains)
        if effects:
            if chains[MIX].slots:
                raise UsageError("give effects or a chain on the mix, not both")
            chains[MIX] = Chain.of(effects)
        for chain in chains.values():
            chain.prepare(self.samplerate, self.channels, self.hop)
        return chains

    @property
    def places(self) -> tuple[str, ...]:
        """Where chains are."""
        beside = {MICROPHONE: self.microphone, MONITOR: self.monitor}
        return (*self.stem_names, MIX, *(p for p, sound in beside.items() if sound is not None))

    @property
    def failed_effects(self) -> int:
        """How many effects were taken out."""
        return sum(chain.failures for chain in self.chains.values())

    def _latencies(self, edit: Edit | None = None) -> _Latencies:
        """Of the chains, as they are or will be."""

        def of(place: str) -> int:
            chain = self.chains.get(place)
            if chain is None:
                return 0
            return edit.latency if edit is not None and edit.chain is chain else chain.latency

        return _Latencies(tuple(map(of, self.stem_names)), of(MIX), of(MONITOR))

    def _alignment(self, latencies: _Latencies) -> list[tuple[ShiftingDelay, int]]:
        """Every delay that depends on the chains, and how many frames it is to delay by."""
        late = latencies.mix + self.limiter_latency
        return [
            *(
                (d, latencies.stems - n)
                for d, n in zip(self._stem_delays, latencies.each, strict=True)
            ),
            (self._dry_delay, latencies.stems),
            (self._bypass_delay, latencies.mix),
            (self._ear_delay, max(0, latencies.mix - latencies.monitor)),
            *((d, late) for d in self._late_delays),
        ]

    def _delay(self, frames: int, channels: int | None = None) -> ShiftingDelay:
        return ShiftingDelay(frames, channels or self.channels, self.hop, self._fade)

    def _late_delay(self, channels: int) -> ShiftingDelay:
        """Makes what is as late as the stems as late as the mix bus, and keeps it so."""
        delay = self._delay(self._latencies().mix + self.limiter_latency, channels)
        self._late_delays.append(delay)
        return delay

    def change(self, place: str, after: Sequence[Slot], resting: Sequence[Slot] = ()) -> Change:
        """Make what `edit` wants, in any thread, one after another; see `Chain.edit`."""
        edit = self.chains[place].edit(after, resting)
        return Change(
            edit,
            tuple(
                (delay, delay.another(frames))
                for delay, frames in self._alignment(self._latencies(edit))
                if frames != delay.frames
            ),
        )

    @property
    def editing(self) -> bool:
        """Whether a chain is on its way to another one."""
        return self._change is not None

    def edit(self, change: Change) -> None:
        """From the next hop on change a chain; between two hops only."""
        if self._change is not None:
            raise UsageError("one change at a time")
        change.edit.begin()
        for delay, other in change.delays:
            delay.listen(other)
        self._change, self._faded = change, -max(1, change.listening)

    def _advance(self, change: Change) -> None:
        """A hop has passed."""
        if self._faded < 0:
            self._faded += self.hop
            if self._faded >= 0:
                self._faded = 0
                change.edit.fade()
                for delay, _ in change.delays:
                    delay.shift()
        else:
            self._faded += self.hop
            if self._faded > self._fade:
                change.edit.end()
                for delay, _ in change.delays:
                    delay.settle()
                self._change = None
                self.edits += 1

    # ---- the hop

    def process(self, hop: Float32, out: Float32) -> None:
        """Take `(hop, channels)` of the mix, fill `out` `(hop, out_channels)`.

        The input may hold anything; the output is finite, and the mix bus at most -1 dBFS (with the
        limiter on).

        Raises:
            UsageError: arrays of another shape.
        """
        if hop.shape != self._input.shape or out.shape != self._out_shape:
            raise UsageError(
                f"a hop is {self._input.shape} in and {self._out_shape} out, "
                f"not {hop.shape} and {out.shape}"
            )
        peaks, mix = self.peaks, self.mix
        bad, input_peak = sanitise(hop, self._input)
        self.bad_input += bad
        peaks[0] = input_peak

        self._sound = sound = self._strand.sound
        self.bad_hops += self._strand.process(self._input, input_peak)
        if self._next is not None:
            self._run_next(self._next, input_peak)
        for s, name in enumerate(self.stem_names):
            self.chains[name].process(sound[s])
            self._stem_delays[s].process(sound[s], sound[s])
            peaks[1 + s] = peak(sound[s])
        self._dry_delay.process(sound[-1], sound[-1])

        ends = self._ends
        self.faders.process(sound, ends[0])
        self.chains[MIX].process(ends[0])
        self._bypass_delay.process(sound[-1], ends[1])
        if self.microphone is not None and self.sung is not None:
            self._listen(self.microphone, ends[2])
            self._sung_delay.process(ends[2], self.sung)
        self._last.process(ends, mix)
        if self._limiter:
            reduced, bad = self._limiter.process(mix)
            self.limited_hops += reduced
        else:
            bad, _ = sanitise(mix, mix)
        self.bad_hops += bool(bad)
        peaks[-1] = peak(mix)
        self.loudness.process(mix)

        if self.monitor is not None:
            self._whisper(sound, self.monitor)
        for columns, bus in self._finished:
            out[:, columns] = bus
        for columns, stem, delay in self._buses:
            delay.process(sound[stem], out[:, columns])
        if self._change is not None:
            self._advance(self._change)

    def _listen(self, microphone: Float32, out: Float32) -> None:
        """The microphone through its gain and its chain."""
        bad, _ = sanitise(microphone, self._heard[0])
        self.bad_input += bad
        self._gain.process(self._heard, out)
        self.chains[MICROPHONE].process(out)
        self.microphone_peak = peak(out)

    def _whisper(self, sound: Float32, monitor: Float32) -> None:
        """What the ear is to hear."""
        ends = self._ear_ends
        self._ear.process(sound, ends[0])
        self.chains[MONITOR].process(ends[0])
        self._ear_delay.process(ends[0], ends[0])
        if self.microphone is not None:
            ends[1] = self._ends[2]
        self._ears.process(ends, monitor)
        if self._monitor_limiter:
            self._monitor_limiter.process(monitor)
        else:
            sanitise(monitor, monitor)
        self.monitor_peak = peak(monitor)
