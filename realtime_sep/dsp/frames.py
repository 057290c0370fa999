"""The spectrogram of a segment and back, as networks for whole songs expect it.

Two ways in which the frames lie on the segment are in use:

- `centred`: frame t is centred on sample t · hop, as in `torch.stft(center=True)`: L / hop + 1
  frames (MDX-Net, Open-Unmix);
- `staggered`: frame t begins 1.5 hops before sample t · hop: L / hop frames, as many as a
  convolution of that stride gives (Demucs; hop = n_fft / 4), scaled to keep the energy.

Beyond its ends the segment is mirrored.  The window is a periodic Hann window.  The inverse is
overlap-add divided by the sum of the squared windows.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rocket_fft import c2c

from realtime_sep.types import Complex64, Float32

_AXES = np.array([0], dtype=np.int64)
_HALF = np.float32(0.5)
_FAST = {"contract", "nsz", "reassoc"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def _forward(audio, lead, hop, window, time, freq, out, axes):  # type: ignore[no-untyped-def]
    """Fill `out` (channels, 2, bins, T) from `audio` (channels, L)."""
    channels, length = audio.shape
    n_fft = window.shape[0]
    bins = out.shape[2]
    for t in range(out.shape[3]):
        begin = t * hop - lead
        for i in range(n_fft):
            p = begin + i
            if p < 0:
                p = -p
            elif p >= length:
                p = 2 * (length - 1) - p
            imag = audio[1, p] if channels > 1 else np.float32(0)
            time[i] = complex(audio[0, p], imag) * window[i]
        c2c(time, freq, axes, True, np.float32(1), 1)  # type: ignore[arg-type]
        for k in range(bins):
            a = freq[k]
            b = freq[(n_fft - k) % n_fft]
            out[0, 0, k, t] = _HALF * (a.real + b.real)
            out[0, 1, k, t] = _HALF * (a.imag - b.imag)
            if channels > 1:
                out[1, 0, k, t] = _HALF * (a.imag + b.imag)
                out[1, 1, k, t] = _HALF * (b.real - a.real)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _inverse(spectra, lead, hop, window, time, freq, sums, out, axes):  # type: ignore[no-untyped-def]
    """Add to `out` (channels, L) what `spectra` (channels, 2, bins, T) mean."""
    channels, length = out.shape
    n_fft = window.shape[0]
    half = n_fft // 2
    bins = spectra.shape[2]
    last = channels - 1  # mono is both parts of the complex signal
    for t in range(spectra.shape[3]):
        freq[:] = 0
        for k in range(bins):
            a = complex(spectra[0, 0, k, t], spectra[0, 1, k, t])
            b = complex(spectra[last, 0, k, t], spectra[last, 1, k, t])
            if k == 0 or k == half:  # real, whatever a network says
                freq[k] = complex(a.real, b.real)
            else:
                freq[k] = complex(a.real - b.imag, a.imag + b.real)
                freq[n_fft - k] = complex(a.real + b.imag, b.real - a.imag)
        c2c(freq, time, axes, False, np.float32(1), 1)  # type: ignore[arg-type]
        begin = t * hop - lead
        for i in range(max(0, -begin), min(n_fft, length - begin)):
            weight = window[i] * sums[begin + i]
            out[0, begin + i] += weight * time[i].real
            if channels > 1:
                out[1, begin + i] += weight * time[i].imag


class SegmentTransform:
    """The spectrogram of segments of one length.

    Args:
        length: L, samples.
        bins: from 0, of which the spectrogram consists; the others are left out and come back as
            zeros.
        layout: how the frames lie: "centred" or "staggered".

    Attributes:
        frames: T.
    """

    def __init__(self, n_fft: int, hop: int, length: int, bins: int, layout: str) -> None:
        self._hop = hop
        self.bins = bins
        staggered = layout == "staggered"
        self._lead = 3 * hop // 2 if staggered else n_fft // 2
        self.frames = -(-length // hop) if staggered else length // hop + 1
        scale = n_fft**-0.5 if staggered else 1.0
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
        # Staggered frames are thought to go on, silent, on both sides.
        beyond = n_fft // hop if staggered else 0
        begin = self._lead + beyond * hop
        sums = np.zeros(begin + length + n_fft + (beyond + 2) * hop)
        for t in range(self.frames + 2 * beyond):
            sums[t * hop : t * hop + n_fft] += window**2
        sums = sums[begin : begin + length]
        self._window = (window * scale).astype(np.float32)
        self._inverse_window = (window / (scale * n_fft)).astype(np.float32)
        # The last samples may lie under no window at all.
        self._sums = (1 / np.maximum(sums, 1e-3)).astype(np.float32)
        self._time: Complex64 = np.zeros(n_fft, np.complex64)
        self._freq: Complex64 = np.zeros(n_fft, np.complex64)

    def forward(self, audio: Float32, out: Float32) -> None:
        """Fill `out` `(channels, 2, bins, T)`, real and imaginary parts, from `(channels, L)`."""
        _forward(audio, self._lead, self._hop, self._window, self._time, self._freq, out, _AXES)

    def inverse(self, spectra: Float32, out: Float32) -> None:
        """Add to `out` `(channels, L)` the signal of `spectra` `(channels, 2, bins, T)`."""
        _inverse(
            spectra,
            self._lead,
            self._hop,
            self._inverse_window,
            self._time,
            self._freq,
            self._sums,
            out,
            _AXES,
        )
