"""Harmonic and percussive sounds apart, by medians along time and along frequency.

Lasting tones are ridges along time in a spectrogram, beats are ridges along frequency: a median
across either leaves the other out.  FitzGerald, "Harmonic/percussive separation using median
filtering", DAFx 2010; the same as `librosa.decompose.hpss` where the window of time is centred.
A voice is neither: most of it counts as harmonic, its consonants as percussive.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from realtime_sep.separators.masking import LOUDEST, Masking, in_range
from realtime_sep.types import Complex64, Float32, Geometry


@njit(cache=True, nogil=True)
def _replace(ordered, old, new):  # type: ignore[no-untyped-def]
    """In an ascending array: take one `old` out and put `new` in."""
    i = 0
    while ordered[i] != old:
        i += 1
    while i + 1 < ordered.shape[0] and ordered[i + 1] < new:
        ordered[i] = ordered[i + 1]
        i += 1
    while i > 0 and ordered[i - 1] > new:
        ordered[i] = ordered[i - 1]
        i -= 1
    ordered[i] = new


@njit(cache=True, nogil=True)
def _remember(spectrum, position, spectra, magnitudes, ordered):  # type: ignore[no-untyped-def]
    """Take a spectrum (channels, bins) into the rings, and into the ordered windows of time."""
    for c in range(spectrum.shape[0]):
        for k in range(spectrum.shape[1]):
            x = spectrum[c, k]
            magnitude = np.sqrt(x.real * x.real + x.imag * x.imag)
            if not magnitude < LOUDEST:
                magnitude = np.float32(0)
                x = np.complex64(0)
            _replace(ordered[c, k], magnitudes[position, c, k], magnitude)
            magnitudes[position, c, k] = magnitude
            spectra[position, c, k] = x


@njit(cache=True, nogil=True)
def _percussive(spectra, magnitudes, ordered, window, out):  # type: ignore[no-untyped-def]
    """Write the percussive share of `spectra` (channels, bins) to `out`.

    `magnitudes` are theirs, `ordered` the windows of time in order, `window` one of frequency to
    work in.  Beyond its ends the spectrum goes on mirrored.
    """
    bins = spectra.shape[1]
    size = window.shape[0]
    half = size // 2
    middle = ordered.shape[2] // 2
    for c in range(spectra.shape[0]):
        row = magnitudes[c]
        window[:] = 0
        for k in range(-half, half + 1):
            _replace(window, np.float32(0), row[-k - 1 if k < 0 else k])
        for k in range(bins):
            lasting, beating = ordered[c, k, middle], window[half]
            loudest = max(lasting, beating)
            share = np.float32(0.5)
            if loudest > 0:
                lasting /= loudest
                beating /= loudest
                share = beating * beating / (lasting * lasting + beating * beating)
            out[c, k] = share * spectra[c, k]
            leaves, enters = k - half, k + half + 1
            leaves = -leaves - 1 if leaves < 0 else leaves
            enters = 2 * bins - 1 - enters if enters >= bins else enters
            _replace(window, row[leaves], row[enters])


class Hpss(Masking):
    """Drums ("percussive") and what lasts ("harmonic").

    Args:
        samplerate: Hz.
        channels: 1 or 2, each for itself.
        profile: a name of `PROFILES`.
        geometry: instead of a profile.
        time: seconds over which a tone has to last (the nearest odd number of hops).
        width: Hz over which a beat has to spread (the nearest odd number of bins).
        lookahead: hops of the time that lie in the future; each adds a hop of latency.  With none,
            the beginning of a tone counts as a beat for half of `time`.

    Raises:
        UsageError: an option that is none.
    """

    def __init__(
        self,
        *,
        samplerate: int,
        channels: int = 2,
        profile: str = "studio",
        geometry: Geometry | None = None,
        time: float = 0.2,
        width: float = 500.0,
        lookahead: int = 0,
    ) -> None:
        super().__init__(
            "hpss",
            ("percussive", "harmonic"),
            samplerate=samplerate,
            channels=channels,
            profile=profile,
            geometry=geometry,
            family="medians",
            lookahead=int(in_range("lookahead", lookahead, 0, 100, "hops")),
        )
        g = self.geometry
        bins = in_range("width", width, 0, samplerate / 4, "Hz") * g.n_fft / samplerate
        hops = _odd(in_range("time", time, 0, 5, "seconds") * samplerate / g.hop)
        in_range("lookahead", lookahead, 0, hops - 1, f"hops of a time of {hops}")
        self._lookahead = lookahead
        self._position = 0
        self._spectra: Complex64 = np.zeros((hops, channels, g.bins), np.complex64)
        self._magnitudes: Float32 = np.zeros((hops, channels, g.bins), np.float32)
        self._ordered: Float32 = np.zeros((channels, g.bins, hops), np.float32)
        self._window: Float32 = np.zeros(_odd(bins), np.float32)

    def reset(self) -> None:
        """Return to the state just after construction."""
        super().reset()
        self._position = 0
        self._spectra[:] = 0
        self._magnitudes[:] = 0
        self._ordered[:] = 0

    def _mask(self, spectrum: Complex64, out: Complex64) -> None:
        now, hops = self._position, len(self._spectra)
        _remember(spectrum, now, self._spectra, self._magnitudes, self._ordered)
        shown = (now - self._lookahead) % hops
        _percussive(self._spectra[shown], self._magnitudes[shown], self._ordered, self._window, out)
        self._position = (now + 1) % hops


def _odd(length: float) -> int:
    """The nearest odd number, at least one."""
    return 2 * round((max(length, 1.0) - 1) / 2) + 1
