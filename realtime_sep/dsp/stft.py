"""Streaming short-time Fourier transform and overlap-add, hop by hop, in numba.

The Fourier transforms are rocket-fft's (DUCC), called in nopython code without the GIL.  Two real
channels travel as the real and imaginary part of one complex signal, so a stereo hop costs one
complex transform each way: less than half of what two real ones cost.  All buffers belong to the
objects; nothing is allocated per hop by us.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rocket_fft import c2c

from realtime_sep.dsp.windows import window_pair
from realtime_sep.types import Complex64, Float32, Geometry

_AXES = np.array([0], dtype=np.int64)
_HALF = np.float32(0.5)
_FAST = {"contract", "nsz", "reassoc"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def _analyse(hop, history, position, window, time, freq, spectrum, axes):  # type: ignore[no-untyped-def]
    """Take `hop` into the circular `history`; transform its newest N samples. Returns position."""
    n_fft = window.shape[0]
    channels = spectrum.shape[0]
    half = n_fft // 2
    for pair in range(history.shape[0]):
        left = 2 * pair
        right = left + 1
        ring = history[pair]
        p = position
        for i in range(hop.shape[0]):
            imag = hop[i, right] if right < channels else np.float32(0)
            ring[p] = complex(hop[i, left], imag)
            p += 1
            if p == n_fft:
                p = 0
        # `p` is now the oldest sample: the window meets the ring in two straight runs.
        older = n_fft - p
        for i in range(older):
            time[i] = ring[p + i] * window[i]
        for i in range(p):
            time[older + i] = ring[i] * window[older + i]
        c2c(time, freq, axes, True, np.float32(1), 1)  # type: ignore[arg-type]
        # Real left and imaginary right part by the symmetry of real signals' spectra.
        one = spectrum[left]
        one[0] = freq[0].real
        one[half] = freq[half].real
        if right < channels:
            other = spectrum[right]
            other[0] = freq[0].imag
            other[half] = freq[half].imag
            for k in range(1, half):
                a = freq[k]
                b = freq[n_fft - k]
                one[k] = complex(_HALF * (a.real + b.real), _HALF * (a.imag - b.imag))
                other[k] = complex(_HALF * (a.imag + b.imag), _HALF * (b.real - a.real))
        else:
            one[1:half] = freq[1:half]
    return (position + hop.shape[0]) % n_fft


@njit(cache=True, nogil=True, fastmath=_FAST)
def _synthesise(spectrum, time, freq, window, overlap, out, axes):  # type: ignore[no-untyped-def]
    """Inverse transform, window the last S samples, overlap-add, emit the finished hop.

    The last H of the sums are never written and stay zero: what moves in from the right.
    """
    n_fft = time.shape[0]
    half = n_fft // 2
    synthesis = window.shape[0]
    channels, hop = spectrum.shape[0], out.shape[0]
    for pair in range(overlap.shape[0]):
        left = 2 * pair
        right = left + 1
        # A real signal's spectrum is real at both ends; what a separator put there is dropped,
        # as it would leak from one channel of the pair into the other.
        if right < channels:
            freq[0] = complex(spectrum[left, 0].real, spectrum[right, 0].real)
            freq[half] = complex(spectrum[left, half].real, spectrum[right, half].real)
            for k in range(1, half):
                a = spectrum[left, k]
                b = spectrum[right, k]
                freq[k] = complex(a.real - b.imag, a.imag + b.real)
                freq[n_fft - k] = complex(a.real + b.imag, b.real - a.imag)
        else:
            freq[0] = spectrum[left, 0].real
            freq[half] = spectrum[left, half].real
            for k in range(1, half):
                a = spectrum[left, k]
                freq[k] = a
                freq[n_fft - k] = complex(a.real, -a.imag)
        c2c(freq, time, axes, False, np.float32(1), 1)  # type: ignore[arg-type]
        tail = time[n_fft - synthesis :]
        sums = overlap[pair]
        for i in range(hop):
            done = sums[i] + tail[i] * window[i]
            out[i, left] = done.real
            if right < channels:
                out[i, right] = done.imag
        for i in range(synthesis - hop):
            sums[i] = sums[i + hop] + tail[i + hop] * window[i + hop]


class Analysis:
    """Spectra of a stream: one per hop, of the newest N samples.

    Attributes:
        spectrum: `(channels, bins)` complex64, the latest; overwritten by each hop.
    """

    def __init__(self, geometry: Geometry, channels: int) -> None:
        self.geometry = geometry
        self._window, _ = window_pair(geometry.n_fft, geometry.synthesis, geometry.hop)
        pairs = (channels + 1) // 2
        self._history: Complex64 = np.zeros((pairs, geometry.n_fft), np.complex64)
        self._time: Complex64 = np.zeros(geometry.n_fft, np.complex64)
        self._freq: Complex64 = np.zeros(geometry.n_fft, np.complex64)
        self.spectrum: Complex64 = np.zeros((channels, geometry.bins), np.complex64)
        self._position = 0

    def reset(self) -> None:
        """Forget the past."""
        self._history[:] = 0
        self._position = 0

    def process(self, hop: Float32) -> Complex64:
        """Take `(H, channels)`; return `spectrum`."""
        self._position = _analyse(
            hop,
            self._history,
            self._position,
            self._window,
            self._time,
            self._freq,
            self.spectrum,
            _AXES,
        )
        return self.spectrum


class Synthesis:
    """A stream from its spectra: the inverse of `Analysis`, `S - H` frames later."""

    def __init__(self, geometry: Geometry, channels: int) -> None:
        self.geometry = geometry
        _, window = window_pair(geometry.n_fft, geometry.synthesis, geometry.hop)
        self._window = window / np.float32(geometry.n_fft)  # the inverse transform's scale
        pairs = (channels + 1) // 2
        self._time: Complex64 = np.zeros(geometry.n_fft, np.complex64)
        self._freq: Complex64 = np.zeros(geometry.n_fft, np.complex64)
        self._overlap: Complex64 = np.zeros((pairs, geometry.synthesis), np.complex64)

    def reset(self) -> None:
        """Forget the past."""
        self._overlap[:] = 0

    def process(self, spectrum: Complex64, out: Float32) -> None:
        """Take `(channels, bins)`; write the finished hop into `out` `(H, channels)`."""
        _synthesise(spectrum, self._time, self._freq, self._window, self._overlap, out, _AXES)
