"""Echo and reverb: the voice in a larger place than it is."""

from __future__ import annotations

import numpy as np
from numba import njit

from realtime_sep.effects.base import BaseEffect
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

_LONGEST_MS = 1000.0
#: Seconds in which another echo time is faded to: to glide there would change the pitch.
_FADE = 0.05


@njit(cache=True, nogil=True)
def _echo(block, line, place, old, new, weight, step, feedback, mix):  # type: ignore[no-untyped-def]
    """In place; returns `(place, weight)`: where to go on in `line`, and how far `new` has come."""
    frames = line.shape[0]
    for i in range(block.shape[0]):
        weight = min(weight + step, 1.0)
        for c in range(block.shape[1]):
            past = (1 - weight) * line[(place - old) % frames, c]
            past += weight * line[(place - new) % frames, c]
            x = block[i, c]
            line[place, c] = x + feedback * past
            block[i, c] = x + mix * past
        place = (place + 1) % frames
    return place, weight


class Echo(BaseEffect):
    """Repeats, each softer than the one before."""

    name = "echo"
    parameters = (
        Parameter("time", 280.0, 20.0, _LONGEST_MS, "ms", label="Echo: time"),
        Parameter("feedback", 0.3, 0.0, 0.9, "", label="Echo: repeats"),
        Parameter("mix", 0.25, 0.0, 1.0, "", label="Echo"),
    )

    def allocate(self, channels: int, max_frames: int) -> None:
        frames = round(1e-3 * _LONGEST_MS * self.samplerate) + 1
        self._line: Float32 = np.zeros((frames, channels), np.float32)

    def reset(self) -> None:
        super().reset()
        self._line[:] = 0
        self._place, self._weight = 0, 1.0
        self._old = self._new = self._delay()

    def _delay(self) -> int:
        return max(1, round(1e-3 * self.targets["time"] * self.samplerate))

    def run(self, block: Float32) -> None:
        if self._weight >= 1.0 and self._delay() != self._new:
            self._old, self._new, self._weight = self._new, self._delay(), 0.0
        self._place, self._weight = _echo(
            block,
            self._line,
            self._place,
            self._old,
            self._new,
            self._weight,
            1 / (_FADE * self.samplerate),
            self.values["feedback"],
            self.values["mix"],
        )


#: Delays of parallel combs and of all-passes in series, in frames at 44.1 kHz, and how much longer
#: those of the right channel are: Freeverb's (Jezar, 2000, public domain).
COMBS = (1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617)
ALLPASSES = (556, 441, 341, 225)
SPREAD = 23
_ALLPASS_GAIN = 0.5
_INPUT_GAIN = 0.03


@njit(cache=True, nogil=True)
def _reverb(block, lines, lengths, places, damped, gains, damping, mix, combs):  # type: ignore[no-untyped-def]
    """In place; `lines` (channels, combs + all-passes, longest) are circular."""
    channels = block.shape[1]
    units = lengths.shape[1]
    for i in range(block.shape[0]):
        x = 0.0
        for c in range(channels):
            x += block[i, c]
        x *= _INPUT_GAIN / channels
        for c in range(channels):
            y = 0.0
            for u in range(combs):
                p = places[c, u]
                out = lines[c, u, p]
                damped[c, u] = out * (1 - damping) + damped[c, u] * damping
                lines[c, u, p] = x + gains[c, u] * damped[c, u]
                y += out
                places[c, u] = p + 1 if p + 1 < lengths[c, u] else 0
            for u in range(combs, units):
                p = places[c, u]
                past = lines[c, u, p]
                lines[c, u, p] = y + _ALLPASS_GAIN * past
                y = past - y
                places[c, u] = p + 1 if p + 1 < lengths[c, u] else 0
            block[i, c] += mix * y


class Reverb(BaseEffect):
    """A room: eight combs and four all-passes for each channel, after Schroeder and Moorer."""

    name = "reverb"
    parameters = (
        Parameter("decay", 1.6, 0.2, 8.0, "s", label="Reverb: decay"),
        Parameter("damping", 0.3, 0.0, 0.9, "", label="Reverb: damping"),
        Parameter("mix", 0.25, 0.0, 2.0, "", label="Reverb"),
    )

    def allocate(self, channels: int, max_frames: int) -> None:
        scale = self.samplerate / 44100
        delays = [*COMBS, *ALLPASSES]
        self._lengths = np.array(
            [[round(scale * (d + SPREAD * c)) for d in delays] for c in range(channels)]
        )
        self._lines = np.zeros((channels, len(delays), int(self._lengths.max())))
        self._places = np.zeros(self._lengths.shape, np.int64)
        self._damped = np.zeros((channels, len(COMBS)))

    def reset(self) -> None:
        super().reset()
        for array in (self._lines, self._places, self._damped):
            array[:] = 0
        self.tune()

    def tune(self) -> None:
        """Each comb falls by 60 dB in `decay` seconds."""
        lengths = self._lengths[:, : len(COMBS)]
        self._gains = 10 ** (-3 * lengths / (self.values["decay"] * self.samplerate))

    def run(self, block: Float32) -> None:
        _reverb(
            block,
            self._lines,
            self._lengths,
            self._places,
            self._damped,
            self._gains,
            self.values["damping"],
            self.values["mix"],
            len(COMBS),
        )
