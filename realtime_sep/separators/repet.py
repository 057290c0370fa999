"""What repeats is music, what does not is voice.

REPET-SIM (Rafii and Pardo, "Music/voice separation using the similarity matrix", ISMIR 2012) as it
runs online ("Online REPET-SIM for real-time speech enhancement", ICASSP 2013): every spectrum is
compared with those of the last seconds; the median of the most similar ones is what repeats, and
the voice is what stands out of it.  The median of neighbours is that of
`librosa.decompose.nn_filter`, of the past alone.  Of music that is heard for the first time nothing
repeats, and of a voice that sings a refrain all does.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from realtime_sep.separators.masking import LOUDEST, Masking, in_range
from realtime_sep.types import Complex64, Float32, Geometry

#: Below this frequency in Hz nothing is voice.
_BASS = 100.0


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"})
def nearest(row, magnitudes, norms, count, chosen, closeness):  # type: ignore[no-untyped-def]
    """The rows of `magnitudes` most similar to `row` by cosine, best first.

    Args:
        norms: of the rows; a negative one is passed over.
        count: how many to find; fewer are found where there are no more.
        chosen, closeness: `(count,)`, overwritten.

    Returns:
        how many were found.
    """
    found = 0
    for t in range(magnitudes.shape[0]):
        if norms[t] < 0:
            continue
        other = magnitudes[t]
        product = np.float32(0)
        for k in range(row.shape[0]):
            product += row[k] * other[k]
        close = product / norms[t] if norms[t] > 0 else np.float32(0)
        if found == count and close <= closeness[count - 1]:
            continue
        i = found if found < count else count - 1
        while i > 0 and closeness[i - 1] < close:
            closeness[i] = closeness[i - 1]
            chosen[i] = chosen[i - 1]
            i -= 1
        closeness[i] = close
        chosen[i] = t
        found = min(found + 1, count)
    return found


@njit(cache=True, nogil=True)
def median_of(magnitudes, chosen, found, work, out):  # type: ignore[no-untyped-def]
    """Median over the `found` first `chosen` rows, bin by bin, in `out (bins,)`."""
    for k in range(out.shape[0]):
        for n in range(found):  # insertion sort: they are few
            value = magnitudes[chosen[n], k]
            i = n
            while i > 0 and work[i - 1] > value:
                work[i] = work[i - 1]
                i -= 1
            work[i] = value
        middle = work[found // 2]
        out[k] = middle if found % 2 else np.float32(0.5) * (middle + work[found // 2 - 1])


@njit(cache=True, nogil=True)
def _magnitude(spectrum, out):  # type: ignore[no-untyped-def]
    """Root of the channels' mean power in `out (bins,)`; returns its norm."""
    total = np.float32(0)
    share = np.float32(1 / spectrum.shape[0])
    for k in range(out.shape[0]):
        power = np.float32(0)
        for c in range(spectrum.shape[0]):
            x = spectrum[c, k]
            power += x.real * x.real + x.imag * x.imag
        power *= share
        out[k] = np.sqrt(power)
        total += power
    return np.sqrt(total)


@njit(cache=True, nogil=True)
def _apply(spectrum, magnitude, repeating, first, out):  # type: ignore[no-untyped-def]
    """Write to `out` what stands out of `repeating`, as a Wiener ratio, from bin `first` on."""
    for k in range(magnitude.shape[0]):
        music = min(repeating[k], magnitude[k])
        voice = magnitude[k] - music
        share = np.float32(0)
        if k >= first and voice > 0:
            music /= magnitude[k]
            voice /= magnitude[k]
            share = voice * voice / (voice * voice + music * music)
        for c in range(spectrum.shape[0]):
            out[c, k] = share * spectrum[c, k]


class RepetSim(Masking):
    """Voice is what the last seconds hold nothing like.

    Args:
        samplerate: Hz.
        channels: 1 or 2; both get the same mask.
        profile: a name of `PROFILES`.
        geometry: instead of a profile.
        memory: seconds that are compared with.
        gap: seconds; what is nearer than this is no repetition.
        similar: how many spectra the median is taken of.

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
        memory: float = 10.0,
        gap: float = 1.0,
        similar: int = 15,
    ) -> None:
        super().__init__(
            "repet-sim",
            ("vocals", "accompaniment"),
            samplerate=samplerate,
            channels=channels,
            profile=profile,
            geometry=geometry,
            family="repetition",
        )
        rate = samplerate / self.geometry.hop
        hops = round(in_range("memory", memory, 0.1, 60, "seconds") * rate)
        self._gap = max(1, round(in_range("gap", gap, 0, memory, "seconds") * rate))
        similar = round(in_range("similar", similar, 1, 100))
        self._bass = int(np.ceil(_BASS * self.geometry.n_fft / samplerate))
        bins = self.geometry.bins
        self._position = 0
        self._magnitudes: Float32 = np.zeros((hops + 1, bins), np.float32)
        # Of a spectrum that is not heard yet, or too new to be compared with: negative.
        self._norms: Float32 = np.full(hops + 1, -1, np.float32)
        self._waiting: Float32 = np.full(self._gap, -1, np.float32)
        self._chosen = np.zeros(similar, np.int64)
        self._closeness: Float32 = np.zeros(similar, np.float32)
        self._work: Float32 = np.zeros(similar, np.float32)
        self._repeating: Float32 = np.zeros(bins, np.float32)

    def reset(self) -> None:
        """Return to the state just after construction."""
        super().reset()
        self._position = 0
        self._norms[:] = -1
        self._waiting[:] = -1

    def _mask(self, spectrum: Complex64, out: Complex64) -> None:
        now, size = self._position, len(self._norms)
        place = now % size
        row = self._magnitudes[place]
        norm = _magnitude(spectrum, row)
        self._norms[place] = -1
        # The one that is `gap` hops old is old enough from now on.
        slot = now % self._gap
        old = (now - self._gap) % size
        if now >= self._gap and self._gap < size:
            self._norms[old] = self._waiting[slot]
        sane = norm < LOUDEST
        if not sane:
            row[:] = 0
        self._waiting[slot] = norm if sane else -1
        self._position = now + 1
        found = 0
        if sane and norm > 0:
            found = nearest(
                row, self._magnitudes, self._norms, len(self._chosen), self._chosen, self._closeness
            )
        if not found:
            out[:] = 0
            return
        median_of(self._magnitudes, self._chosen, found, self._work, self._repeating)
        _apply(spectrum, row, self._repeating, self._bass, out)
