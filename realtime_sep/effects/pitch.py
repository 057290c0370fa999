"""Key change: everything higher or lower, at the same speed.

A phase vocoder that moves peaks of the spectrum (Laroche and Dolson, "New phase-vocoder techniques
for pitch-shifting, harmonizing and other exotic effects", WASPAA 1999): every peak takes the bins
around it along to its new frequency, and is turned by the phase that the difference of frequencies
has gathered so far.  Both channels are moved alike, so the stereo picture stays.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from rocket_fft import c2c

from realtime_sep.effects.base import BaseEffect
from realtime_sep.parameters import Parameter
from realtime_sep.types import Float32

#: Frames of a transform: long enough to tell the harmonics of a bass apart.
N_FFT = 4096
#: Transforms that overlap at each moment.
OVERLAP = 8
_AXES = np.array([0], dtype=np.int64)
_HALF = np.float32(0.5)


@njit(cache=True, nogil=True)
def _split(freq, spectra):  # type: ignore[no-untyped-def]
    """Spectra (2, bins) of the two real signals in the transform of left + i right."""
    n = freq.shape[0]
    half = n // 2
    for k in range(half + 1):
        a = freq[k]
        b = freq[(n - k) % n]
        spectra[0, k] = complex(_HALF * (a.real + b.real), _HALF * (a.imag - b.imag))
        spectra[1, k] = complex(_HALF * (a.imag + b.imag), _HALF * (b.real - a.real))


@njit(cache=True, nogil=True)
def _join(spectra, freq):  # type: ignore[no-untyped-def]
    """The inverse of `_split`."""
    n = freq.shape[0]
    half = n // 2
    freq[0] = complex(spectra[0, 0].real, spectra[1, 0].real)
    freq[half] = complex(spectra[0, half].real, spectra[1, half].real)
    for k in range(1, half):
        a = spectra[0, k]
        b = spectra[1, k]
        freq[k] = complex(a.real - b.imag, a.imag + b.real)
        freq[n - k] = complex(a.real + b.imag, b.real - a.imag)


@njit(cache=True, nogil=True)
def _move(new, old, power, ratio, hop, turned, turning, out):  # type: ignore[no-untyped-def]
    """Move every peak of `new` (2, bins) to `ratio` times its frequency.

    `old` is the spectrum one hop before, `turned` the phases (bins) gathered by then; `turning`
    takes those gathered now.
    """
    bins = new.shape[1]
    n = 2 * (bins - 1)
    out[:] = 0
    turning[:] = 0
    for k in range(bins):
        a = new[0, k]
        b = new[1, k]
        power[k] = a.real * a.real + a.imag * a.imag + b.real * b.real + b.imag * b.imag
    begin = 0
    peak = -1
    k = 1
    while begin < bins:
        # The next peak: above two neighbours on both sides.
        peak = -1
        while k < bins:
            p = power[k]
            low = power[k - 1] < p and (k < 2 or power[k - 2] <= p)
            high = (k + 1 >= bins or power[k + 1] <= p) and (k + 2 >= bins or power[k + 2] <= p)
            if low and high and p > 0:
                peak = k
                break
            k += 1
        if peak < 0:
            break
        # Its bins end at the valley before the next one.
        end = peak + 1
        while end < bins and power[end] <= power[end - 1]:
            end += 1
        k = end
        c = 0 if abs(new[0, peak]) >= abs(new[1, peak]) else 1
        step = new[c, peak] * np.conj(old[c, peak])
        phase = math.atan2(step.imag, step.real) - 2 * math.pi * peak * hop / n
        phase -= 2 * math.pi * round(phase / (2 * math.pi))
        place = peak + phase * n / (2 * math.pi * hop)
        way = (ratio - 1) * place
        shift = round(way)
        angle = (turned[peak] + 2 * math.pi * way * hop / n) % (2 * math.pi)
        # The phases meet in the middle of the window, where a shift by one bin is half a turn.
        sign = -1.0 if shift % 2 else 1.0
        rotor = np.complex64(complex(sign * math.cos(angle), sign * math.sin(angle)))
        for j in range(begin, end):
            turning[j] = angle
            t = j + shift
            if 0 < t < bins - 1:
                out[0, t] += new[0, j] * rotor
                out[1, t] += new[1, j] * rotor
        begin = end


@njit(cache=True, nogil=True)
def _frame(past, time, freq, window, spectra, moved, power, turns, ratio, hop, turn, sums, axes):  # type: ignore[no-untyped-def]
    """One transform of `past` (N complex, oldest first) there and back, added to `sums`."""
    n = past.shape[0]
    for i in range(n):
        time[i] = past[i] * window[i]
    c2c(time, freq, axes, True, np.float32(1), 1)  # type: ignore[arg-type]
    new = spectra[turn]
    _split(freq, new)
    if ratio == 1.0:
        turns[:] = 0
        moved[:] = new
    else:
        _move(new, spectra[1 - turn], power, ratio, hop, turns[turn], turns[1 - turn], moved)
    _join(moved, freq)
    c2c(freq, time, axes, False, np.float32(1), 1)  # type: ignore[arg-type]
    for i in range(n):
        sums[i] += time[i] * window[i]


class Pitch(BaseEffect):
    """All of it, up to an octave up or down.  At 0 the sound passes as it is."""

    name = "pitch"
    parameters = (Parameter("semitones", 0.0, -12.0, 12.0, "", label="Key"),)

    def prepare(self, samplerate: int, channels: int, max_frames: int) -> None:
        self._n = N_FFT * max(1, round(samplerate / 48000))
        self.latency = self._n
        super().prepare(samplerate, channels, max_frames)

    def allocate(self, channels: int, max_frames: int) -> None:
        n, bins = self._n, self._n // 2 + 1
        self._hop = n // OVERLAP
        window = np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
        # Squared and overlapped these add up to 3/8 of the overlap; the transforms to n.
        self._window = (window / math.sqrt(0.375 * OVERLAP * n)).astype(np.float32)
        self._past, self._time, self._freq = (np.zeros(n, np.complex64) for _ in range(3))
        self._sums = np.zeros(n, np.complex64)
        self._spectra = np.zeros((2, 2, bins), np.complex64)
        self._moved = np.zeros((2, bins), np.complex64)
        self._power: Float32 = np.zeros(bins, np.float32)
        self._turns = np.zeros((2, bins))
        self._ready = np.zeros(self._hop, np.complex64)

    def reset(self) -> None:
        super().reset()
        for array in (self._past, self._sums, self._spectra, self._turns, self._ready):
            array[:] = 0
        self._turn = self._place = 0

    def process(self, block: Float32) -> None:
        self.values.update(self.targets)  # the overlap glides
        done = 0
        while done < len(block):
            some = min(len(block) - done, self._hop - self._place)
            part = block[done : done + some]
            places = slice(self._place, self._place + some)
            gathered = self._past[-self._hop :][places]
            gathered.real = part[:, 0]
            gathered.imag = part[:, -1]
            part[:, 0] = self._ready[places].real
            if part.shape[1] > 1:
                part[:, 1] = self._ready[places].imag
            done += some
            self._place += some
            if self._place == self._hop:
                self._step()

    def _step(self) -> None:
        hop = self._hop
        _frame(
            self._past,
            self._time,
            self._freq,
            self._window,
            self._spectra,
            self._moved,
            self._power,
            self._turns,
            2 ** (self.values["semitones"] / 12),
            hop,
            self._turn,
            self._sums,
            _AXES,
        )
        self._ready[:] = self._sums[:hop]
        self._sums[:-hop] = self._sums[hop:]
        self._sums[-hop:] = 0
        self._past[:-hop] = self._past[hop:]
        self._turn = 1 - self._turn
        self._place = 0
