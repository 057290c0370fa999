"""Meters: sample peak, and momentary loudness after ITU-R BS.1770."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from numba import njit

from realtime_sep.types import Float32


@njit(cache=True, nogil=True)
def peak(block: Float32) -> float:
    """Largest absolute sample of `(frames, channels)`, linear."""
    largest = np.float32(0)
    for i in range(block.shape[0]):
        for c in range(block.shape[1]):
            largest = max(largest, abs(block[i, c]))
    return float(largest)


def decibels(gain: float) -> float:
    """dB of a linear gain; minus infinity for zero."""
    return 20 * math.log10(gain) if gain > 0 else -math.inf


def linear(db: float) -> float:
    """Linear gain of dB; zero for minus infinity."""
    return 10 ** (db / 20) if db > -math.inf else 0.0


def k_weighting(samplerate: float) -> npt.NDArray[np.float64]:
    """The two biquads of BS.1770 for any rate: rows of `b0 b1 b2 a1 a2`.

    The standard lists coefficients at 48 kHz only; the analogue parameters behind them are those of
    De Man, "Evaluation of implementations of the EBU R128 loudness measurement", AES 2018.
    """
    shelf_gain, shelf_q, shelf_hz = 3.999843853973347, 0.7071752369554196, 1681.974450955533
    pass_q, pass_hz = 0.5003270373238773, 38.13547087602444

    k = math.tan(math.pi * shelf_hz / samplerate)
    high = 10 ** (shelf_gain / 20)
    band = high**0.4996667741545416
    norm = 1 + k / shelf_q + k * k
    shelf = [
        (high + band * k / shelf_q + k * k) / norm,
        2 * (k * k - high) / norm,
        (high - band * k / shelf_q + k * k) / norm,
        2 * (k * k - 1) / norm,
        (1 - k / shelf_q + k * k) / norm,
    ]
    k = math.tan(math.pi * pass_hz / samplerate)
    norm = 1 + k / pass_q + k * k
    highpass = [1.0, -2.0, 1.0, 2 * (k * k - 1) / norm, (1 - k / pass_q + k * k) / norm]
    return np.array([shelf, highpass])


@njit(cache=True, nogil=True)
def _energy(block, filters, states):  # type: ignore[no-untyped-def]
    """Sum over channels of the filtered block's energy (direct form II transposed)."""
    total = 0.0
    for c in range(block.shape[1]):
        for i in range(block.shape[0]):
            x = np.float64(block[i, c])
            for f in range(filters.shape[0]):
                y = filters[f, 0] * x + states[c, f, 0]
                states[c, f, 0] = filters[f, 1] * x - filters[f, 3] * y + states[c, f, 1]
                states[c, f, 1] = filters[f, 2] * x - filters[f, 4] * y
                x = y
            total += x * x
    return total


class Loudness:
    """Momentary loudness: K-weighted level of the last 400 ms, in LUFS.

    Args:
        hop: frames per block; the window is the nearest whole number of blocks.
    """

    def __init__(self, samplerate: int, channels: int, hop: int) -> None:
        self._filters = k_weighting(samplerate)
        self._states = np.zeros((channels, 2, 2))
        self._energies = np.zeros(max(1, round(0.4 * samplerate / hop)))
        self._frames = len(self._energies) * hop
        self._position = 0

    def reset(self) -> None:
        """Forget the past."""
        self._states[:] = 0
        self._energies[:] = 0

    def process(self, block: Float32) -> None:
        """Take the next `(hop, channels)`."""
        self._energies[self._position] = _energy(block, self._filters, self._states)
        self._position = (self._position + 1) % len(self._energies)

    @property
    def value(self) -> float:
        """LUFS now; minus infinity in silence."""
        mean = float(self._energies.sum()) / self._frames
        return -0.691 + 10 * math.log10(mean) if mean > 1e-12 else -math.inf


def percentile(histogram: Iterable[int], edges: npt.NDArray[np.float64], q: float) -> float:
    """Value below which `q` (0..1) of the counts lie: the upper edge of that bucket."""
    counts = np.asarray(histogram, dtype=np.float64)
    total = counts.sum()
    if total == 0:
        return 0.0
    return float(edges[int(np.searchsorted(np.cumsum(counts), q * total))])
