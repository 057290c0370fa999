"""The engine: a hop of the mix enters, a hop of every output bus leaves.

It knows no device, no thread and no clock, and is deterministic: equal hops give equal samples,
live or offline.  Signal flow of one hop:

    input ▶ sanitise ▶ separator ▶ guard ▶ faders ▶ effects ▶ limiter ▶ "mix" bus
                  └─▶ delay (dry) ───┘ └──▶ delay ────────────────────▶ stem buses
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realtime_sep.dsp.delay import Delay
from realtime_sep.dsp.faders import Faders
from realtime_sep.dsp.guard import StemGuard, sanitise
from realtime_sep.dsp.limiter import Limiter
from realtime_sep.dsp.meters import Loudness, peak
from realtime_sep.effects import Effect
from realtime_sep.errors import UsageError, unknown
from realtime_sep.separators import Separator
from realtime_sep.types import Float32

MIX = "mix"


class Engine:
    """Runs one separator and what comes after it.

    Args:
        separator: fresh, for this engine alone.
        outputs: buses in the order in which their channels leave: "mix" or stem names.
        effects: run in this order on the mix bus; not yet prepared.
        limiter: hold -1 dBFS on the mix bus.

    Attributes:
        hop: frames per call of `process`.
        channels: of the input and of every bus.
        latency: frames by which every bus lags the input.
        stems: `(stems, hop, channels)`, of the last hop, `separator.info.latency` late.
        faders: their `targets` may be written at any time.
        bad_hops, bad_input, limited_hops: counters of what was mended.
        peaks: linear, of the last hop: input, then each stem, then the mix bus.
    """

    def __init__(
        self,
        separator: Separator,
        *,
        outputs: Sequence[str] = (MIX,),
        effects: Sequence[Effect] = (),
        limiter: bool = True,
    ) -> None:
        info = separator.info
        known = (MIX, *info.stems)
        for name in outputs:
            if name not in known:
                raise unknown("output", name, known)
        if not outputs:
            raise UsageError("an engine needs at least one output")
        if not info.stems or info.hop < 1 or info.channels < 1 or info.latency < 0:
            raise UsageError(f"{info.name!r} says of itself what cannot be: {info}")
        self.separator = separator
        self.outputs = tuple(outputs)
        self.effects = tuple(effects)
        self.hop, self.channels = info.hop, info.channels
        self.stems: Float32 = np.zeros((len(info.stems), self.hop, self.channels), np.float32)
        self.dry: Float32 = np.zeros((self.hop, self.channels), np.float32)
        self.faders = Faders(len(info.stems), info.samplerate)
        self.bad_hops = self.bad_input = self.limited_hops = 0
        self.peaks: Float32 = np.zeros(2 + len(info.stems), np.float32)

        self._input: Float32 = np.zeros((self.hop, self.channels), np.float32)
        self._mix: Float32 = np.zeros((self.hop, self.channels), np.float32)
        self._dry_delay = Delay(info.latency, self.channels)
        self._guard = StemGuard(len(info.stems), self.channels, info.samplerate, info.latency)
        for effect in self.effects:
            effect.prepare(info.samplerate, self.channels, self.hop)
        self._limiter = Limiter(info.samplerate, self.channels) if limiter else None
        self.effects_latency = sum(effect.latency for effect in self.effects)
        self.limiter_latency = self._limiter.latency if self._limiter else 0
        self.latency = info.latency + self.effects_latency + self.limiter_latency
        self._buses = [
            (
                slice(i * self.channels, (i + 1) * self.channels),
                None if name == MIX else info.stems.index(name),
                Delay(self.effects_latency + self.limiter_latency, self.channels),
            )
            for i, name in enumerate(self.outputs)
        ]
        self._out_shape = (self.hop, self.channels * len(self.outputs))
        self.loudness = Loudness(info.samplerate, self.channels, self.hop)

    @property
    def out_channels(self) -> int:
        """Channels of all buses side by side."""
        return self._out_shape[1]

    def reset(self) -> None:
        """Forget the past; faders and effect parameters stay where they are."""
        self.separator.reset()
        self._guard.reset()
        self._dry_delay.reset()
        for effect in self.effects:
            effect.reset()
        if self._limiter:
            self._limiter.reset()
        for _, _, delay in self._buses:
            delay.reset()
        self.faders.settle()
        self.loudness.reset()

    def process(self, hop: Float32, out: Float32) -> None:
        """Take `(hop, channels)` of the mix, fill `out` `(hop, out_channels)`.

        The input may hold anything; the output is finite, and the mix bus at most -1 dBFS (with the
        limiter on).

        Raises:
            UsageError: arrays of another shape.
        """
        stems, peaks = self.stems, self.peaks
        if hop.shape != self._input.shape or out.shape != self._out_shape:
            raise UsageError(
                f"a hop is {self._input.shape} in and {self._out_shape} out, "
                f"not {hop.shape} and {out.shape}"
            )
        bad, input_peak = sanitise(hop, self._input)
        self.bad_input += bad
        peaks[0] = input_peak

        self._dry_delay.process(self._input, self.dry)
        self.separator.process(self._input, stems)
        if self._guard.process(stems, self.dry, input_peak):
            self.bad_hops += 1
            self.separator.reset()  # a state that made NaN will make more of it
        for s in range(len(stems)):
            peaks[1 + s] = peak(stems[s])

        mix = self._mix
        self.faders.process(stems, mix)
        for effect in self.effects:
            effect.process(mix)
        if self._limiter:
            reduced, bad = self._limiter.process(mix)
            self.limited_hops += reduced
        else:
            bad, _ = sanitise(mix, mix)
        if bad:
            self.bad_hops += 1
            for effect in self.effects:
                effect.reset()
        peaks[-1] = peak(mix)
        self.loudness.process(mix)

        for columns, stem, delay in self._buses:
            if stem is None:
                out[:, columns] = mix
            else:
                delay.process(stems[stem], out[:, columns])
